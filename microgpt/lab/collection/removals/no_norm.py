"""No norm

Rows keep whatever size they have.

Hypothesis: One layer with small weights does without, and on names even a little
better; with several layers and larger first weights nothing is learnt.
Reference: Zhang and Sennrich 2019, Root Mean Square Layer Normalization.
Expected: better on names
"""


def norm(x):  # rows stay as they are
    return x

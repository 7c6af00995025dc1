"""Ten times the learning rate

0.1 instead of 0.01.

Hypothesis: Steps that overshoot; the model learns little more than how frequent letters
are.
Reference: Kaplan et al. 2020, Scaling Laws for Neural Language Models.
Expected: worse on names
"""

lr = 0.1

"""Wide

Thirty-two channels instead of sixteen: about four times the weights in a block.

Hypothesis: A larger model learns more from the same documents, where there are enough
of them; a thousand names are not.
Reference: Kaplan et al. 2020, Scaling Laws for Neural Language Models.
Expected: alike on names
"""

n_embd = 32

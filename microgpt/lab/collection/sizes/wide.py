"""Wide

Thirty-two channels instead of sixteen: about four times the weights in a block.

Hypothesis: A larger model learns more from the same documents.
Reference: Kaplan et al. 2020, Scaling Laws for Neural Language Models.
Expected: better on names
"""

n_embd = 32

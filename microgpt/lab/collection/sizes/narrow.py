"""Narrow

Eight channels instead of sixteen.

Hypothesis: Too small for what there is to learn.
Reference: Kaplan et al. 2020, Scaling Laws for Neural Language Models.
Expected: worse on names
"""

n_embd = 8

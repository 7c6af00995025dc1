"""Narrow

Eight channels instead of sixteen.

Hypothesis: A thousand names teach no more than fits into eight channels.
Reference: Kaplan et al. 2020, Scaling Laws for Neural Language Models.
Expected: alike on names
"""

n_embd = 8

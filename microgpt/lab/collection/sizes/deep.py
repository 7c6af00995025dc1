"""Deep

Four layers instead of one.

Hypothesis: More steps of computation, but also more to learn: a thousand names are too
few, and the small model wins.
Reference: Kaplan et al. 2020, Scaling Laws for Neural Language Models.
Expected: worse on names
"""

n_layer = 4

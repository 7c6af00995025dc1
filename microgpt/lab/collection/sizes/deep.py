"""Deep

Four layers instead of one.

Hypothesis: More steps of computation between question and answer.
Reference: Kaplan et al. 2020, Scaling Laws for Neural Language Models.
Expected: better on names
"""

n_layer = 4

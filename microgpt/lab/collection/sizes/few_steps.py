"""A third of the steps

333 steps instead of 1000.

Hypothesis: Not yet learnt.
Reference: Kaplan et al. 2020, Scaling Laws for Neural Language Models.
Expected: worse on names
"""

steps = 333

"""A tenth of the learning rate

0.001 instead of 0.01.

Hypothesis: Too slow to arrive in time.
Reference: Kaplan et al. 2020, Scaling Laws for Neural Language Models.
Expected: worse on names
"""

lr = 0.001

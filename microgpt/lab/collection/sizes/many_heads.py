"""Eight heads

Eight heads of two channels instead of four of four.

Hypothesis: More places to look at, each with less to say.
Reference: Kaplan et al. 2020, Scaling Laws for Neural Language Models.
Expected: alike on names
"""

n_head = 8

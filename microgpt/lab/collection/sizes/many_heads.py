"""Eight heads

Eight heads of two channels instead of four of four.

Hypothesis: More places to look at, each with less to say.
Reference: Vaswani et al. 2017, Attention Is All You Need, section 6.2.
Expected: alike on names
"""

n_head = 8

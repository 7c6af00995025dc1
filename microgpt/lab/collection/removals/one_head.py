"""One head

One attention head with all the channels, in place of four with a quarter each.

Hypothesis: A head averages what it looks at; one head cannot look at two places at once
and keep them apart.
Reference: Vaswani et al. 2017, Attention Is All You Need, section 3.2.2.
Expected: worse on brackets
"""

n_head = 1

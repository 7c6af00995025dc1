"""Small first weights

First weights with a spread of 0.02, as in GPT-2, instead of 0.08.

Hypothesis: Sixteen channels are few: such weights begin so small that the first steps
are lost.
Reference: Radford et al. 2018, Improving Language Understanding by Generative
Pre-Training, section 4.1.
Expected: alike on names
"""

std = 0.02

"""SiLU

A cell times its own logistic function: ReLU with a soft corner, and a small dip below
zero. Also called Swish.

Hypothesis: As GELU: hardly a difference at this size.
Reference: Elfwing et al. 2018, Sigmoid-Weighted Linear Units for Neural Network
Function Approximation in Reinforcement Learning; Ramachandran et al. 2017, Searching
for Activation Functions.
Expected: alike on names
"""


def silu(x):  # x times 1 / (1 + exp(-x))
    return x / ((x * -1).exp() + 1)


def mlp(x, fc, proj):  # (T, C) -> (T, C), each token on its own
    hidden = silu(x @ fc)  # (T, 4C)
    return hidden @ proj

"""No nonlinearity

The feed-forward without its ReLU: two matrices in a row are one matrix.

Hypothesis: A sum with a carry cannot be computed by straight lines.
Reference: Nair and Hinton 2010, Rectified Linear Units Improve Restricted Boltzmann
Machines.
Expected: worse on addition
"""


def mlp(x, fc, proj):  # (T, C) -> (T, C), each token on its own
    hidden = (x @ fc)  # (T, 4C)
    return hidden @ proj

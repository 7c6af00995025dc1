"""LayerNorm

The mean of every row is taken from it before it is scaled.

Hypothesis: RMSNorm leaves out the mean because little is lost by it: no difference.
Reference: Ba et al. 2016, Layer Normalization; Zhang and Sennrich 2019, Root Mean
Square Layer Normalization, section 4.
Expected: alike on names
"""


def norm(x):  # every row is moved to mean 0, and scaled to the same size (LayerNorm)
    x = x - x.sum(-1, keepdim=True) / x.shape[-1]
    mean_square = (x * x).sum(-1, keepdim=True) / x.shape[-1]
    return x * (mean_square + 1e-5) ** -0.5

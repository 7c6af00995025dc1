"""LayerNorm

From every row its mean is taken first, then it is scaled to the same size.

Hypothesis: RMSNorm leaves out the mean because little is lost by it: no difference.
Reference: Ba et al. 2016, Layer Normalization; Zhang and Sennrich 2019, section 3.
Expected: alike on names
"""


def norm(x):  # every row is scaled to the same size (RMSNorm)
    x = x - x.sum(-1, keepdim=True) / x.shape[-1]  # and before, moved to mean 0 (LayerNorm)
    mean_square = (x * x).sum(-1, keepdim=True) / x.shape[-1]
    return x * (mean_square + 1e-5) ** -0.5

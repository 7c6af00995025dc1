"""No causal mask

Every token may read every other, the one it is to predict included.

Hypothesis: The training loss falls far below what is possible, and it lies: the answer
is read, not predicted. Read from left to right, as a text is written, the model knows
little.
Reference: Vaswani et al. 2017, Attention Is All You Need, section 3.2.3.
Expected: worse on addition
"""


def attention(x, wq, wk, wv, wo):  # (T, C) -> (T, C)
    q, k, v = x @ wq, x @ wk, x @ wv  # (T, D): what it seeks, what it is, what it says
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (T, T)
    weights = softmax(scores)  # (T, T), each token reads all
    return weights @ v @ wo

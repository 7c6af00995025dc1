"""Uniform attention

Every score is 0, so each token reads all tokens before it with the same weight: an
average of the past.

Hypothesis: Reading the past helps, but choosing what to read is what solves a task.
Reference: Vaswani et al. 2017, Attention Is All You Need, section 3.2.
Expected: worse on recall
"""


def attention(x, wq, wk, wv, wo):  # (T, C) -> (T, C), tokens read the ones before them
    q, k, v = x @ wq, x @ wk, x @ wv  # (T, D): what it seeks, what it is, what it says
    scores = q @ k.transpose(-2, -1) * 0  # (T, T), nothing is sought
    future = scores.new_full(scores.shape, -math.inf).triu(1)
    weights = softmax(scores + future)  # (T, T), the future weighs nothing
    return weights @ v @ wo

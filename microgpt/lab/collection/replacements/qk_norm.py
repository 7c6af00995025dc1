"""QK-norm

Queries and keys are scaled to the same size before they are compared, so that no score
can grow without end.

Hypothesis: It keeps large models from diverging; here it only limits how sharply a head
can look.
Reference: Henry et al. 2020, Query-Key Normalization for Transformers; with a norm and
the score's scaling, Dehghani et al. 2023, Scaling Vision Transformers to 22 Billion
Parameters, section 2.
Expected: alike on names
"""


def attention(x, wq, wk, wv, wo):  # (T, C) -> (T, C), tokens read the ones before them
    q, k, v = x @ wq, x @ wk, x @ wv  # (T, D): what it seeks, what it is, what it says
    q, k = norm(q), norm(k)
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (T, T)
    future = scores.new_full(scores.shape, -math.inf).triu(1)
    weights = softmax(scores + future)  # (T, T), the future weighs nothing
    return weights @ v @ wo

"""RoPE

Rotary positions: queries and keys are turned by an angle that grows with the place, so
that a score depends on how far apart two tokens are. Nothing is added to the
embeddings.

Hypothesis: Distance is given instead of learnt, which pays in texts longer than those
of this file: no difference on names.
Reference: Su et al. 2021, RoFormer: Enhanced Transformer with Rotary Position
Embedding, section 3.2.
Expected: alike on names
"""


def rotate(x):  # (T, D), each pair of channels turns, by more at each place
    T, D = x.shape[-2], x.shape[-1]
    angle = lambda t, c: t / 10000 ** (c // 2 * 2 / D)
    cos = Tensor([[math.cos(angle(t, c)) for c in range(D)] for t in range(T)])
    sin = Tensor([[math.sin(angle(t, c)) for c in range(D)] for t in range(T)])
    side = lambda i, j: (i == j - 1) - (i == j + 1) if i // 2 == j // 2 else 0
    turned = x @ Tensor([[float(side(i, j)) for j in range(D)] for i in range(D)])
    return x * cos + turned * sin  # (a, b) becomes (a cos - b sin, b cos + a sin)


def attention(x, wq, wk, wv, wo):  # (T, C) -> (T, C), tokens read the ones before them
    q, k, v = x @ wq, x @ wk, x @ wv  # (T, D): what it seeks, what it is, what it says
    q, k = rotate(q), rotate(k)
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (T, T)
    future = scores.new_full(scores.shape, -math.inf).triu(1)
    weights = softmax(scores + future)  # (T, T), the future weighs nothing
    return weights @ v @ wo


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        for head in block["heads"]:
            x = x + attention(h, **head)
        x = x + mlp(norm(x), block["fc"], block["proj"])
    return norm(x) @ lm_head

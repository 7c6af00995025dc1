"""ALiBi

Each score loses something for every token between the two, each head at a rate of its
own. No position embeddings.

Hypothesis: The nearest tokens matter most in names; a task that looks far back is hurt.
Reference: Press et al. 2022, Train Short, Test Long: Attention with Linear Biases,
section 3.
Expected: alike on names
"""


def attention(x, slope, wq, wk, wv, wo):  # (T, C) -> (T, C)
    q, k, v = x @ wq, x @ wk, x @ wv  # (T, D): what it seeks, what it is, what it says
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (T, T)
    future = scores.new_full(scores.shape, -math.inf).triu(1)
    T = x.shape[-2]
    far = Tensor([[slope * min(j - i, 0) for j in range(T)] for i in range(T)])
    weights = softmax(scores + far + future)  # (T, T), the future weighs nothing
    return weights @ v @ wo


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        for i, head in enumerate(block["heads"], start=1):
            slope = 2 ** (-8 * i / len(block["heads"]))
            x = x + attention(h, slope, **head)
        x = x + mlp(norm(x), block["fc"], block["proj"])
    return norm(x) @ lm_head

"""A shared expert

One expert works on every token, beside the one that the router picks.

Hypothesis: What all tokens need is learnt once, and the others are free to differ.
Reference: Dai et al. 2024, DeepSeekMoE: Towards Ultimate Expert Specialization in
Mixture-of-Experts Language Models, section 3.2.
Builds on: mixture-of-experts
Expected: alike on names
"""


def mixture(x, router, experts, shared):  # (T, C) -> (T, C)
    probs = softmax(x @ router)  # (T, E)
    best = probs.amax(-1, keepdim=True)
    keep = lambda p, b: (p, 1.0, 0.0) if p >= b else (0.0, 0.0, 0.0)
    chosen = probs.cellwise(keep, best)  # (T, E), one cell of each row is not 0
    y = mlp(x, **shared)
    for i, expert in enumerate(experts):
        one = Tensor([[float(i == j)] for j in range(len(experts))])  # (E, 1)
        y = y + mlp(x, **expert) * (chosen @ one)
    return y


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        for head in block["heads"]:
            x = x + attention(h, **head)
        x = x + mixture(norm(x), block["router"], block["experts"], block["shared"])
    return norm(x) @ lm_head


def init(rng, vocab_size, n_layer=1, n_head=4, n_embd=16, block_size=16, std=0.08):
    new = lambda m, n: Tensor([[rng.gauss(0, std) for _ in range(n)] for _ in range(m)])
    head = lambda: dict(wq=new(C, D), wk=new(C, D), wv=new(C, D), wo=new(D, C))
    expert = lambda: dict(fc=new(C, 2 * C), proj=new(2 * C, C))
    ff = lambda: dict(shared=expert(), router=new(C, 4), experts=four())
    four = lambda: [expert() for _ in range(4)]
    C, D = n_embd, n_embd // n_head
    blocks = [dict(ff(), heads=[head() for _ in range(n_head)]) for _ in range(n_layer)]
    wte, wpe, lm_head = new(vocab_size, C), new(block_size, C), new(C, vocab_size)
    return dict(wte=wte, wpe=wpe, blocks=blocks, lm_head=lm_head)

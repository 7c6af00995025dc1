"""Grouped-query attention

Two heads share one set of keys and values; each still has its own queries. What must be
remembered while writing is halved.

Hypothesis: A little is lost for a smaller memory; at this size hardly anything.
Reference: Ainslie et al. 2023, GQA: Training Generalized Multi-Query Transformer Models
from Multi-Head Checkpoints; Shazeer 2019, Fast Transformer Decoding.
Expected: alike on names
"""


def attention(x, k, v, wq, wo):  # (T, C) -> (T, C), tokens read the ones before them
    q = x @ wq  # (T, D): what it seeks
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (T, T)
    future = scores.new_full(scores.shape, -math.inf).triu(1)
    weights = softmax(scores + future)  # (T, T), the future weighs nothing
    return weights @ v @ wo


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        for group in block["groups"]:
            k, v = h @ group["wk"], h @ group["wv"]  # (T, D): one for the group
            for head in group["heads"]:
                x = x + attention(h, k, v, **head)
        x = x + mlp(norm(x), block["fc"], block["proj"])
    return norm(x) @ lm_head


def init(rng, vocab_size, n_layer=1, n_head=4, n_embd=16, block_size=16, std=0.08):
    new = lambda m, n: Tensor([[rng.gauss(0, std) for _ in range(n)] for _ in range(m)])
    head = lambda: dict(wq=new(C, D), wo=new(D, C))
    heads = lambda i: [head() for _ in range(i, min(i + 2, n_head))]  # two of a group
    group = lambda i: dict(wk=new(C, D), wv=new(C, D), heads=heads(i))
    groups = lambda: [group(i) for i in range(0, n_head, 2)]
    ff = lambda: dict(fc=new(C, 4 * C), proj=new(4 * C, C))
    C, D = n_embd, n_embd // n_head
    blocks = [dict(ff(), groups=groups()) for _ in range(n_layer)]
    wte, wpe, lm_head = new(vocab_size, C), new(block_size, C), new(C, vocab_size)
    return dict(wte=wte, wpe=wpe, blocks=blocks, lm_head=lm_head)

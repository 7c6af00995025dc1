"""SwiGLU

A second matrix opens and closes gates for what the first computes. With two thirds of
the hidden channels the weights stay as many.

Hypothesis: Products of two projections say more than one: a little better for the same
number of weights.
Reference: Shazeer 2020, GLU Variants Improve Transformer, section 2.
Expected: alike on names
"""


def silu(x):  # x times 1 / (1 + exp(-x))
    return x / ((x * -1).exp() + 1)


def mlp(x, fc, gate, proj):  # (T, C) -> (T, C), each token on its own
    hidden = silu(x @ gate) * (x @ fc)  # (T, 8C / 3)
    return hidden @ proj


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        for head in block["heads"]:
            x = x + attention(h, **head)
        x = x + mlp(norm(x), block["fc"], block["gate"], block["proj"])
    return norm(x) @ lm_head


def init(rng, vocab_size, n_layer=1, n_head=4, n_embd=16, block_size=16, std=0.08):
    new = lambda m, n: Tensor([[rng.gauss(0, std) for _ in range(n)] for _ in range(m)])
    head = lambda: dict(wq=new(C, D), wk=new(C, D), wv=new(C, D), wo=new(D, C))
    wide = lambda: dict(fc=new(C, 8 * C // 3), gate=new(C, 8 * C // 3))
    ff = lambda: dict(wide(), proj=new(8 * C // 3, C))
    C, D = n_embd, n_embd // n_head
    blocks = [dict(ff(), heads=[head() for _ in range(n_head)]) for _ in range(n_layer)]
    wte, wpe, lm_head = new(vocab_size, C), new(block_size, C), new(C, vocab_size)
    return dict(wte=wte, wpe=wpe, blocks=blocks, lm_head=lm_head)

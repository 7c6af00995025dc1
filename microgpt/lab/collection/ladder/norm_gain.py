"""Norms with a gain

Each norm multiplies its channels by learned numbers, which start at 1, as in every
published model.

Hypothesis: The matrix behind a norm could do the same: no difference.
Reference: Ba et al. 2016, Layer Normalization, section 3.
Expected: alike on names
"""


def norm(x, gain=1):  # every row is scaled to the same size (RMSNorm)
    mean_square = (x * x).sum(-1, keepdim=True) / x.shape[-1]
    return x * (mean_square + 1e-5) ** -0.5 * gain


def gpt(ids, wte, wpe, blocks, lm_head, gains):  # (T,) -> (T, V)
    tokens = wte[ids]  # (T, C)
    gain = iter(gains)  # one for each norm, in order
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x, next(gain))
        for head in block["heads"]:
            x = x + attention(h, **head)
        x = x + mlp(norm(x, next(gain)), block["fc"], block["proj"])
    return norm(x, next(gain)) @ lm_head


def init(rng, vocab_size, n_layer=1, n_head=4, n_embd=16, block_size=16, std=0.08):
    new = lambda m, n: Tensor([[rng.gauss(0, std) for _ in range(n)] for _ in range(m)])
    head = lambda: dict(wq=new(C, D), wk=new(C, D), wv=new(C, D), wo=new(D, C))
    ff = lambda: dict(fc=new(C, 4 * C), proj=new(4 * C, C))
    C, D = n_embd, n_embd // n_head
    blocks = [dict(ff(), heads=[head() for _ in range(n_head)]) for _ in range(n_layer)]
    wte, wpe, lm_head = new(vocab_size, C), new(block_size, C), new(C, vocab_size)
    gains = [Tensor([[1.0] * C]) for _ in range(2 * n_layer + 1)]
    return dict(wte=wte, wpe=wpe, blocks=blocks, lm_head=lm_head, gains=gains)

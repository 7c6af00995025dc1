"""An MLP in attention's place

As in the first neural language models: the last four tokens, each through a matrix of
its own for its distance, are added up.

Hypothesis: Enough for names, whose next letter depends on the last few; useless where
the answer lies further back.
Reference: Bengio et al. 2003, A Neural Probabilistic Language Model, section 2.
Expected: worse on copy
"""


def window(x, near):  # (T, C) -> (T, C), the last few tokens, each by its distance
    T = x.shape[-2]
    y = x * 0
    for far, w in enumerate(near):
        back = Tensor([[float(i - j == far) for j in range(T)] for i in range(T)])
        y = y + back @ x @ w
    return y.relu()


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        x = x + window(h, block["near"])
        x = x + mlp(norm(x), block["fc"], block["proj"])
    return norm(x) @ lm_head


def init(rng, vocab_size, n_layer=1, n_head=4, n_embd=16, block_size=16, std=0.08):
    new = lambda m, n: Tensor([[rng.gauss(0, std) for _ in range(n)] for _ in range(m)])
    ff = lambda: dict(fc=new(C, 4 * C), proj=new(4 * C, C))
    C = n_embd
    blocks = [dict(ff(), near=[new(C, C) for _ in range(4)]) for _ in range(n_layer)]
    wte, wpe, lm_head = new(vocab_size, C), new(block_size, C), new(C, vocab_size)
    return dict(wte=wte, wpe=wpe, blocks=blocks, lm_head=lm_head)

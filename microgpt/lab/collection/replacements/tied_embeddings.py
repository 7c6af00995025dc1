"""Tied embeddings

One table for both ends: a token's score is how well the last row fits its embedding.

Hypothesis: Fewer weights for the same; which letter is meant and which comes next are
related.
Reference: Press and Wolf 2017, Using the Output Embedding to Improve Language Models.
Expected: alike on names
"""


def gpt(ids, wte, wpe, blocks):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        for head in block["heads"]:
            x = x + attention(h, **head)
        x = x + mlp(norm(x), block["fc"], block["proj"])
    return norm(x) @ wte.transpose(-2, -1)


def init(rng, vocab_size, n_layer=1, n_head=4, n_embd=16, block_size=16, std=0.08):
    new = lambda m, n: Tensor([[rng.gauss(0, std) for _ in range(n)] for _ in range(m)])
    head = lambda: dict(wq=new(C, D), wk=new(C, D), wv=new(C, D), wo=new(D, C))
    ff = lambda: dict(fc=new(C, 4 * C), proj=new(4 * C, C))
    C, D = n_embd, n_embd // n_head
    blocks = [dict(ff(), heads=[head() for _ in range(n_head)]) for _ in range(n_layer)]
    wte, wpe = new(vocab_size, C), new(block_size, C)
    return dict(wte=wte, wpe=wpe, blocks=blocks)

"""Multi-head latent attention

Keys and values of all heads are made from one short row for each token, and only that
row would have to be kept while a text is written. What tells places apart, a query and
a key that turn, is held beside it, one key for all heads.

Hypothesis: A memory of twelve numbers a token instead of thirty-two costs little.
Reference: DeepSeek-AI 2024, DeepSeek-V2: A Strong, Economical, and Efficient
Mixture-of-Experts Language Model, section 2.1.
Builds on: rope
Expected: alike on names
"""


def attention(x, latent, turned, wq, wk, wv, wr, wo):  # (T, C) -> (T, C)
    q, k, v = x @ wq, latent @ wk, latent @ wv  # (T, D) each
    near = rotate(x @ wr) @ turned.transpose(-2, -1)  # (T, T), who stands where
    scores = (q @ k.transpose(-2, -1) + near) * (2 * q.shape[-1]) ** -0.5  # (T, T)
    future = scores.new_full(scores.shape, -math.inf).triu(1)
    weights = softmax(scores + future)  # (T, T), the future weighs nothing
    return weights @ v @ wo


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        latent = norm(h @ block["down"])  # (T, C / 2), what is kept of a token
        turned = rotate(h @ block["turn"])  # (T, D), and this
        for head in block["heads"]:
            x = x + attention(h, latent, turned, **head)
        x = x + mlp(norm(x), block["fc"], block["proj"])
    return norm(x) @ lm_head


def init(rng, vocab_size, n_layer=1, n_head=4, n_embd=16, block_size=16, std=0.08):
    new = lambda m, n: Tensor([[rng.gauss(0, std) for _ in range(n)] for _ in range(m)])
    up = lambda: dict(wk=new(C // 2, D), wv=new(C // 2, D))
    head = lambda: dict(up(), wq=new(C, D), wr=new(C, D), wo=new(D, C))
    heads = lambda: dict(heads=[head() for _ in range(n_head)], down=new(C, C // 2))
    ff = lambda: dict(fc=new(C, 4 * C), proj=new(4 * C, C))
    C, D = n_embd, n_embd // n_head
    blocks = [dict(ff(), **heads(), turn=new(C, D)) for _ in range(n_layer)]
    wte, wpe, lm_head = new(vocab_size, C), new(block_size, C), new(C, vocab_size)
    return dict(wte=wte, wpe=wpe, blocks=blocks, lm_head=lm_head)

"""Biases

Every product with a weight matrix of a block gets a row of learned numbers added to it,
as in GPT-2. They start at zero.

Hypothesis: Norms and a wide stream leave little for them to do: no difference.
Reference: Radford et al. 2019, Language Models are Unsupervised Multitask Learners;
without them, Chowdhery et al. 2022, PaLM: Scaling Language Modeling with Pathways,
section 2.
Expected: alike on names
"""


def attention(x, wq, wk, wv, wo, bq, bk, bv):  # (T, C) -> (T, C)
    q, k, v = x @ wq + bq, x @ wk + bk, x @ wv + bv  # (T, D) each
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (T, T)
    future = scores.new_full(scores.shape, -math.inf).triu(1)
    weights = softmax(scores + future)  # (T, T), the future weighs nothing
    return weights @ v @ wo


def mlp(x, fc, proj, b1, b2):  # (T, C) -> (T, C), each token on its own
    hidden = (x @ fc + b1).relu()  # (T, 4C)
    return hidden @ proj + b2


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        for head in block["heads"]:
            x = x + attention(h, **head)
        x = x + block["bo"]  # one for all heads, since they are added up
        x = x + mlp(norm(x), block["fc"], block["proj"], block["b1"], block["b2"])
    return norm(x) @ lm_head


def init(rng, vocab_size, n_layer=1, n_head=4, n_embd=16, block_size=16, std=0.08):
    new = lambda m, n: Tensor([[rng.gauss(0, std) for _ in range(n)] for _ in range(m)])
    none = lambda n: Tensor([[0.0] * n])
    qkv = lambda: dict(bq=none(D), bk=none(D), bv=none(D))
    head = lambda: dict(qkv(), wq=new(C, D), wk=new(C, D), wv=new(C, D), wo=new(D, C))
    more = lambda: dict(b1=none(4 * C), b2=none(C), bo=none(C))
    ff = lambda: dict(more(), fc=new(C, 4 * C), proj=new(4 * C, C))
    C, D = n_embd, n_embd // n_head
    blocks = [dict(ff(), heads=[head() for _ in range(n_head)]) for _ in range(n_layer)]
    wte, wpe, lm_head = new(vocab_size, C), new(block_size, C), new(C, vocab_size)
    return dict(wte=wte, wpe=wpe, blocks=blocks, lm_head=lm_head)

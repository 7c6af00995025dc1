"""GPT-2's first weights

A spread of 0.02 instead of 0.08; matrices that write into the residual stream get less,
the more of them there are.

Hypothesis: The stream does not grow with depth; in one layer hardly a difference.
Reference: Radford et al. 2019, Language Models are Unsupervised Multitask Learners,
section 2.3.
Expected: alike on names
"""


def init(rng, vocab_size, n_layer=1, n_head=4, n_embd=16, block_size=16, std=0.08):
    drawn = lambda m, n, s: [[rng.gauss(0, s) for _ in range(n)] for _ in range(m)]
    new = lambda m, n: Tensor(drawn(m, n, std))
    out = lambda m, n: Tensor(drawn(m, n, std / (2 * n_layer) ** 0.5))
    head = lambda: dict(wq=new(C, D), wk=new(C, D), wv=new(C, D), wo=out(D, C))
    ff = lambda: dict(fc=new(C, 4 * C), proj=out(4 * C, C))
    C, D = n_embd, n_embd // n_head
    blocks = [dict(ff(), heads=[head() for _ in range(n_head)]) for _ in range(n_layer)]
    wte, wpe, lm_head = new(vocab_size, C), new(block_size, C), new(C, vocab_size)
    return dict(wte=wte, wpe=wpe, blocks=blocks, lm_head=lm_head)

std = 0.02

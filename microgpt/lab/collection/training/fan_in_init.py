"""First weights by fan-in

The spread of a matrix is one over the root of its rows, so that a product is as large
as what went in; embeddings as before.

Hypothesis: Signals keep their size through any depth; with a norm before every part
that is less needed.
Reference: LeCun et al. 1998, Efficient BackProp; He et al. 2015, Delving Deep into
Rectifiers.
Expected: alike on names
"""


def init(rng, vocab_size, n_layer=1, n_head=4, n_embd=16, block_size=16, std=0.08):
    drawn = lambda m, n, s: [[rng.gauss(0, s) for _ in range(n)] for _ in range(m)]
    new = lambda m, n: Tensor(drawn(m, n, m**-0.5))
    place = lambda m, n: Tensor(drawn(m, n, std))
    head = lambda: dict(wq=new(C, D), wk=new(C, D), wv=new(C, D), wo=new(D, C))
    ff = lambda: dict(fc=new(C, 4 * C), proj=new(4 * C, C))
    C, D = n_embd, n_embd // n_head
    blocks = [dict(ff(), heads=[head() for _ in range(n_head)]) for _ in range(n_layer)]
    wte, wpe, lm_head = place(vocab_size, C), place(block_size, C), new(C, vocab_size)
    return dict(wte=wte, wpe=wpe, blocks=blocks, lm_head=lm_head)

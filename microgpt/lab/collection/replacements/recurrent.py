"""A recurrent model in attention's place

One token after another changes a state, and the state is all that is known of the past.

Hypothesis: What comes early is overwritten by what comes late; tasks that need one
exact letter from before are hard.
Reference: Elman 1990, Finding Structure in Time; Mikolov et al. 2010, Recurrent Neural
Network Based Language Model.
Expected: worse on copy
"""


class Tensor:
    def tanh(self):
        return self.cellwise(lambda a: (math.tanh(a), 1 - math.tanh(a) ** 2))


def recur(x, inner, again):  # (T, C) -> (T, C), a state that each token changes
    state, y = x[:1] * 0, x * 0
    for t in range(x.shape[-2]):
        state = (x[t : t + 1] @ inner + state @ again).tanh()  # (1, C)
        y = y + Tensor([[float(i == t)] for i in range(x.shape[-2])]) @ state
    return y


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        x = x + recur(h, block["inner"], block["again"])
        x = x + mlp(norm(x), block["fc"], block["proj"])
    return norm(x) @ lm_head


def init(rng, vocab_size, n_layer=1, n_head=4, n_embd=16, block_size=16, std=0.08):
    new = lambda m, n: Tensor([[rng.gauss(0, std) for _ in range(n)] for _ in range(m)])
    ff = lambda: dict(fc=new(C, 4 * C), proj=new(4 * C, C))
    C = n_embd
    blocks = [dict(ff(), inner=new(C, C), again=new(C, C)) for _ in range(n_layer)]
    wte, wpe, lm_head = new(vocab_size, C), new(block_size, C), new(C, vocab_size)
    return dict(wte=wte, wpe=wpe, blocks=blocks, lm_head=lm_head)

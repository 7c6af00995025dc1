"""Sinusoidal positions

Places are told by waves of fixed lengths instead of learned rows. Token embeddings are
scaled up to the size of the waves.

Hypothesis: Nothing about places has to be learnt, so it works as well with fewer
weights.
Reference: Vaswani et al. 2017, Attention Is All You Need, sections 3.4 and 3.5.
Expected: alike on names
"""


def waves(length, channels):  # (T, C), each pair of channels a wave of its own length
    wave = lambda c: math.cos if c % 2 else math.sin
    angle = lambda t, c: t / 10000 ** (c // 2 * 2 / channels)
    row = lambda t: [wave(c)(angle(t, c)) for c in range(channels)]
    return Tensor([row(t) for t in range(length)])


def gpt(ids, wte, wpe, blocks, lm_head):  # (T,) -> (T, V), a score for each next token
    tokens = wte[ids]  # (T, C)
    places = waves(tokens.shape[-2], tokens.shape[-1])
    x = tokens * tokens.shape[-1] ** 0.5 + places  # (T, C)
    for block in blocks:
        h = norm(x)
        for head in block["heads"]:
            x = x + attention(h, **head)
        x = x + mlp(norm(x), block["fc"], block["proj"])
    return norm(x) @ lm_head

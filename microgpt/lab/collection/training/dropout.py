"""Dropout

While training, a tenth of the cells that a head or a feed-forward adds to the stream
become zero at random, and the others larger to make up for it.

Hypothesis: Against learning by heart. Where the model is too small to do that, it only
costs.
Reference: Srivastava et al. 2014, Dropout: A Simple Way to Prevent Neural Networks from
Overfitting.
Expected: worse on names
"""


def gpt(ids, wte, wpe, blocks, lm_head, drop=lambda x: x):  # (T,) -> (T, V)
    tokens = wte[ids]  # (T, C)
    x = tokens + wpe[: tokens.shape[-2]]  # (T, C), the residual stream: only added to
    for block in blocks:
        h = norm(x)
        for head in block["heads"]:
            x = x + drop(attention(h, **head))
        x = x + drop(mlp(norm(x), block["fc"], block["proj"]))
    return norm(x) @ lm_head


def dropout(x, rng, rate=0.1):  # some cells become 0, the others larger
    rows, columns = x.shape
    kept = lambda: (rng.random() >= rate) / (1 - rate)
    return x * Tensor([[kept() for _ in range(columns)] for _ in range(rows)])


def train(params, docs, vocab, steps=1000, batch=1, lr=0.01, start=0, moments=None):
    weights = leaves(params)
    moments = moments or [((w * 0).data, (w * 0).data) for w in weights]
    for step in range(start, steps):
        total = 0.0  # the loss, averaged over the documents of this step
        for i in range(step * batch, (step + 1) * batch):
            ids = encode(docs[i % len(docs)], vocab)[: params["wpe"].shape[-2] + 1]
            targets = Tensor([[j == t for j in range(len(vocab))] for t in ids[1:]])
            drop = lambda x, rng=random.Random(i): dropout(x, rng)
            loss = cross_entropy(gpt(ids[:-1], **params, drop=drop), targets) / batch
            backward(loss)
            total += loss.data[0][0]
        for w, (m, v) in zip(weights, moments):
            adam(w, m, v, step + 1, lr * (1 - step / steps))  # ever smaller steps
        yield total

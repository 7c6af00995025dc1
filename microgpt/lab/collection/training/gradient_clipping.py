"""Gradient clipping

When all gradients together are longer than 1, they are shortened to 1.

Hypothesis: One strange document cannot throw the weights far off; Adam already sees to
that.
Reference: Pascanu et al. 2013, On the Difficulty of Training Recurrent Neural Networks,
section 3.2.
Expected: alike on names
"""


def clip(weights, most=1.0):  # gradients, all together, no longer than this
    length = math.sqrt(sum([g * g for w in weights for row in w.grad for g in row]))
    for w in weights:
        w.grad = [[g * min(1, most / (length + 1e-6)) for g in row] for row in w.grad]


def train(params, docs, vocab, steps=1000, batch=1, lr=0.01, start=0, moments=None):
    weights = leaves(params)
    moments = moments or [((w * 0).data, (w * 0).data) for w in weights]
    for step in range(start, steps):
        total = 0.0  # the loss, averaged over the documents of this step
        for i in range(step * batch, (step + 1) * batch):
            ids = encode(docs[i % len(docs)], vocab)[: params["wpe"].shape[-2] + 1]
            targets = Tensor([[j == t for j in range(len(vocab))] for t in ids[1:]])
            loss = cross_entropy(gpt(ids[:-1], **params), targets) / batch
            backward(loss)
            total += loss.data[0][0]
        clip(weights)
        for w, (m, v) in zip(weights, moments):
            adam(w, m, v, step + 1, lr * (1 - step / steps))  # ever smaller steps
        yield total

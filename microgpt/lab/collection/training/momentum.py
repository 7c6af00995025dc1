"""Momentum

Steps go where gradients have pointed for a while, not only the last one.

Hypothesis: Faster than plain descent, still slower than Adam, which gives every weight
its own step size.
Reference: Polyak 1964; Sutskever et al. 2013, On the Importance of Initialization and
Momentum in Deep Learning.
Expected: worse on names
"""


def momentum(w, m, lr, beta=0.9):
    for i, grad in enumerate(w.grad):
        m[i] = [beta * a + g for a, g in zip(m[i], grad)]
        w.data[i] = [a - lr * b for a, b in zip(w.data[i], m[i])]
    w.grad = []  # the next step starts from nothing


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
        for w, (m, v) in zip(weights, moments):
            momentum(w, m, lr * (1 - step / steps))  # ever smaller steps
        yield total

lr = 0.05

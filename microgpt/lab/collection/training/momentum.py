"""Momentum

Steps go where gradients have pointed for a while, not only the last one. The learning
rate is 0.05 instead of 0.01.

Hypothesis: Slower than Adam where weights need step sizes of their own; with a learning
rate chosen for it, names are learnt as well.
Reference: Polyak 1964, Some Methods of Speeding up the Convergence of Iteration
Methods; Sutskever et al. 2013, On the Importance of Initialization and Momentum in Deep
Learning.
Expected: alike on names
"""


def momentum(w, m, lr, beta=0.9):  # along the gradients so far
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

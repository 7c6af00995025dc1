"""Plain gradient descent

Every weight moves against its gradient, by the learning rate and nothing else. The
learning rate is 0.5 instead of 0.01.

Hypothesis: One step size for all is slow where gradients differ in size by orders: sums
are learnt less well, names as well.
Reference: Robbins and Monro 1951, A Stochastic Approximation Method.
Expected: worse on addition
"""


def sgd(w, lr):  # against the gradient
    for i, grad in enumerate(w.grad):
        w.data[i] = [a - lr * g for a, g in zip(w.data[i], grad)]
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
            sgd(w, lr * (1 - step / steps))  # ever smaller steps
        yield total

lr = 0.5

"""Warm-up and cosine

The learning rate climbs over the first tenth of the steps, then falls along half a
wave.

Hypothesis: The first steps of Adam are large and blind; in a small model that does no
harm.
Reference: Loshchilov and Hutter 2017, SGDR: Stochastic Gradient Descent with Warm
Restarts; Brown et al. 2020, Language Models are Few-Shot Learners, appendix B.
Expected: alike on names
"""


def schedule(step, steps):  # the share of the learning rate at this step
    first = steps // 10
    if step < first:
        return (step + 1) / first
    return 0.5 + 0.5 * math.cos(math.pi * (step - first) / (steps - first))


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
            adam(w, m, v, step + 1, lr * schedule(step, steps))
        yield total

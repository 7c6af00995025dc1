"""Shuffled targets

The tokens to be predicted are shuffled within their document.

Hypothesis: A control: which letters there are, and which occur together, can be learnt,
but no order and so no task.
Reference: Zhang et al. 2017, Understanding Deep Learning Requires Rethinking
Generalization, section 2.
Expected: worse on names
"""


def train(params, docs, vocab, steps=1000, batch=1, lr=0.01, start=0, moments=None):
    weights = leaves(params)
    moments = moments or [((w * 0).data, (w * 0).data) for w in weights]
    for step in range(start, steps):
        total = 0.0  # the loss, averaged over the documents of this step
        for i in range(step * batch, (step + 1) * batch):
            ids = encode(docs[i % len(docs)], vocab)[: params["wpe"].shape[-2] + 1]
            wrong = random.Random(i).sample(ids[1:], len(ids) - 1)
            targets = Tensor([[j == t for j in range(len(vocab))] for t in wrong])
            loss = cross_entropy(gpt(ids[:-1], **params), targets) / batch
            backward(loss)
            total += loss.data[0][0]
        for w, (m, v) in zip(weights, moments):
            adam(w, m, v, step + 1, lr * (1 - step / steps))  # ever smaller steps
        yield total

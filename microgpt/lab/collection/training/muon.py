"""Muon

The matrices of the blocks move along their momentum made orthogonal: every direction by
the same amount. All else, single rows too, moves by Adam.

Hypothesis: No direction of a matrix dominates its update: fewer steps to the same loss.
Reference: Jordan et al. 2024, Muon: An Optimizer for Hidden Layers in Neural Networks.
Expected: alike on names
"""


def scaled(a, k): return [[k * x for x in row] for row in a]

def orthogonal(g, rounds=5):  # singular values come close to 1 (Newton-Schulz)
    size = math.sqrt(sum([x * x for row in g for x in row]))
    x = scaled(flip(g) if len(g) > len(g[0]) else g, 1 / max(size, 1e-7))
    for _ in range(rounds):
        s = matmul(x, flip(x))
        mixed = add(scaled(s, -4.7750), scaled(matmul(s, s), 2.0315))
        x = add(scaled(x, 3.4445), matmul(mixed, x))
    return flip(x) if len(g) > len(g[0]) else x

def muon(w, m, v, step, lr, beta=0.95):  # Jordan et al., 2024
    m[:] = add(scaled(m, beta), scaled(w.grad, 1 - beta))
    ahead = add(scaled(m, beta), scaled(w.grad, 1 - beta))  # Nesterov's look ahead
    larger = max(1, len(m[0]) / len(m)) ** 0.5  # where more comes out than goes in
    w.data = add(w.data, scaled(orthogonal(ahead), -lr * larger))
    w.grad = []  # the next step starts from nothing


def train(params, docs, vocab, steps=1000, batch=1, lr=0.01, start=0, moments=None):
    weights, hidden = leaves(params), leaves(params["blocks"])
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
            rule = muon if w in hidden and len(w.grad) > 1 else adam
            rule(w, m, v, step + 1, lr * (1 - step / steps))  # ever smaller steps
        yield total

"""Muon

The matrices of the blocks move along their momentum made orthogonal: every direction by
the same amount. All others by Adam.

Hypothesis: No direction of a matrix dominates its update: fewer steps to the same loss.
Reference: Jordan et al. 2024, Muon: An Optimizer for Hidden Layers in Neural Networks.
Expected: alike on names
"""


def orthogonal(g, rounds=5):  # singular values come close to 1 (Newton-Schulz)
    size = math.sqrt(sum([x * x for row in g for x in row])) + 1e-7
    x = [[a / size for a in row] for row in (flip(g) if len(g) > len(g[0]) else g)]
    for _ in range(rounds):
        s = matmul(x, flip(x))
        mixed = add(mul_by(s, -4.7750), mul_by(matmul(s, s), 2.0315))
        x = add(mul_by(x, 3.4445), matmul(mixed, x))
    return flip(x) if len(g) > len(g[0]) else x

def mul_by(g, k): return [[k * a for a in row] for row in g]


def muon(w, m, lr, beta=0.95):
    m[:] = add(mul_by(m, beta), mul_by(w.grad, 1 - beta))
    ahead = add(mul_by(m, beta), mul_by(w.grad, 1 - beta))  # Nesterov's look ahead
    move = mul_by(orthogonal(ahead), max(1, len(m) / len(m[0])) ** 0.5)
    w.data = add(w.data, mul_by(move, -lr))
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
            rate = lr * (1 - step / steps)  # ever smaller steps
            inner = any(w is hidden for hidden in leaves(params["blocks"]))
            muon(w, m, rate) if inner and w.grad else adam(w, m, v, step + 1, rate)
        yield total

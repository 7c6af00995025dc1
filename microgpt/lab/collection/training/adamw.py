"""AdamW

Adam, and every weight also shrinks a little towards zero at each step.

Hypothesis: Against overfitting. In a thousand steps on as many names there is none: no
difference.
Reference: Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization.
Expected: alike on names
"""


def adam(w, m, v, step, lr, beta1=0.85, beta2=0.99, eps=1e-8, decay=0.1):
    c1, c2 = 1 - beta1**step, 1 - beta2**step  # m and v start at zero: make up for it
    for i, grad in enumerate(w.grad):
        m[i] = [beta1 * a + (1 - beta1) * g for a, g in zip(m[i], grad)]
        v[i] = [beta2 * a + (1 - beta2) * g * g for a, g in zip(v[i], grad)]
        move = [a / c1 / (math.sqrt(b / c2) + eps) for a, b in zip(m[i], v[i])]
        w.data[i] = [a - lr * (b + decay * a) for a, b in zip(w.data[i], move)]
    w.grad = []  # the next step starts from nothing

"""The peer in NumPy: every gradient derived by hand, a whole step of documents at once.

All activations are (B T, C) matrices, so that each weight is one product; the heads are views of
them. The weights are views of one vector, and so are their gradients: Adam is a few operations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import peers

if TYPE_CHECKING:
    from benchmarks.peers import Array, Problem, Tokens, Weights

BLOCK = 1 << 15  # numbers that Adam updates at a time, so that they stay in the cache
CHUNK = 4 * peers.threads()  # documents at a time, so that their activations stay in the cache
FLOOR = np.float32(-80)


def views(vector: Array, like: Weights) -> Weights:
    """A vector cut into matrices of the shapes of `like`."""
    ends = np.cumsum([w.size for w in like.values()])
    parts = np.split(vector, ends[:-1])
    return {name: part.reshape(like[name].shape) for name, part in zip(like, parts)}


def norm(x: Array) -> tuple[Array, Array]:
    """Rows of equal size, (n, C), and what each was multiplied by, (n, 1)."""
    scale = np.vecdot(x, x)[:, None]
    scale /= x.shape[1]
    scale += np.float32(peers.NORM_EPS)
    np.sqrt(scale, out=scale)
    np.reciprocal(scale, out=scale)
    return x * scale, scale


def norm_back(dy: Array, y: Array, scale: Array) -> Array:
    """The gradient of x from that of y = norm(x): what points along y is taken out. Reuses dy."""
    along = np.vecdot(dy, y)[:, None]
    along /= -y.shape[1]
    dy += y * along
    dy *= scale
    return dy


def softmax(x: Array, axis: int = -1) -> Array:
    """In place. e^-80 of the largest is nothing in float32, and NumPy is slow further down."""
    x -= np.maximum.reduce(x, axis=axis, keepdims=True)
    np.maximum(x, FLOOR, out=x)
    np.exp(x, out=x)
    x /= np.add.reduce(x, axis=axis, keepdims=True)
    return x


def product(a: Array, b: Array, out: Array, first: bool) -> None:
    """a @ b becomes out, or is added to it."""
    if first:
        np.matmul(a, b, out=out)
    else:
        out += a @ b


class Training:
    """Weights, gradients and moments, each one vector, with matrices as views of it."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.n_head = problem.weights["wq"].shape[1]
        start = peers.merged(problem.weights)
        self.start = np.concatenate([w.ravel() for w in start.values()])
        self.vector, self.slope = self.start.copy(), np.zeros_like(self.start)
        self.m, self.v = np.zeros_like(self.start), np.zeros_like(self.start)
        self.w, self.g = views(self.vector, start), views(self.slope, start)
        vocab_size, positions = len(start["wte"]), len(start["wpe"])
        self.hot = np.eye(vocab_size, dtype=np.float32)
        self.future = np.triu(np.full((positions, positions), -np.inf, dtype=np.float32), 1).T
        self.step = 0

    def reset(self) -> None:
        self.vector[:], self.m[:], self.v[:], self.step = self.start, 0, 0, 0

    def step_many(self, n: int) -> Array:
        tokens, lengths, batch = self.problem.tokens, self.problem.lengths, self.problem.batch
        losses = np.zeros(n, dtype=np.float32)
        for i in range(n):
            start, end = self.step * batch, (self.step + 1) * batch
            for part in range(start, end, CHUNK):
                docs = tokens[part : min(part + CHUNK, end), : lengths[start] + 1]
                losses[i] += self.backward(docs[:, :-1], docs[:, 1:], first=part == start)
            self.adam()
        return losses

    def backward(self, ids: Tokens, targets: Tokens, first: bool) -> float:
        """Some documents' share of the loss, from tokens and targets (b, T).

        Their share of the gradient becomes `self.g` when they are the first of a step, and is
        added to it when not. Scores are (b, H, T, T), keys down and queries across.
        """
        w, g = self.w, self.g
        (b, t), n_head, c = ids.shape, self.n_head, self.w["wte"].shape[1]
        n_layer, n, d = len(self.w["fc"]), b * t, c // n_head
        future = self.future[:t, :t]
        root = np.float32(d**-0.5)

        def heads(x: Array) -> Array:  # (b T, n C) -> (n, b, H, T, D)
            return x.reshape(b, t, -1, n_head, d).transpose(2, 0, 3, 1, 4)

        kept = []
        x = (w["wte"][ids] + w["wpe"][:t]).reshape(n, c)
        for i in range(n_layer):
            h, h_scale = norm(x)
            qkv = h @ w["wqkv"][i]
            qkv[:, :c] *= root
            q, k, v = heads(qkv)
            scores = k @ q.swapaxes(2, 3)
            scores += future
            probs = softmax(scores, axis=2)
            read = np.empty_like(x)
            np.matmul(probs.swapaxes(2, 3), v, out=heads(read)[0])
            x = x + read @ w["wo"][i]
            f, f_scale = norm(x)
            hidden = f @ w["fc"][i]
            np.maximum(hidden, 0, out=hidden)
            x = x + hidden @ w["proj"][i]
            kept.append((h, h_scale, q, k, v, probs, read, f, f_scale, hidden))
        y, y_scale = norm(x)
        guess = softmax(y @ w["lm_head"])
        at = np.arange(n), targets.ravel()
        share = np.float32(1 / (t * self.problem.batch))  # of one token in the loss
        loss = -np.log(guess[at]).sum() * share

        guess[at] -= 1
        guess *= share
        product(y.T, guess, g["lm_head"], first)
        dx = norm_back(guess @ w["lm_head"].T, y, y_scale)
        for i in reversed(range(n_layer)):
            h, h_scale, q, k, v, probs, read, f, f_scale, hidden = kept.pop()
            product(hidden.T, dx, g["proj"][i], first)
            dhidden = dx @ w["proj"][i].T
            dhidden *= hidden > 0
            product(f.T, dhidden, g["fc"][i], first)
            dx += norm_back(dhidden @ w["fc"][i].T, f, f_scale)
            product(read.T, dx, g["wo"][i], first)
            dread = dx @ w["wo"][i].T
            dqkv = np.empty_like(dread, shape=(n, 3 * c))
            dq, dk, dv = heads(dqkv)
            up = heads(dread)[0]
            np.matmul(probs, up, out=dv)
            dscores = v @ up.swapaxes(2, 3)
            dscores -= np.vecdot(up, heads(read)[0])[:, :, None]  # the mean slope under probs
            dscores *= probs
            np.matmul(dscores.swapaxes(2, 3), k, out=dq)
            np.matmul(dscores, q, out=dk)
            dqkv[:, :c] *= root
            product(h.T, dqkv, g["wqkv"][i], first)
            dx += norm_back(dqkv @ w["wqkv"][i].T, h, h_scale)
        product(self.hot[ids.ravel()].T, dx, g["wte"], first)
        if first:
            g["wpe"][:] = 0
        g["wpe"][:t] += dx.reshape(b, t, c).sum(0)
        return float(loss)

    def adam(self) -> None:
        """One step of Adam, block by block; the corrections of m and v are moved into the rate."""
        root = math.sqrt(1 - peers.BETA2 ** (self.step + 1))
        lr = peers.rate(self.step) * root / (1 - peers.BETA1 ** (self.step + 1))
        for first in range(0, len(self.vector), BLOCK):
            cut = slice(first, first + BLOCK)
            w, g, m, v = self.vector[cut], self.slope[cut], self.m[cut], self.v[cut]
            m *= peers.BETA1
            m += (1 - peers.BETA1) * g
            v *= peers.BETA2
            g *= g
            g *= 1 - peers.BETA2
            v += g
            np.sqrt(v, out=g)
            g += peers.ADAM_EPS * root
            np.divide(m, g, out=g)
            g *= lr
            w -= g
        self.step += 1


def prepare(problem: Problem) -> Training:
    return Training(problem)


def generate(weights: Weights, n_tokens: int, seed: int) -> Tokens:
    w = peers.merged(weights)
    n_layer, n_head, c, d = weights["wq"].shape
    positions, last = len(w["wpe"]), len(w["wte"]) - 1
    w["wqkv"][:, :, :c] *= d**-0.5
    layers = list(zip(w["wqkv"], w["wo"], w["fc"], w["proj"]))
    cache = np.empty((n_layer, 2, n_head, positions, d), np.float32)
    tokens = np.empty(n_tokens, np.int32)
    token = t = 0
    for i, chance in enumerate(peers.uniforms(n_tokens, seed)):
        x = w["wte"][token] + w["wpe"][t]
        for (wqkv, wo, fc, proj), kv in zip(layers, cache):
            qkv = (one_norm(x) @ wqkv).reshape(3, n_head, 1, d)
            kv[:, :, t] = qkv[1:, :, 0]
            keys, values = kv[:, :, : t + 1]
            probs = softmax(qkv[0] @ keys.swapaxes(-2, -1))  # (H, 1, t)
            x = x + (probs @ values).reshape(c) @ wo
            x = x + np.maximum(one_norm(x) @ fc, 0) @ proj
        probs = softmax(one_norm(x) @ w["lm_head"])
        token = min(int(probs.cumsum().searchsorted(chance)), last)
        tokens[i] = token
        t = t + 1 if token and t + 1 < positions else 0
        token = token if t else 0
    return tokens


def one_norm(x: Array) -> Array:
    """`norm` of a single row (C,)."""
    return x * np.float32(1 / math.sqrt(float(x @ x) / len(x) + peers.NORM_EPS))

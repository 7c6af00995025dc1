"""The loops of the peer in Numba: a document forward and back, and tokens drawn one by one.

Products are `np.dot`, which Numba hands to the BLAS of SciPy without a copy as long as every
matrix is in one piece. So attention works on columns: its matrices are (C, T), and a head is a few
of their rows. All else is loops, with the future left out of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from benchmarks import peers

if TYPE_CHECKING:
    from benchmarks.peers import Array, Tokens

    Matrices = tuple[Array, Array, Array, Array, Array, Array, Array]  # as ORDER names them

ORDER = ("wte", "wpe", "lm_head", "wqkv", "wo", "fc", "proj")
f4 = np.float32
NORM_EPS, TINY, ZERO, ONE = (f4(x) for x in (peers.NORM_EPS, 1e-30, 0, 1))
fast: Callable[..., Any] = njit(fastmath=True, error_model="numpy")  # no test before a division


@fast
def norm(x: Array, y: Array, scale: Array) -> None:
    """Rows of x (T, C) made equally long in y, and what each was multiplied by."""
    for t in range(len(x)):
        total = ZERO
        for i in range(x.shape[1]):
            total += x[t, i] * x[t, i]
        scale[t] = ONE / np.sqrt(total / f4(x.shape[1]) + NORM_EPS)
        for i in range(x.shape[1]):
            y[t, i] = x[t, i] * scale[t]


@fast
def norm_back(dy: Array, y: Array, scale: Array, dx: Array) -> None:
    """What dy, the gradient of y = norm(x), gives to that of x is added to dx."""
    for t in range(len(y)):
        along = ZERO
        for i in range(y.shape[1]):
            along += dy[t, i] * y[t, i]
        along /= f4(y.shape[1])
        for i in range(y.shape[1]):
            dx[t, i] += scale[t] * (dy[t, i] - along * y[t, i])


@fast
def causal_softmax(s: Array, top: Array, total: Array) -> None:
    """Over the keys, in place: (keys, queries), and a query reads no key after it.

    top and total (queries,) are room to work in.
    """
    n = len(s)
    for i in range(n):
        top[i], total[i] = s[0, i], ZERO
    for j in range(1, n):
        for i in range(j, n):
            top[i] = max(top[i], s[j, i])
    for j in range(n):
        for i in range(j):
            s[j, i] = ZERO
        for i in range(j, n):
            s[j, i] = math.exp(s[j, i] - top[i])
            total[i] += s[j, i]
    for i in range(n):
        total[i] = ONE / total[i]
    for j in range(n):
        for i in range(j, n):
            s[j, i] *= total[i]


@fast
def softmax(row: Array) -> None:
    top, total = row[0], ZERO
    for j in range(1, len(row)):
        top = max(top, row[j])
    for j in range(len(row)):
        row[j] = math.exp(row[j] - top)
        total += row[j]
    for j in range(len(row)):
        row[j] *= ONE / total


@fast
def into(out: Array, a: Array, b: Array, first: bool) -> None:
    """a @ b becomes out, or is added to it."""
    if first:
        np.dot(a, b, out)
    else:
        out += np.dot(a, b)


@fast
def row_norm(x: Array, y: Array) -> None:
    total = ZERO
    for i in range(len(x)):
        total += x[i] * x[i]
    y[:] = x * (ONE / np.sqrt(total / f4(len(x)) + NORM_EPS))


@fast
def document(
    weights: Matrices, slopes: Matrices, ids: Tokens, targets: Tokens,
    n_head: int, share: np.float32, first: bool,
) -> np.float32:  # fmt: skip
    """A document's share of the loss, `share` for each of its tokens.

    Its share of the gradient becomes the slopes when it is the first, and is added to them when
    not. Scores are (H, T, T), keys down and queries across.
    """
    wte, wpe, lm_head, wqkv, wo, fc, proj = weights
    g_wte, g_wpe, g_lm_head, g_wqkv, g_wo, g_fc, g_proj = slopes
    n, layers, c = len(ids), len(fc), wte.shape[1]
    d = c // n_head
    root = f4(d) ** f4(-0.5)
    h, f = np.empty((layers, n, c), f4), np.empty((layers, n, c), f4)
    hidden = np.empty((layers, n, 4 * c), f4)
    scales, y = np.empty((2 * layers + 1, n), f4), np.empty((n, c), f4)
    qkv, read = np.empty((layers, 3 * c, n), f4), np.empty((layers, c, n), f4)
    probs = np.empty((layers, n_head, n, n), f4)
    top, mean = np.empty(n, f4), np.empty(n, f4)
    x, dy = np.empty((n, c), f4), np.empty((n, c), f4)
    for t in range(n):
        for j in range(c):
            x[t, j] = wte[ids[t], j] + wpe[t, j]
    for i in range(layers):
        norm(x, h[i], scales[2 * i])
        np.dot(wqkv[i].T, h[i].T, qkv[i])
        qkv[i, :c] *= root
        for k in range(n_head):
            a, b = k * d, k * d + d
            np.dot(qkv[i, c + a : c + b].T, qkv[i, a:b], probs[i, k])
            causal_softmax(probs[i, k], top, mean)
            np.dot(qkv[i, 2 * c + a : 2 * c + b], probs[i, k], read[i, a:b])
        np.dot(read[i].T, wo[i], dy)
        x += dy
        norm(x, f[i], scales[2 * i + 1])
        np.dot(f[i], fc[i], hidden[i])
        for t in range(n):
            for j in range(4 * c):
                hidden[i, t, j] = max(hidden[i, t, j], ZERO)
        np.dot(hidden[i], proj[i], dy)
        x += dy
    norm(x, y, scales[2 * layers])
    guess = np.dot(y, lm_head)

    loss = ZERO
    for t in range(n):
        softmax(guess[t])
        loss -= math.log(guess[t, targets[t]] + TINY) * share
        guess[t, targets[t]] -= ONE
    guess *= share
    into(g_lm_head, y.T, guess, first)
    np.dot(guess, lm_head.T, dy)
    dx, dhidden = np.zeros((n, c), f4), np.empty((n, 4 * c), f4)
    dqkv, dread, dscores = np.empty((3 * c, n), f4), np.empty((c, n), f4), np.empty((n, n), f4)
    norm_back(dy, y, scales[2 * layers], dx)
    for i in range(layers - 1, -1, -1):
        into(g_proj[i], hidden[i].T, dx, first)
        np.dot(dx, proj[i].T, dhidden)
        for t in range(n):
            for j in range(4 * c):
                dhidden[t, j] = dhidden[t, j] if hidden[i, t, j] > 0 else ZERO
        into(g_fc[i], f[i].T, dhidden, first)
        np.dot(dhidden, fc[i].T, dy)
        norm_back(dy, f[i], scales[2 * i + 1], dx)
        into(g_wo[i], read[i], dx, first)
        np.dot(wo[i], dx.T, dread)
        for k in range(n_head):
            a, b = k * d, k * d + d
            np.dot(dread[a:b], probs[i, k].T, dqkv[2 * c + a : 2 * c + b])
            np.dot(qkv[i, 2 * c + a : 2 * c + b].T, dread[a:b], dscores)
            mean[:] = 0
            for j in range(a, b):
                for t in range(n):
                    mean[t] += dread[j, t] * read[i, j, t]
            for j in range(n):
                for t in range(n):
                    dscores[j, t] = probs[i, k, j, t] * (dscores[j, t] - mean[t])
            np.dot(qkv[i, c + a : c + b], dscores, dqkv[a:b])
            np.dot(qkv[i, a:b], dscores.T, dqkv[c + a : c + b])
        dqkv[:c] *= root
        into(g_wqkv[i], h[i].T, dqkv.T, first)
        np.dot(dqkv.T, wqkv[i].T, dy)
        norm_back(dy, h[i], scales[2 * i], dx)
    if first:
        g_wte[:] = 0
        g_wpe[:] = 0
    for t in range(n):
        for j in range(c):
            g_wte[ids[t], j] += dx[t, j]
            g_wpe[t, j] += dx[t, j]
    return loss


@fast
def draw(weights: Matrices, n_head: int, chances: Array, tokens: Tokens) -> None:
    """A token for each chance."""
    wte, wpe, lm_head, wqkv, wo, fc, proj = weights
    layers, c, positions = len(fc), wte.shape[1], len(wpe)
    d = c // n_head
    root = f4(d) ** f4(-0.5)
    keys = np.empty((layers, n_head, d, positions), f4)
    values = np.empty((layers, positions, c), f4)
    x, y, qkv, read = np.empty(c, f4), np.empty(c, f4), np.empty(3 * c, f4), np.empty(c, f4)
    scores, hidden, guess = np.empty(positions, f4), np.empty(4 * c, f4), np.empty(len(wte), f4)
    token = t = 0
    for step in range(len(chances)):
        x[:] = wte[token] + wpe[t]
        for i in range(layers):
            row_norm(x, y)
            np.dot(y, wqkv[i], qkv)
            values[i, t] = qkv[2 * c :]
            read[:] = 0
            for k in range(n_head):
                scores[: t + 1] = 0
                for j in range(d):
                    keys[i, k, j, t] = qkv[c + k * d + j]
                    q = qkv[k * d + j] * root
                    for s in range(t + 1):
                        scores[s] += q * keys[i, k, j, s]
                softmax(scores[: t + 1])
                for s in range(t + 1):
                    for j in range(k * d, k * d + d):
                        read[j] += scores[s] * values[i, s, j]
            np.dot(read, wo[i], y)
            x += y
            row_norm(x, y)
            np.dot(y, fc[i], hidden)
            for j in range(4 * c):
                hidden[j] = max(hidden[j], ZERO)
            np.dot(hidden, proj[i], y)
            x += y
        row_norm(x, y)
        np.dot(y, lm_head, guess)
        softmax(guess)
        token, total = 0, guess[0]
        while total < chances[step] and token + 1 < len(guess):
            token += 1
            total += guess[token]
        tokens[step] = token
        t = t + 1 if token and t + 1 < positions else 0
        token = token if t else 0

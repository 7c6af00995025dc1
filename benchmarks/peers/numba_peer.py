"""The peer in Numba: one compiled call trains any number of steps, document by document.

Every thread takes a share of the documents of a step, with a gradient of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg  # noqa: F401  np.dot needs it: fail here, and not in the middle of compiling
from numba import get_num_threads, njit, prange

from benchmarks import peers
from benchmarks.peers.numba_loops import ONE, ORDER, document, draw, f4, fast

if TYPE_CHECKING:
    from benchmarks.peers import Array, Problem, Tokens, Weights
    from benchmarks.peers.numba_loops import Matrices

STEPS, LR, BETA1, BETA2, ADAM_EPS = (
    f4(x) for x in (peers.STEPS, peers.LR, peers.BETA1, peers.BETA2, peers.ADAM_EPS)
)
LINE = 16  # float32 in a line of the cache
Shape = tuple[int, int, int, int]  # L, C, T, V


@fast
def cut(a: Array, layers: int, c: int, positions: int, vocab_size: int) -> Matrices:
    """A vector as the matrices of the merged form, in the order of `ORDER`."""
    ends = np.cumsum(np.array([
        0, vocab_size * c, positions * c, c * vocab_size,
        3 * layers * c * c, layers * c * c, 4 * layers * c * c, 4 * layers * c * c,
    ]))  # fmt: skip
    return (
        a[ends[0] : ends[1]].reshape(vocab_size, c),
        a[ends[1] : ends[2]].reshape(positions, c),
        a[ends[2] : ends[3]].reshape(c, vocab_size),
        a[ends[3] : ends[4]].reshape(layers, c, 3 * c),
        a[ends[4] : ends[5]].reshape(layers, c, c),
        a[ends[5] : ends[6]].reshape(layers, c, 4 * c),
        a[ends[6] : ends[7]].reshape(layers, 4 * c, c),
    )


@fast
def adam(w: Array, m: Array, v: Array, g: Array, step: int) -> None:
    root = np.sqrt(ONE - BETA2 ** f4(step + 1))
    rate = LR * (ONE - f4(step) / STEPS) * root / (ONE - BETA1 ** f4(step + 1))
    for i in range(len(w)):
        m[i] = BETA1 * m[i] + (ONE - BETA1) * g[i]
        v[i] = BETA2 * v[i] + (ONE - BETA2) * g[i] * g[i]
        w[i] -= rate * m[i] / (np.sqrt(v[i]) + ADAM_EPS * root)


def train(
    w: Array, m: Array, v: Array, g: Array, shape: Shape, n_head: int,
    tokens: Tokens, lengths: Tokens, batch: int, start: int, losses: Array,
) -> None:  # fmt: skip
    """A step for every loss; g (threads, P) is one gradient for each thread."""
    shards = len(g)
    found = np.zeros(shards, f4)
    weights = cut(w, *shape)
    for step in range(start, start + len(losses)):
        for shard in prange(shards):
            found[shard] = 0
            slopes = cut(g[shard], *shape)
            for b in range(shard, batch, shards):
                n = lengths[step * batch + b]
                doc = tokens[step * batch + b, : n + 1]
                share, first = ONE / f4(n * batch), b == shard
                found[shard] += document(weights, slopes, doc[:-1], doc[1:], n_head, share, first)
        losses[step - start] = found.sum()
        for shard in prange(shards):
            a, b = shard * len(w) // shards, (shard + 1) * len(w) // shards
            for other in range(1, shards):
                g[0, a:b] += g[other, a:b]
            adam(w[a:b], m[a:b], v[a:b], g[0, a:b], step)


train_alone = fast(train)
train_together = njit(fastmath=True, error_model="numpy", parallel=True)(train)


def aligned(n: int) -> Array:
    """An array (n,) that begins where a line of the cache begins: a sixth faster at tiny."""
    room = np.empty(n + LINE, f4)
    return room[-room.ctypes.data % (4 * LINE) // 4 :][:n]


class Training:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.n_head = problem.weights["wq"].shape[1]
        start = peers.merged(problem.weights)
        self.start = np.concatenate([start[name].ravel() for name in ORDER])
        size = len(self.start)
        self.w, self.m, self.v = (aligned(size) for _ in range(3))
        shards = min(get_num_threads(), problem.batch)
        self.train = train_alone if shards == 1 else train_together
        self.g = aligned(shards * size).reshape(shards, size)
        vocab_size, c = start["wte"].shape
        self.shape = (len(start["fc"]), c, len(start["wpe"]), vocab_size)
        self.reset()

    def reset(self) -> None:
        self.w[:], self.m[:], self.v[:], self.step = self.start, 0, 0, 0

    def step_many(self, n: int) -> Array:
        losses = np.empty(n, f4)
        data = self.problem.tokens, self.problem.lengths, self.problem.batch
        self.train(
            self.w, self.m, self.v, self.g, self.shape, self.n_head, *data, self.step, losses
        )
        self.step += n
        return losses


def prepare(problem: Problem) -> Training:
    return Training(problem)


def generate(weights: Weights, n_tokens: int, seed: int) -> Tokens:
    w = peers.merged(weights)
    tokens = np.empty(n_tokens, np.int32)
    matrices = tuple(w[name] for name in ORDER)
    draw(matrices, weights["wq"].shape[1], peers.uniforms(n_tokens, seed), tokens)
    return tokens

"""The model of `microgpt/gpt.py` written well in NumPy, PyTorch, JAX and Numba, to be timed.

A peer is a module with two functions. `prepare(problem)` gives a `Training`, whose
`step_many(n)` trains n steps and returns their n losses. `generate(weights, n_tokens, seed)`
draws tokens with a cache of keys and values. Whatever a peer compiles, it compiles once for each
shape, so the second `prepare` or `generate` of the same problem pays for none of it.

Every peer gets the same arrays and must print the same losses: `python -m benchmarks.peers.check`
compares them, `python -m benchmarks.peers PEER SIZE` times one. The model is the file's: RMSNorm
without gain, no biases, ReLU, an untied head, learned positions; the loss is the mean over the
tokens of a document, then over the documents of a step; Adam with a rate that falls to zero.

Letters in shapes: L layers, H heads, C channels, D = C / H, T positions, V tokens of the
vocabulary, B documents a step, N documents in all.

Importing this module imports no library: the runner sets the number of threads first.
"""

from __future__ import annotations

import importlib
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Tokens = NDArray[np.int32]
    Weights = dict[str, Array]

PEERS = ("microgpt", "microgpt-lanes", "numpy", "torch", "torch-compile", "jax", "numba")
LIBRARIES = {name: name.removesuffix("-compile") for name in PEERS}


STEPS = 1000  # the learning rate falls from LR to zero over so many steps
LR, BETA1, BETA2, ADAM_EPS = 0.01, 0.85, 0.99, 1e-8
NORM_EPS = 1e-5
STD = 0.08  # of the first weights
QKV = ("wq", "wk", "wv")


@dataclass(frozen=True)
class Size:
    """A model, the documents of a step, and the steps of one timed repetition."""

    n_layer: int
    n_embd: int
    n_head: int
    block_size: int
    batch: int
    repetition: int


SIZES = {
    "tiny": Size(1, 16, 4, 16, batch=1, repetition=1000),  # the file's own defaults
    "small": Size(4, 64, 4, 64, batch=32, repetition=5),
    "nano": Size(4, 128, 4, 64, batch=12, repetition=5),
    "medium": Size(6, 384, 6, 256, batch=8, repetition=1),
}


@dataclass(frozen=True)
class Problem:
    """What a peer trains on: never written to, so that all peers start from the same.

    Attributes:
        batch: B; step s, counted from 0, reads documents s * B to (s + 1) * B - 1.
        weights: the common form, float32: wte (V, C), wpe (T, C), lm_head (C, V); for every layer
            and head wq, wk, wv (L, H, C, D) and wo (L, H, D, C); fc (L, C, 4C), proj (L, 4C, C).
        tokens: (N, T + 1) int32, enough for 1000 steps; a document's first `length` tokens are
            read and those one further on are predicted; what follows is zero.
        lengths: (N,) int32; all equal to T unless B is 1.
    """

    batch: int
    weights: Weights
    tokens: Tokens
    lengths: Tokens


class Training(Protocol):
    """A training run in a peer's own arrays."""

    def reset(self) -> None:
        """Return to step 0: the problem's weights, and moments of zero."""

    def step_many(self, n: int) -> Array:
        """Train the next n of the 1000 steps: (n,) losses, each from before its step."""


class Peer(Protocol):
    """What a peer's module offers."""

    def prepare(self, problem: Problem) -> Training:
        """A training run at step 0."""

    def generate(self, weights: Weights, n_tokens: int, seed: int) -> Tokens:
        """(n_tokens,) tokens, one document after another, from weights in the common form.

        As in the file's `sample`, a document starts from token 0 and is over when token 0 is drawn
        or T tokens were. Token i is the first whose cumulative probability reaches `uniforms[i]`,
        and making those numbers is part of the work: so equal seeds give equal tokens everywhere.
        """


def load(name: str) -> Peer:
    """A peer by its name in `PEERS`; ImportError when its library is not installed."""
    return cast(Peer, importlib.import_module(f"benchmarks.peers.{name.replace('-', '_')}_peer"))


def version(name: str) -> str:
    """Of the library that a peer is written in."""
    from importlib import metadata

    from microgpt import __version__

    return __version__ if name.startswith("microgpt") else metadata.version(LIBRARIES[name])


def limit_threads(n: int, name: str = "") -> None:
    """Keep every library to n threads; before any of them is imported.

    Numba's threads each call a BLAS of one thread. JAX takes NPROC for the number of processors.
    """
    env = os.environ
    env["OMP_NUM_THREADS"] = env["MKL_NUM_THREADS"] = env["NUMBA_NUM_THREADS"] = str(n)
    env["OPENBLAS_NUM_THREADS"] = "1" if name == "numba" else str(n)
    env["NPROC"] = str(n)
    if n == 1:
        env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def threads() -> int:
    """What `limit_threads` has set, or 1."""
    return int(os.environ.get("OMP_NUM_THREADS", 1))


def rate(step: int) -> float:
    """The learning rate of a step, counted from 0."""
    return LR * (1 - step / STEPS)


def uniforms(n: int, seed: int) -> Array:
    """(n,) float32 in [0, 1): the chance in `generate`."""
    import numpy as np

    return np.random.default_rng(seed).random(n, dtype=np.float32)


def merged(weights: Weights) -> Weights:
    """The common form with all heads side by side: wqkv (L, C, 3C) and wo (L, C, C)."""
    import numpy as np

    n_layer, _, n_embd, _ = weights["wq"].shape
    sides = [np.moveaxis(weights[name], 1, 2).reshape(n_layer, n_embd, -1) for name in QKV]
    rest = {name: weights[name] for name in ("wte", "wpe", "lm_head", "fc", "proj")}
    wo = weights["wo"].reshape(n_layer, n_embd, n_embd)
    return rest | {"wqkv": np.concatenate(sides, axis=2), "wo": wo}


# ---- Problems ----


def problem(name: str) -> Problem:
    """The problem of a size: tiny is microgpt's own first run, the others are full of text."""
    from microgpt import gpt
    from microgpt.run import Run

    if name == "tiny":
        return of_run(Run())
    size = SIZES[name]
    docs = text(size.block_size, size.batch * STEPS)
    vocab: list[str] = gpt.vocabulary(docs)  # type: ignore[no-untyped-call]
    return Problem(size.batch, drawn(size, len(vocab)), *encoded(docs, vocab, size.block_size))


def text(length: int, n: int, seed: int = 0) -> list[str]:
    """n documents of exactly so many characters: random names, joined by spaces and cut."""
    from microgpt import data

    names = data.load("names").docs
    line = " ".join(random.Random(seed).choices(names, k=length * n // min(map(len, names))))
    return [line[i * length : (i + 1) * length] for i in range(n)]


def of_run(run: Any) -> Problem:
    """The problem of a `microgpt.Run` that has not begun, in float32."""
    import numpy as np

    def stacked(*path: str) -> Array:  # one weight of every block, or of every head of every block
        *heads, name = path
        rows = [[h[name].data for h in b["heads"]] if heads else b[name].data for b in blocks]
        return np.array(rows, dtype=np.float32)

    params = run.params
    blocks = params["blocks"]
    weights = {name: np.array(params[name].data, np.float32) for name in ("wte", "wpe", "lm_head")}
    weights |= {name: stacked("heads", name) for name in (*QKV, "wo")}
    weights |= {name: stacked(name) for name in ("fc", "proj")}
    docs = run.train_docs
    return Problem(run.batch, weights, *encoded(docs, run.vocab, len(weights["wpe"])))


def encoded(docs: Sequence[str], vocab: list[str], length: int) -> tuple[Tokens, Tokens]:
    """Documents as tokens and lengths, cut to the context as the file cuts them."""
    import numpy as np

    number = {token: i for i, token in enumerate(vocab)}
    tokens = np.zeros((len(docs), length + 1), dtype=np.int32)
    lengths = np.zeros(len(docs), dtype=np.int32)
    for i, doc in enumerate(docs):
        ids = [0, *(number[char] for char in doc), 0][: length + 1]
        tokens[i, : len(ids)] = ids
        lengths[i] = len(ids) - 1
    return tokens, lengths


def drawn(size: Size, vocab_size: int, seed: int = 42) -> Weights:
    """First weights of a size, as large as the file's `init` draws, from NumPy's generator."""
    import numpy as np

    layers, c, h = size.n_layer, size.n_embd, size.n_head
    shapes = {
        "wte": (vocab_size, c), "wpe": (size.block_size, c), "lm_head": (c, vocab_size),
        "wq": (layers, h, c, c // h), "wk": (layers, h, c, c // h), "wv": (layers, h, c, c // h),
        "wo": (layers, h, c // h, c), "fc": (layers, c, 4 * c), "proj": (layers, 4 * c, c),
    }  # fmt: skip
    rng = np.random.default_rng(seed)
    std = np.float32(STD)
    return {n: std * rng.standard_normal(shape, dtype=np.float32) for n, shape in shapes.items()}

"""The file in the fast engine, which the peers are compared with."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import peers
from microgpt import run as runs
from microgpt.data import Corpus
from microgpt.engines.fast import Fast, State
from microgpt.engines.rehearse import Schedule
from microgpt.run import Run

if TYPE_CHECKING:
    from benchmarks.peers import Array, Problem, Tokens, Weights

FIRST = 0x4E00  # the character that stands for token 1; no corpus is read, only tokens
runs.MOST_WEIGHTS = 20_000_000  # medium has more than Python's lists hold gladly
MOST = 1024  # chances beyond those that are asked for: a text is drawn to its end


def compiled(weights: Weights, batch: int) -> tuple[Fast, Run]:
    """The file's program in the size of these weights."""
    layers, heads, channels, _ = weights["wq"].shape
    chars = [chr(FIRST + i) for i in range(len(weights["wte"]) - 1)]
    run = Run(
        corpus=Corpus(name="tokens", title="Tokens", docs=chars), vocab=["\n", *chars],
        batch=batch, steps=peers.STEPS, lr=peers.LR, n_layer=layers, n_head=heads,
        n_embd=channels, block_size=len(weights["wpe"]),
    )  # fmt: skip
    assert run.context is not None
    course = run.schedule(lambda doc: ())
    return Fast(run.source, run.namespace, run.params, run.vocab, run.context, course), run


def in_order(run: Run, weights: Weights) -> list[Any]:
    """The weights in the file's order: `blocks.1.heads.3.wq` is layer 1, head 3 of `wq`."""
    found = []
    for path in run.named_weights():
        *places, name = path.split(".")
        found.append(weights[name][tuple(int(i) for i in places if i.isdigit())].tolist())
    return found


class Training:
    def __init__(self, problem: Problem) -> None:
        lengths = problem.lengths.tolist()
        self.docs = [tuple(row[: n + 1]) for row, n in zip(problem.tokens.tolist(), lengths)]
        self.batch = problem.batch
        self.fast, run = compiled(problem.weights, problem.batch)
        self.open()
        self.weights = in_order(run, problem.weights)
        self.reset()

    def open(self) -> None:
        self.runs = 1  # that a step trains
        self.state = self.fast.open(threads=peers.threads())

    def reset(self) -> None:
        self.state.load(0, self.weights, None)
        self.course = self.course_from(0)

    def course_from(self, first: int) -> Schedule:
        """All steps, on the documents from this one on."""
        count = len(self.docs)
        numbers = [str((first + i) % count) for i in range(count)]  # which stand for documents
        return Schedule(numbers, self.ids, self.batch, peers.STEPS, peers.LR)

    def ids(self, number: str) -> tuple[int, ...]:
        return self.docs[int(number)]

    def step_many(self, n: int) -> Array:
        return np.array([loss for (loss,) in self.state.train([self.course], n)], np.float32)


def prepare(problem: Problem) -> Training:
    return Training(problem)


class Chances(random.Random):
    """The chances that all peers draw by, as a generator of random numbers."""

    def __init__(self, n: int, seed: int) -> None:
        super().__init__(0)
        self.numbers = [*peers.uniforms(n, seed).tolist(), *[0.5] * MOST]
        self.setstate(0)

    def getstate(self) -> Any:
        return len(self.numbers) - self.left.__length_hint__()

    def setstate(self, state: Any) -> None:
        self.left = iter(self.numbers)
        self.left.__setstate__(state)
        self.random = self.left.__next__  # type: ignore[method-assign]


_samplers: dict[tuple[int, ...], tuple[State, Run]] = {}  # compiled once for each shape
_loaded: dict[tuple[int, ...], Weights] = {}  # what each holds now: Python's lists are slow to fill


def generate(weights: Weights, n_tokens: int, seed: int) -> Tokens:
    shape = weights["wq"].shape + weights["wte"].shape
    if shape not in _samplers:
        fast, run = compiled(weights, 1)
        _samplers[shape] = fast.open(threads=1), run
    state, run = _samplers[shape]
    if _loaded.get(shape) is not weights:
        state.load(0, in_order(run, weights), None)
        _loaded[shape] = weights
    chances, found = Chances(n_tokens, seed), list[int]()
    while len(found) < n_tokens:  # as many texts as cannot be too many
        texts = max(1, (n_tokens - len(found)) // len(weights["wpe"]))
        for ids in state.tokens(chances, 1.0, texts, (0,)):
            found += ids[1:]
    return np.array(found[:n_tokens], np.int32)

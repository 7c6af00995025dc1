"""The fast engine against the file: the same gradients, losses, weights and samples, for the file,
for edits of it, and for programs made at random.

The kernel is tested in double precision, where it must agree but for the last digits, and as it is
shipped, in single precision, where rounding counts.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import engines
import pytest
from engines import Work, apart, compiled, copied, course, edited, largest, refused

from benchmarks import memory
from microgpt import data
from microgpt.engines import Fast, LeavesContract
from microgpt.engines.rehearse import Steps
from microgpt.errors import MicrogptError
from microgpt.run import Run
from microgpt.source import ORIGINAL, execute

# Of a cell of a gradient, and of a loss, relative to the largest. In single precision every number
# is rounded to 24 binary digits, 6e-8 of it, and a loss is a sum of some hundred of them.
CLOSE = {True: 1e-12, False: 1e-5}
# Of a weight after some steps. Adam divides a gradient by its own size: one that is almost nothing
# moves a weight as far as a large one, and so does its rounding error, by up to the learning rate
# of 0.01. Such cells are few: one in a hundred may be that far apart, the others much less.
WEIGHTS = {True: 1e-9, False: 1e-3}
MOST_WEIGHTS = {True: 1e-11, False: 2e-5}

FEW = data.Corpus("few", "a few names", data.load("names").docs[:150])
SMALL = {"batch": 2, "n_embd": 8, "n_head": 2, "block_size": 8}  # names of 8 letters are cut

FUTURE = "softmax(scores + future)"
MLP = 'x = x + mlp(norm(x), block["fc"], block["proj"])'
HEADS = '        for head in block["heads"]:\n            x = x + attention(h, **head)\n'
POSITIONS = "    x = tokens + wpe[: tokens.shape[-2]]"
TOKENS = "    tokens = wte[ids]  # (T, C)"
RELU = "lambda a: (max(a, 0.0), a > 0)"
RATE = "lr * (1 - step / steps)"
MOVE = "        move = [a / c1 / (math.sqrt(b / c2) + eps) for a, b in zip(m[i], v[i])]"
GROWS = 16  # where the program's header says so
BY_PLACE = "for j in range(q.shape[-2])] for i in range(q.shape[-2])]"

VARIANTS: dict[str, Sequence[tuple[str, str]]] = {
    # ---- The model ----
    "nothing": [],
    "attention times zero": [
        ("            x = x + attention(h, **head)", "            x = x + h * 0")
    ],
    "no attention": [(HEADS, "")],
    "no mlp": [(f"        {MLP}\n", "")],
    "no residual": [("x = x + mlp(norm(x)", "x = mlp(norm(x)")],
    "no norm": [("    return x * (mean_square + 1e-5) ** -0.5", "    return x")],
    "norm after": [(MLP, 'x = norm(x + mlp(x, block["fc"], block["proj"]))')],
    "layer norm": [
        (
            "    mean_square =",
            "    x = x - x.sum(-1, keepdim=True) / x.shape[-1]\n    mean_square =",
        )
    ],
    "norm of queries": [("    scores = q @", "    q, k = norm(q), norm(k)\n    scores = q @")],
    "norm of weights": [("(x @ fc).relu()", "(x @ norm(fc)).relu()")],
    "in parallel": [(MLP, 'x = x + mlp(h, block["fc"], block["proj"])')],
    "relu squared": [("(x @ fc).relu()", "(x @ fc).relu() ** 2")],
    "leaky relu": [(RELU, "lambda a: (a if a > 0 else 0.1 * a, 1 if a > 0 else 0.1)")],
    "relu with a wrong slope": [(RELU, "lambda a: (max(a, 0.0), a < 0)")],
    "relu by equality": [(RELU, "lambda a: (0.0 if max(a, 0.0) == 0 else a, max(a, 0.0) != 0)")],
    "exp with a wrong slope": [("(math.exp(a), math.exp(a))", "(math.exp(a), 0.9 * math.exp(a))")],
    "tanh": [
        (
            "    def exp(self)",
            (
                "    def tanh(self):\n"
                "        return self.cellwise(lambda a: (math.tanh(a), 1 - "
                "math.tanh(a) ** 2))\n"
                "\n"
                "    def exp(self)"
            ),
        ),
        ("(x @ fc).relu()", "(x @ fc).tanh()"),
    ],
    "silu": [("(x @ fc).relu()", "x @ fc\n    hidden = hidden / ((hidden * -1).exp() + 1)")],
    "gated": [("(x @ fc).relu()", "(x @ fc).relu() * (x @ fc)")],
    "a bend for each way": [
        (RELU, ("lambda a: (a if a > 1 else 0.5 if a > 0.5 else a * a, a if a > 0.5 else 1.0)"))
    ],
    "no mask": [(FUTURE, "softmax(scores)")],
    "unscaled": [(" * q.shape[-1] ** -0.5  #", "  #")],
    "scaled by the length": [(FUTURE, "softmax(scores * math.log(q.shape[-2] + 1) + future)")],
    "scaled after the mask": [(FUTURE, "softmax((scores + future) * 2)")],
    "values alone": [("return weights @ v @ wo", "return v @ wo")],
    "scores alone": [(FUTURE, "scores.transpose(-2, -1).triu(0).transpose(-2, -1)")],
    "farther weighs less": [
        (FUTURE, f"softmax(scores + future + Tensor([[-0.3 * (i - j) {BY_PLACE}))")
    ],
    "a window": [
        (
            FUTURE,
            (f"softmax(scores + future + Tensor([[-math.inf if i - j > 2 else 0.0 {BY_PLACE}))"),
        )
    ],
    "softmax without the largest": [
        ("    e = (x - x.amax(-1, keepdim=True)).exp()", "    e = x.exp()")
    ],
    "softmax and one": [
        ("    return e / e.sum(-1, keepdim=True)", "    return e / (e.sum(-1, keepdim=True) + 1)")
    ],
    "no positions": [(POSITIONS, "    x = tokens")],
    "waves for positions": [
        (
            POSITIONS,
            (
                "    n = len(ids)\n"
                "    x = tokens + Tensor([[math.sin(i / 10 ** (j / 8)) for j in "
                "range(wte.shape[-1])] for i in range(n)])"
            ),
        )
    ],
    "positions from the end": [(POSITIONS, "    x = tokens + wpe[-tokens.shape[-2] :]")],
    "a mask that is kept": [
        (
            "def attention(",
            (
                "masks = {}\n"
                "\n"
                "def mask(n):\n"
                "    if n not in masks:\n"
                "        masks[n] = Tensor([[-math.inf if j > i else 0.0 for j in "
                "range(n)] for i in range(n)])\n"
                "    return masks[n]\n"
                "\n"
                "def attention("
            ),
        ),
        (FUTURE, "softmax(scores + mask(q.shape[-2]))"),
    ],
    "a mask that is kept from the begin": [
        ("def attention(x, wq, wk, wv, wo):", "masks = {}\n\ndef attention(x, wq, wk, wv, wo):"),
        (
            TOKENS,
            "    n = len(ids)\n"
            "    if n not in masks:\n"
            "        rows = [[-math.inf if j > i else 0.1 for j in range(n)] for i in range(n)]\n"
            "        masks[n] = Tensor(rows)\n" + TOKENS,
        ),
        (FUTURE, "softmax(scores + masks[q.shape[-2]])"),
    ],
    "one table": [("return norm(x) @ lm_head", "return norm(x) @ wte.transpose(-2, -1)")],
    "the token before": [
        ("    x = tokens +", "    x = tokens + tokens[[0] + list(range(len(ids) - 1))] +")
    ],
    "looked up twice": [("    x = tokens +", "    x = tokens + wte[[ids[0]] + ids[:-1]] +")],
    "gain and bias": [
        (
            "gpt(ids, wte, wpe, blocks, lm_head):",
            "gpt(ids, wte, wpe, blocks, lm_head, gain, bias):",
        ),
        ("return norm(x) @ lm_head", "return (norm(x) * gain) @ lm_head + bias"),
        ("lm_head=lm_head)", "lm_head=lm_head, gain=new(1, C), bias=new(1, vocab_size))"),
    ],
    "the largest of each row": [
        ("return norm(x) @", "return (norm(x) + x.amax(-1, keepdim=True)) @")
    ],
    # ---- The loss ----
    "smoothed targets": [
        ("    surprise = (targets *", "    surprise = ((targets * 0.9 + 0.1 / targets.shape[-1]) *")
    ],
    "the last token alone": [
        (
            ("    return surprise.transpose(-2, -1).sum(-1, keepdim=True) / surprise.shape[-2]"),
            "    return surprise[-1:]",
        )
    ],
    "a sum of surprises": [(" / surprise.shape[-2]", "")],
    # ---- The optimiser ----
    "plain descent": [(MOVE, "        move = grad")],
    "weights fade": [("w.data[i] = [a - lr * b for", "w.data[i] = [a - lr * (b + 0.01 * a) for")],
    "the sign alone": [(MOVE, "        move = [(a > 0) - (a < 0) for a in m[i]]")],
    "the sign by a condition": [(MOVE, "        move = [1 if a > 0 else -1 for a in m[i]]")],
    "a look ahead": [
        ("move = [a / c1 /", "move = [(beta1 * a + (1 - beta1) * g) / c1 /"),
        ("for a, b in zip(m[i], v[i])]", "for a, b, g in zip(m[i], v[i], grad)]"),
    ],
    "gradients in bounds": [
        (
            "    for i, grad in enumerate(w.grad):\n",
            (
                "    for i, grad in enumerate(w.grad):\n"
                "        grad = [max(-0.01, min(0.01, g)) for g in grad]\n"
            ),
        )
    ],
    "the first step is another": [
        ("    c1, c2 =", "    lr = lr / 2 if step == 1 else lr\n    c1, c2 =")
    ],
    # ---- Training ----
    "a constant rate": [(RATE, "lr")],
    "warming up": [(RATE, "lr * min(1, (step + 1) / 4)")],
    "a cosine": [(RATE, "lr * 0.5 * (1 + math.cos(math.pi * step / steps))")],
    "backwards": [("docs[i % len(docs)]", "docs[-1 - i % len(docs)]")],
    "shuffled": [
        (
            "    weights = leaves(params)\n    moments",
            ("    random.Random(1).shuffle(docs)\n    weights = leaves(params)\n    moments"),
        )
    ],
    "another optimiser": [
        (
            "def train(",
            (
                "def sgd(w, lr):\n"
                "    for i, grad in enumerate(w.grad):\n"
                "        w.data[i] = [a - lr * g for a, g in zip(w.data[i], grad)]\n"
                "    w.grad = []\n"
                "\n"
                "def train("
            ),
        ),
        (f"adam(w, m, v, step + 1, {RATE})", "sgd(w, 3 * lr)"),
    ],
    "another beta, by name": [
        ("adam(w, m, v, step + 1, lr", "adam(w, m, v, step + 1, beta1=0.9, lr=lr")
    ],
    "a sum of documents": [(" / batch\n", "\n")],
    "half of the context": [
        ('[: params["wpe"].shape[-2] + 1]', '[: params["wpe"].shape[-2] // 2 + 1]')
    ],
    "one way back for all": [
        (
            "            backward(loss)\n            total += loss.data[0][0]\n",
            (
                "            total = loss if i == step * batch else total + loss\n"
                "        backward(total)\n"
                "        total = total.data[0][0]\n"
            ),
        )
    ],
    # ---- The tokenizer ----
    "the mark comes last": [
        ('["\\n"] + sorted(set("".join(docs)))', 'sorted(set("".join(docs))) + ["\\n"]')
    ],
}
NOT_IN_LANES = {  # rows or constants depend on the length of a document
    "positions from the end", "looked up twice", "the last token alone",
}  # fmt: skip


@cache
def work(name: str) -> Work:
    return Work(edited(*VARIANTS[name]), FEW, **SMALL)


@cache
def done(name: str, double: bool) -> list[Any]:
    return list(work(name).states(double))


both = pytest.mark.parametrize("double", [True, False], ids=["double", "single"])
each = pytest.mark.parametrize("name", VARIANTS)


@each
@both
def test_gradients_are_the_files(name: str, double: bool) -> None:
    here = work(name)
    for how, _, _, (loss, gradients) in done(name, double):
        assert loss == pytest.approx(here.loss, rel=CLOSE[double], abs=CLOSE[double]), how
        most = CLOSE[double] * max(1.0, largest(here.gradients))
        assert apart(here.gradients, gradients) < most, how


@each
@both
def test_losses_are_the_files(name: str, double: bool) -> None:
    here = work(name)
    for how, state, losses, _ in done(name, double):
        assert len(losses) == Work.STEPS
        for one, other in zip(here.losses, losses):
            assert other == pytest.approx(one[: state.runs], rel=CLOSE[double]), how


@each
@both
def test_weights_and_moments_are_the_files(name: str, double: bool) -> None:
    here = work(name)
    for how, state, _, _ in done(name, double):
        for i, run in enumerate(here.runs[: state.runs]):
            weights, moments = state.store(i)
            theirs = copied(run.namespace["leaves"](run.params))
            assert apart(theirs, weights) < WEIGHTS[double], how
            far = sorted(
                abs(p - q)
                for m, n in zip(theirs, weights)
                for r, s in zip(m, n)
                for p, q in zip(r, s)
            )
            assert far[len(far) * 99 // 100] < MOST_WEIGHTS[double], how
            if run.moments is not None:
                for k in (0, 1):
                    other = [pair[k] for pair in moments]
                    assert apart([pair[k] for pair in run.moments], other) < CLOSE[double], how


@each
@both
def test_held_out_loss_is_the_files(name: str, double: bool) -> None:
    here = work(name)
    run = here.runs[0]
    docs = list(run.held_out_docs)
    random.Random(0).shuffle(docs)
    for how, state, _, _ in done(name, double):
        total, count = state.surprise(docs[: Work.HELD_OUT])
        assert total / count == pytest.approx(here.held_out, rel=CLOSE[double]), how


@each
@both
def test_samples_are_the_files(name: str, double: bool) -> None:
    here = work(name)
    for how, state, _, _ in done(name, double):
        rng = random.Random(0)
        texts = state.sample(rng, Work.TEMPERATURE, Work.TEXTS)
        assert [text.removesuffix("\n") for text in texts] == here.samples, how


@each
def test_runs_are_trained_side_by_side(name: str) -> None:
    _, lanes = done(name, True)[-1][:2]
    assert lanes.runs == (1 if name in NOT_IN_LANES else 2)


# ---- Questions that a program may ask of symbols ----

HIDDEN = "    hidden = (x @ fc).relu()"
ONES = "ONES = Tensor([[1.0]])\n\n# ---- Model:"


def times(text: str) -> list[tuple[str, str]]:
    """An edit that multiplies by a number what the MLP has inside."""
    return [(HIDDEN, f"{HIDDEN}\n    T = x.shape[-2]\n    hidden = hidden * ({text})")]


def cells(text: str) -> list[tuple[str, str]]:
    """An edit of relu: a cell's value, and its slope."""
    return [(RELU, f"lambda a: ({text})")]


def looked_up(text: str) -> list[tuple[str, str]]:
    """An edit of what is made of the tokens first."""
    return [(TOKENS, f"    tokens = {text}")]


QUESTIONS: dict[str, Sequence[tuple[str, str]]] = {
    "is it one token": times("2 if T == 1 else 1"),
    "is it none": times("2 if not T else 1"),
    "is it one of these": times("2 if T in (3, 4) else 1"),
    "is it a number": times("2 if isinstance(T, int) and type(T) is int else 1"),
    "which entry": times("{1: 2, 5: 3}.get(T, 1)"),
    "how does it look": times("len(f'{T:>5}') + len(str(T))"),
    "how much is its square": times("1 / (1 + T * T + T**2)"),
    "how much is it as a power": [(HIDDEN, f"{HIDDEN} ** x.shape[-2]")],
    "how much is half of it": times("1 / (1 + T // 2 + round(T / 2) + math.ceil(T / 3))"),
    "how often": times("sum(1 / (1 + i) for i in range(T))"),
    "how large is its logarithm": times("2 if math.log(T) > 1 else max(math.log(T), 0.5)"),
    "which is larger": times("max(T, 3) * min(2, T)"),
    "as a plain number": times("float(T) * Tensor([[math.log(T + 1)]])"),
    "how many are there": looked_up("wte[ids] * (1 / len(ids))"),
    "are there any": looked_up("wte[ids if ids else [0]]"),
    "is it a list": looked_up("wte[ids] * (2 if isinstance(ids, list) else 1)"),
    "all again": looked_up("wte[(ids + ids)[: len(ids)]] + wte[ids.copy()]"),
    "one after another": looked_up("wte[[t for i, t in enumerate(ids) if i >= 0]]"),
    "the larger": cells("max([a, 0.0, -1]), a > 0"),
    "the largest by another measure": cells("max(a, 0.0, key=lambda x: x * x), a > 0"),
    "the last in order": cells("sorted([a, 0.0])[-1], a > 0"),
    "any of these": cells("a if any([a > 1, a < -1]) else 0.0, 1 if not -1 <= a <= 1 else 0"),
    "its size": cells("abs(a), 1 if a > 0 else -1"),
    "a logarithm to a base": cells("math.log(a * a + 1, 2), 2 * a / (a * a + 1) / math.log(2)"),
    "powers": cells("math.pow(a * a + 0.1, 0.7) + pow(a, 2), a"),
    "what stands by": [
        (
            HIDDEN,
            f"{HIDDEN}\n"
            "    for i in (1, 2):\n"
            "        hidden = hidden.cellwise(lambda a, k=i: (a * k, k))\n"
            "        hidden = hidden.cellwise(lambda a: (a * i, i))",
        )
    ],
    "a tensor that was there before": [("# ---- Model:", ONES), (HIDDEN, f"{HIDDEN} + ONES")],
    "what is first": [("# ---- Model:", ONES), ("(x @ fc).relu()", "(ONES + x @ fc).relu()")],
    "the mask first": [(FUTURE, "softmax(future + scores)")],
    "a mask of large numbers": [
        (FUTURE, f"softmax(scores + Tensor([[-1e300 if j > i else 0.0 {BY_PLACE}))")
    ],
    "twice": [("return weights @ v @ wo", "return weights @ (weights @ v) @ wo")],
    "one for three": [("x @ wq, x @ wk, x @ wv", "x @ wq, x @ wq, x @ wq")],
    "in another order": [("weights @ v @ wo", "q @ (k.transpose(-2, -1) @ v) @ wo * 0.1")],
    "another minus": [
        (
            "return self + other * -1",
            "return self.cellwise(lambda a, b: (a - b, 1, -1), other)",
        )
    ],
    "another division": [
        (
            "return self * other**-1",
            "return self.cellwise(lambda a, b: (a / b, 1 / b, -a / b / b), other)",
        )
    ],
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_are_answered_as_the_file_would(name: str) -> None:
    here = Work(edited(*QUESTIONS[name]), FEW, **SMALL)
    for how, state, losses, (loss, gradients) in here.states(double=True):
        assert loss == pytest.approx(here.loss, rel=1e-12), how
        assert apart(here.gradients, gradients) < 1e-12 * max(1.0, largest(here.gradients)), how
        for one, other in zip(here.losses, losses):
            assert other == pytest.approx(one[: state.runs], rel=1e-11), how


# ---- The file itself ----


@pytest.mark.parametrize("name", ["names", *data.TASKS])
def test_the_file_on_every_data_set(name: str) -> None:
    whole = data.load(name)
    here = Work(ORIGINAL, data.Corpus(name, name, whole.docs[:300], whole.separator), 2, batch=2)
    for _, state, losses, (loss, gradients) in here.states(double=True):
        assert loss == pytest.approx(here.loss, rel=1e-12)
        assert apart(here.gradients, gradients) < 1e-12
        assert losses == [pytest.approx(one[: state.runs], rel=1e-12) for one in here.losses]
        rng = random.Random(0)
        texts = state.sample(rng, Work.TEMPERATURE, Work.TEXTS)
        assert [text.removesuffix("\n") for text in texts] == here.samples


def test_a_hundred_steps_of_the_file() -> None:
    run = Run(ORIGINAL, steps=100)
    start = copied(run.namespace["leaves"](run.params))
    states = {}
    for double in (True, False):
        fast = compiled(run, double)
        states[double] = fast.open()
        states[double].load(0, start, run.moments)
        losses = states[double].train([course(run, fast.ids)], 60)
        losses += states[double].train([course_from(run, fast, 60)], 40)
        states[double].losses = losses  # type: ignore[attr-defined]
    expected = [run.advance() for _ in range(100)]
    theirs = copied(run.namespace["leaves"](run.params))
    # Two trainings that round otherwise drift apart a little more with each step.
    for double, loss, weight in ((True, 1e-9, 1e-8), (False, 2e-3, 2e-2)):
        told = [one for (one,) in states[double].losses]  # type: ignore[attr-defined]
        assert told == pytest.approx(expected, rel=loss)
        assert apart(theirs, states[double].store()[0]) < weight


@pytest.mark.skipif("MICROGPT_EXHAUSTIVE" not in os.environ, reason="takes minutes")
@pytest.mark.parametrize("data_set", ["names", *data.TASKS])
@each
def test_exhaustive(name: str, data_set: str) -> None:
    """Every variant on every data set: what the logits say of text, losses of a hundred
    steps, and the weights after them.

    MICROGPT_EXHAUSTIVE=1 .venv/bin/python -m pytest tests/test_engines_fast.py -k exhaustive
    """
    whole = data.load(data_set)
    corpus = data.Corpus(data_set, data_set, whole.docs[:300], whole.separator)
    run = Run(edited(*VARIANTS[name]), corpus, steps=100, **{**SMALL, "batch": 1})
    start, docs = copied(run.namespace["leaves"](run.params)), list(run.train_docs)
    fast = compiled(run)
    state = fast.open()
    state.load(0, start, None)
    total, count = state.surprise(docs[:20])
    assert total / count == pytest.approx(_surprise(run, docs[:20]), rel=1e-9)
    told = [one for (one,) in state.train([course(run, fast.ids, docs)], 100)]
    assert len(told) == 100
    assert told == pytest.approx([run.advance() for _ in told], rel=1e-6)
    theirs = copied(run.namespace["leaves"](run.params))
    assert apart(theirs, state.store()[0]) < 1e-5 * max(1.0, largest(theirs))


def _surprise(run: Run, docs: Sequence[str]) -> float:
    """The mean surprise at the tokens of documents, by the file."""
    total, count = 0.0, 0
    for doc in docs:
        ids = run.namespace["encode"](doc, run.vocab)[: run.context + 1]
        probs = run.namespace["softmax"](run.namespace["gpt"](ids[:-1], **run.params)).data
        total -= sum(math.log(row[t] / sum(row) + 1e-30) for row, t in zip(probs, ids[1:]))
        count += len(ids) - 1
    return total / count


def course_from(run: Run, fast: Fast, first: int) -> Any:
    """The course of a run from a later step on."""
    later = course(run, fast.ids)
    later.take(first)
    return later


SIZES: list[dict[str, int]] = [
    {"n_layer": 2, "n_embd": 8, "batch": 3},
    {"n_layer": 2, "n_head": 3, "n_embd": 12, "block_size": 5, "batch": 7},
    {"n_head": 1, "n_embd": 1, "block_size": 3},
    {"n_head": 1, "n_embd": 20, "block_size": 40, "batch": 1},
    {"n_head": 12, "n_embd": 12, "block_size": 30, "batch": 2},  # wide rows, tall matrices
    {"block_size": 1, "batch": 2},
    {"block_size": 2, "n_embd": 8, "batch": 33},
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(sizes: dict[str, int]) -> None:
    letters = "abcdefghijklmnop"
    docs = [letters[i % 7 :][: 1 + i * 7 % 16] * (1 + i % 3) for i in range(60)]
    here = Work(ORIGINAL, data.Corpus("letters", "Letters", docs), 2, **sizes)
    for double in (True, False):
        for _, state, losses, (loss, gradients) in here.states(double):
            assert loss == pytest.approx(here.loss, rel=CLOSE[double])
            most = CLOSE[double] * max(1.0, largest(here.gradients))
            assert apart(here.gradients, gradients) < most
            for one, other in zip(here.losses, losses):
                assert other == pytest.approx(one[: state.runs], rel=CLOSE[double])
            total, count = state.surprise(here.runs[0]._held_out(Work.HELD_OUT))
            assert total / count == pytest.approx(here.held_out, rel=CLOSE[double])


def test_documents_of_one_character_and_longer_than_the_context() -> None:
    docs = ["a", "b", "ab", "abcdefghijklmnop" * 3, "", "ba", "c"] * 4
    here = Work(ORIGINAL, data.Corpus("odd", "Odd", docs), 3, batch=3, block_size=6, n_embd=8)
    for _, state, losses, (_, gradients) in here.states(double=True):
        assert apart(here.gradients, gradients) < 1e-12
        assert losses == [pytest.approx(one[: state.runs], rel=1e-12) for one in here.losses]


def test_long_texts_are_sampled_to_the_end_of_the_context() -> None:
    run = Run(ORIGINAL, FEW, **SMALL)
    state = compiled(run).open()
    state.load(0, copied(run.namespace["leaves"](run.params)), None)
    for prefix in ("", "a", "abcdefg", "abcdefgh", "abcdefghi", "a\n"):
        for seed in range(5):
            file = run.namespace["sample"]
            expected = list(file(run.params, run.vocab, random.Random(seed), 1.2, prefix))
            rng = random.Random(seed)
            assert state.sample(rng, 1.2, 1, prefix)[0] == (expected or [prefix])[-1]
            others = random.Random(seed)
            for _ in expected:
                others.random()
            assert rng.random() == others.random()


ANEW = {  # a token more changes what was there, or what is done to it
    "no mask", "scaled by the length", "scores alone", "positions from the end",
    # their attention is not of the form that is known, so it could be anything
    "exp with a wrong slope", "scaled after the mask", "softmax without the largest",
    "softmax and one", "the token before",
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_a_text_grows_by_the_last_row_alone(name: str) -> None:
    """Where that is so it is done so, and the texts are those of doing all of it anew."""
    run = Run(edited(*VARIANTS[name]), FEW, **SMALL)
    fast = compiled(run)
    state = fast.open()
    state.load(
        0, [[[9 * x for x in row] for row in w] for w in copied(run.named_weights().values())], None
    )
    try:
        program = fast.program("sample")
    except LeavesContract:
        return
    assert program.grows == (name not in ANEW)
    texts = state.sample(random.Random(3), 1.0, 20)
    loaded = state._others["sample"]
    loaded.code[GROWS] = 0
    assert state.sample(random.Random(3), 1.0, 20) == texts
    assert sum(map(len, texts)) > 40


def test_a_greedy_sample_needs_no_luck() -> None:
    run = Run(ORIGINAL, FEW, **SMALL)
    state = compiled(run, double=False).open()
    state.load(0, copied(run.namespace["leaves"](run.params)), None)
    assert state.sample(random.Random(0), 1e-9) == state.sample(random.Random(1), 1e-9)


# ---- Training, and when it ends ----


def opened(double: bool = True, **options: Any) -> tuple[Run, Fast, Any]:
    run = Run(ORIGINAL, FEW, **{**SMALL, "steps": 50, **options})
    fast = compiled(run, double)
    state = fast.open()
    state.load(0, copied(run.namespace["leaves"](run.params)), run.moments)
    return run, fast, state


def test_steps_may_be_taken_in_parts() -> None:
    run, fast, whole = opened()
    _, _, parts = opened()
    one, other = course(run, fast.ids), course(run, fast.ids)
    losses = whole.train([one], 12)
    told = [loss for count in (1, 4, 0, 7) for loss in parts.train([other], count)]
    assert told == losses
    assert parts.store() == whole.store()


def test_what_was_stored_can_be_loaded() -> None:
    run, fast, state = opened()
    one = course(run, fast.ids)
    state.train([one], 5)
    again = fast.open()
    again.load(0, *state.store())
    other = course_from(run, fast, 5)
    assert again.train([other], 5) == state.train([one], 5)


def test_gradients_move_nothing() -> None:
    run, fast, state = opened()
    before = state.store()
    state.gradients([fast.ids("ann"), fast.ids("bo")])
    assert state.store() == before
    assert state.train([course(run, fast.ids)], 3) == opened()[2].train([course(run, fast.ids)], 3)


def test_stop_ends_a_call_in_another_thread() -> None:
    run, fast, state = opened(steps=10_000_000, block_size=16, n_embd=32)
    schedule = course(run, fast.ids)
    plan = state.plan([schedule], 40_000)  # seconds of work
    done: list[list[list[float]]] = []
    thread = threading.Thread(target=lambda: done.append(state.perform(plan)))
    thread.start()
    time.sleep(0.05)
    started = time.perf_counter()
    while thread.is_alive():
        state.stop()
        thread.join(0.01)
    assert time.perf_counter() - started < 2
    losses = done[0]
    assert 0 < len(losses) < 40_000
    # What was not done is given back: the next step is the one that was stopped.
    again = fast.open()
    again.load(0, copied(run.namespace["leaves"](run.params)), run.moments)
    count = min(len(losses), 3)
    other = course(run, fast.ids)
    assert again.train([other], count) == losses[:count]
    more = state.train([schedule], 2)
    assert schedule.take(1).numbers[0][0] == len(losses) + 2 + 1
    again.load(0, copied(run.namespace["leaves"](run.params)), run.moments)
    assert again.train([course(run, fast.ids)], len(losses) + 2) == losses + more


def test_stop_ends_all_threads() -> None:
    run = Run(ORIGINAL, FEW, batch=4, steps=10_000_000, n_embd=32)
    fast = compiled(run, double=False)
    state = fast.open(1, threads=2)
    state.load(0, copied(run.namespace["leaves"](run.params)), run.moments)
    plan = state.plan([course(run, fast.ids)], 20_000)
    done: list[list[list[float]]] = []
    thread = threading.Thread(target=lambda: done.append(state.perform(plan)))
    thread.start()
    time.sleep(0.05)
    while thread.is_alive():
        state.stop()
        thread.join(0.01)
    assert len(done[0]) < 20_000
    assert all(math.isfinite(loss) for (loss,) in done[0])


def test_a_measurement_that_is_stopped_gives_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, state = opened()
    measure = state._single.measure

    def stopped(*arguments: Any) -> Any:
        state.stop()
        return measure(*arguments)

    monkeypatch.setattr(state._single, "measure", stopped)
    with pytest.raises(MicrogptError, match="stopped"):
        state.surprise(["ann"])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_that_diverges_ends_with_that_step(threads: int) -> None:
    # Adam's steps are never large, norm makes what is large small, and so does softmax.
    whole = ("no norm", "softmax without the largest", "plain descent")
    source = edited(*[pair for name in whole for pair in VARIANTS[name]])
    run = Run(source, FEW, **SMALL, steps=200, lr=50.0)
    fast, start = compiled(run), copied(run.namespace["leaves"](run.params))
    state, schedule = fast.open(1, threads), course(run, fast.ids)
    state.load(0, start, None)
    losses = state.train([schedule], 200)
    assert len(losses) < 200
    assert all(math.isfinite(loss) for (loss,) in losses[:-1])
    assert not math.isfinite(losses[-1][0])
    expected = [run.advance() for _ in losses[:-1]]
    with pytest.raises(MicrogptError):
        run.advance()
    assert [loss for (loss,) in losses[:-1]] == pytest.approx(expected, rel=1e-9)
    # The weights are those before that step.
    again = fast.open(1, threads)
    again.load(0, start, None)
    first = course(Run(source, FEW, **SMALL, steps=200, lr=50.0), fast.ids)
    assert again.train([first], len(losses) - 1) == losses[:-1]
    assert repr(again.store()) == repr(state.store())


def test_a_lane_that_diverges_leaves_the_others_alone() -> None:
    runs = [Run(ORIGINAL, FEW, **SMALL, steps=50, seed=seed) for seed in range(2)]
    fast = compiled(runs[0])
    state = fast.open(2)
    good, bad = (copied(run.namespace["leaves"](run.params)) for run in runs)
    bad[0][0][0] = math.nan
    state.load(0, good, None)
    state.load(1, bad, None)
    losses = state.train([course(run, fast.ids) for run in runs], 5)
    assert [one for one, _ in losses] == pytest.approx([runs[0].advance() for _ in range(5)])
    assert len(losses) == 5


def test_rows_that_a_document_does_not_have_may_hold_no_numbers() -> None:
    """A row of targets that is not there is all 0, and 0 / 0 is not a number."""
    weighed = (
        "    surprise = (targets *",
        "    count = targets.sum(-1, keepdim=True)\n    surprise = (targets / count *",
    )
    here = Work(edited(weighed), FEW, **SMALL)
    for _, state, losses, _ in here.states(double=True):
        assert losses == [pytest.approx(one[: state.runs], rel=1e-12) for one in here.losses]


def test_the_line_where_numbers_are_lost_is_found() -> None:
    source = edited(
        ("    hidden = (x @ fc).relu()", "    hidden = ((x @ fc) * 1e200 * 1e200).relu()")
    )
    run = Run(source, FEW, **SMALL)
    fast = compiled(run)
    state = fast.open()
    state.load(0, copied(run.namespace["leaves"](run.params)), None)
    losses = state.train([course(run, fast.ids)], 5)
    assert len(losses) == 1
    line = 1 + next(i for i, text in enumerate(source.splitlines()) if "1e200" in text)
    assert state.line_of_first_bad() == line


# ---- What is refused, late or for want of room ----


def test_no_kernel_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microgpt.engines.fast.kernel", lambda: "the fast engine is not built here")
    run = Run(ORIGINAL, FEW, **SMALL)
    with refused("the fast engine is not built here"):
        Fast(run.source, run.namespace, run.params, run.vocab, 8, course(run, lambda doc: ()))


def test_where_compiling_takes_too_much_memory_the_file_does_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(*_: Any) -> Any:
        raise MemoryError

    run = Run(ORIGINAL, FEW, engine="fast", **SMALL)
    monkeypatch.setattr("microgpt.engines.compiled.build", build)
    said = run.prepare()
    assert said is not None and said.endswith("compiling it takes more memory than there is.")
    assert run.engine == "reference" and run.advance() == Run(ORIGINAL, FEW, **SMALL).advance()


def test_more_runs_than_lanes() -> None:
    _, fast, _ = opened()
    with pytest.raises(MicrogptError, match=r"At most \d+ runs are trained side by side, not 99\."):
        fast.open(99)


def test_runs_that_cannot_be_side_by_side() -> None:
    run = Run(edited(*VARIANTS["positions from the end"]), FEW, **SMALL)
    fast = compiled(run)
    assert fast.most_runs == 1
    with refused("its runs cannot be trained side by side"):
        fast.open(2)


def test_runs_that_do_not_go_together() -> None:
    runs = [Run(ORIGINAL, FEW, **SMALL, steps=steps) for steps in (50, 60)]
    fast = compiled(runs[0])
    state = fast.open(2)
    with refused("its runs do not move their weights alike"):
        state.train([course(run, fast.ids) for run in runs], 3)


def test_documents_that_train_does_not_cut() -> None:
    run = Run(edited(('[: params["wpe"].shape[-2] + 1]', "")), FEW, **SMALL)
    fast = compiled(run)
    state = fast.open()
    with refused("its train reads more tokens at once than the context holds"):
        state.train([course(run, fast.ids)], 40)


SAMPLE_REFUSED = {
    "sample": (
        ("probs = softmax(logits).data[0]", "probs = softmax(logits).data[-1]"),
        "it changes sample",
    ),
    "encode": (
        ("def encode(text, vocab): return", "def encode(text, vocab): text = text.lower(); return"),
        "it changes encode",
    ),
}


@pytest.mark.parametrize("what", SAMPLE_REFUSED)
def test_samples_of_another_kind_are_the_files_to_draw(what: str) -> None:
    change, reason = SAMPLE_REFUSED[what]
    here = Work(edited(change), FEW, 1, **SMALL)
    for _, state, losses, _ in here.states(double=True):
        assert losses == [pytest.approx(one, rel=1e-12) for one in here.losses]
        with refused(reason):
            state.sample(random.Random(0), 1.0)


def test_a_model_that_scores_no_token_is_not_measured() -> None:
    source = edited(("return norm(x) @ lm_head", "return (norm(x) @ lm_head)[-1:]"))
    source = source.replace("surprise = (targets *", "surprise = (targets[-1:] *")
    run = Run(source, FEW, **SMALL)
    state = compiled(run).open()
    with refused("its model does not score every next token after each"):
        state.surprise(["ann"])


@pytest.mark.parametrize("name", memory.SIZES)
def test_memory_is_what_the_formula_says(name: str) -> None:
    if name == "wide":
        pytest.skip("its weights take Python a while; the benchmark has it")
    found = memory.measured(name)
    assert found["engine"] == pytest.approx(found["formula"], rel=0.02, abs=20_000)


def test_a_document_with_a_strange_character() -> None:
    _, fast, _ = opened()
    with refused("its encode gives something other than numbers of tokens"):
        fast.ids("é")


# ---- Programs at random ----


class OneStep:
    """A course of one step that moves each weight by its gradient."""

    update = ("adam", ((None, "w"), (None, "m"), (None, "v"), (None, "number"), (None, "number")))

    def __init__(self, documents: Sequence[tuple[int, ...]]) -> None:
        self.batch, self.scale, self.documents = len(documents), 1 / len(documents), documents

    def take(self, count: int) -> Steps:
        return Steps(list(self.documents), [(1, 1.0)])

    def back(self, count: int) -> None:
        pass


def check_program(choose: Callable[[Sequence[Any]], Any], length: int) -> None:
    """A program that the choices make: the kernel's loss and gradients are those of the file's own
    tensors, for one run and for several in lanes, each with documents of other lengths."""
    context = choose([1, 2, 3, 5, 8, 17, 26])
    source = engines.program(choose, context, length)
    space, rng = execute(source), random.Random(choose(range(1000)))
    several = [space["init"](rng, engines.VOCAB) for _ in range(3)]
    batch = choose([1, 2, 3, 7])
    documents = [engines.some_documents(rng, batch, context) for _ in several]
    vocab = ["\n", "a", "b", "c", "d"]
    try:
        expected = [
            engines.loss_and_gradients(space, params, docs, 1 / batch)
            for params, docs in zip(several, documents)
        ]
    except (ArithmeticError, ValueError):
        return  # a number that Python does not have
    try:
        fast = Fast(
            source, space, several[0], vocab, context, OneStep(documents[0]),
            engines.library(double=True), double=True,
        )  # fmt: skip
    except LeavesContract as why:
        if why.message.startswith("its loss does not depend on any weight"):
            return
        raise
    for runs, threads in ((1, 1), (1, 2), (3, 1)):
        if runs > 1 and not fast.training.laned:
            continue
        state = fast.open(runs, threads)
        start = [copied(space["leaves"](params)) for params in several[:runs]]
        for i, weights in enumerate(start):
            state.load(i, weights, None)
        (losses,) = state.train([OneStep(docs) for docs in documents[:runs]], 1)
        for i, (loss, gradients) in enumerate(expected[:runs]):
            assert losses[i] == pytest.approx(loss, rel=1e-9, abs=1e-9), source
            moved = [
                [[p - q for p, q in zip(r, s)] for r, s in zip(m, n)]
                for m, n in zip(start[i], state.store(i)[0])
            ]
            assert apart(gradients, moved) < 1e-9 * max(1.0, largest(gradients)), source


def test_programs_at_random() -> None:
    hypothesis = pytest.importorskip("hypothesis", reason="makes the programs")
    strategies = hypothesis.strategies

    @hypothesis.settings(
        max_examples=100, suppress_health_check=list(hypothesis.HealthCheck), database=None
    )
    @hypothesis.given(strategies.data(), strategies.integers(0, 14))
    def check(drawn: Any, length: int) -> None:
        check_program(lambda options: drawn.draw(strategies.sampled_from(list(options))), length)

    check()

"""The fast engine against the file: the same gradients, losses, weights and samples, for the file,
for edits of it, and for programs made at random.

The kernel is tested in double precision, where it must agree but for the last digits, and as it is
shipped, in single precision, where rounding counts.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import engines
import pytest
from engines import Work, apart, compiled, copied, course, edited, largest

from microgpt import data
from microgpt.engines import Fast, LeavesContract
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
RELU = "lambda a: (max(a, 0.0), a > 0)"
RATE = "lr * (1 - step / steps)"
MOVE = "        move = [a / c1 / (math.sqrt(b / c2) + eps) for a, b in zip(m[i], v[i])]"
BY_PLACE = "for j in range(q.shape[-2])] for i in range(q.shape[-2])]"

VARIANTS: dict[str, Sequence[tuple[str, str]]] = {
    # ---- The model ----
    "nothing": [],
    "attention times zero": [("            x = x + attention(h, **head)", "            x = x + h * 0")],
    "no attention": [(HEADS, "")],
    "no mlp": [(f"        {MLP}\n", "")],
    "no residual": [("x = x + mlp(norm(x)", "x = mlp(norm(x)")],
    "no norm": [("    return x * (mean_square + 1e-5) ** -0.5", "    return x")],
    "norm after": [(MLP, 'x = norm(x + mlp(x, block["fc"], block["proj"]))')],
    "layer norm": [("    mean_square =", "    x = x - x.sum(-1, keepdim=True) / x.shape[-1]\n    mean_square =")],
    "norm of queries": [("    scores = q @", "    q, k = norm(q), norm(k)\n    scores = q @")],
    "norm of weights": [("(x @ fc).relu()", "(x @ norm(fc)).relu()")],
    "in parallel": [(MLP, 'x = x + mlp(h, block["fc"], block["proj"])')],
    "relu squared": [("(x @ fc).relu()", "(x @ fc).relu() ** 2")],
    "leaky relu": [(RELU, "lambda a: (a if a > 0 else 0.1 * a, 1 if a > 0 else 0.1)")],
    "relu with a wrong slope": [(RELU, "lambda a: (max(a, 0.0), a < 0)")],
    "relu by equality": [(RELU, "lambda a: (0.0 if max(a, 0.0) == 0 else a, max(a, 0.0) != 0)")],
    "exp with a wrong slope": [("(math.exp(a), math.exp(a))", "(math.exp(a), 0.9 * math.exp(a))")],
    "tanh": [
        ("    def exp(self)", "    def tanh(self):\n        return self.cellwise(lambda a: (math.tanh(a), 1 - math.tanh(a) ** 2))\n\n    def exp(self)"),
        ("(x @ fc).relu()", "(x @ fc).tanh()"),
    ],
    "silu": [("(x @ fc).relu()", "x @ fc\n    hidden = hidden / ((hidden * -1).exp() + 1)")],
    "gated": [("(x @ fc).relu()", "(x @ fc).relu() * (x @ fc)")],
    "a bend for each way": [(RELU, "lambda a: (a if a > 1 else 0.5 if a > 0.5 else a * a, a if a > 0.5 else 1.0)")],
    "no mask": [(FUTURE, "softmax(scores)")],
    "unscaled": [(" * q.shape[-1] ** -0.5  #", "  #")],
    "scaled by the length": [(FUTURE, "softmax(scores * math.log(q.shape[-2] + 1) + future)")],
    "scaled after the mask": [(FUTURE, "softmax((scores + future) * 2)")],
    "values alone": [("return weights @ v @ wo", "return v @ wo")],
    "scores alone": [(FUTURE, "scores.transpose(-2, -1).triu(0).transpose(-2, -1)")],
    "farther weighs less": [(FUTURE, f"softmax(scores + future + Tensor([[-0.3 * (i - j) {BY_PLACE}))")],
    "a window": [(FUTURE, f"softmax(scores + future + Tensor([[-math.inf if i - j > 2 else 0.0 {BY_PLACE}))")],
    "softmax without the largest": [("    e = (x - x.amax(-1, keepdim=True)).exp()", "    e = x.exp()")],
    "softmax and one": [("    return e / e.sum(-1, keepdim=True)", "    return e / (e.sum(-1, keepdim=True) + 1)")],
    "no positions": [(POSITIONS, "    x = tokens")],
    "waves for positions": [
        (POSITIONS, "    n = len(ids)\n    x = tokens + Tensor([[math.sin(i / 10 ** (j / 8)) for j in range(wte.shape[-1])] for i in range(n)])"),
    ],
    "positions from the end": [(POSITIONS, "    x = tokens + wpe[-tokens.shape[-2] :]")],
    "a mask that is kept": [
        ("def attention(", "masks = {}\n\ndef mask(n):\n    if n not in masks:\n        masks[n] = Tensor([[-math.inf if j > i else 0.0 for j in range(n)] for i in range(n)])\n    return masks[n]\n\ndef attention("),
        (FUTURE, "softmax(scores + mask(q.shape[-2]))"),
    ],
    "one table": [("return norm(x) @ lm_head", "return norm(x) @ wte.transpose(-2, -1)")],
    "the token before": [("    x = tokens +", "    x = tokens + tokens[[0] + list(range(len(ids) - 1))] +")],
    "looked up twice": [("    x = tokens +", "    x = tokens + wte[[ids[0]] + ids[:-1]] +")],
    "gain and bias": [
        ("gpt(ids, wte, wpe, blocks, lm_head):", "gpt(ids, wte, wpe, blocks, lm_head, gain, bias):"),
        ("return norm(x) @ lm_head", "return (norm(x) * gain) @ lm_head + bias"),
        ("lm_head=lm_head)", "lm_head=lm_head, gain=new(1, C), bias=new(1, vocab_size))"),
    ],
    "the largest of each row": [("return norm(x) @", "return (norm(x) + x.amax(-1, keepdim=True)) @")],
    # ---- The loss ----
    "smoothed targets": [("    surprise = (targets *", "    surprise = ((targets * 0.9 + 0.1 / targets.shape[-1]) *")],
    "the last token alone": [("    return surprise.transpose(-2, -1).sum(-1, keepdim=True) / surprise.shape[-2]", "    return surprise[-1:]")],
    "a sum of surprises": [(" / surprise.shape[-2]", "")],
    # ---- The optimiser ----
    "plain descent": [(MOVE, "        move = grad")],
    "weights fade": [("w.data[i] = [a - lr * b for", "w.data[i] = [a - lr * (b + 0.01 * a) for")],
    "the sign alone": [(MOVE, "        move = [(a > 0) - (a < 0) for a in m[i]]")],
    "the sign by a condition": [(MOVE, "        move = [1 if a > 0 else -1 for a in m[i]]")],
    "a look ahead": [
        ("move = [a / c1 /", "move = [(beta1 * a + (1 - beta1) * g) / c1 /"), ("for a, b in zip(m[i], v[i])]", "for a, b, g in zip(m[i], v[i], grad)]"),
    ],
    "gradients in bounds": [
        ("    for i, grad in enumerate(w.grad):\n", "    for i, grad in enumerate(w.grad):\n        grad = [max(-0.01, min(0.01, g)) for g in grad]\n"),
    ],
    "the first step is another": [("    c1, c2 =", "    lr = lr / 2 if step == 1 else lr\n    c1, c2 =")],
    # ---- Training ----
    "a constant rate": [(RATE, "lr")],
    "warming up": [(RATE, "lr * min(1, (step + 1) / 4)")],
    "a cosine": [(RATE, "lr * 0.5 * (1 + math.cos(math.pi * step / steps))")],
    "backwards": [("docs[i % len(docs)]", "docs[-1 - i % len(docs)]")],
    "shuffled": [("    weights = leaves(params)\n    moments", "    random.Random(1).shuffle(docs)\n    weights = leaves(params)\n    moments")],
    "another optimiser": [
        ("def train(", "def sgd(w, lr):\n    for i, grad in enumerate(w.grad):\n        w.data[i] = [a - lr * g for a, g in zip(w.data[i], grad)]\n    w.grad = []\n\ndef train("),
        (f"adam(w, m, v, step + 1, {RATE})", "sgd(w, 3 * lr)"),
    ],
    "another beta, by name": [("adam(w, m, v, step + 1, lr", "adam(w, m, v, step + 1, beta1=0.9, lr=lr")],
    "a sum of documents": [(" / batch\n", "\n")],
    "half of the context": [('[: params["wpe"].shape[-2] + 1]', '[: params["wpe"].shape[-2] // 2 + 1]')],
    "one way back for all": [
        ("            backward(loss)\n            total += loss.data[0][0]\n", "            total = loss if i == step * batch else total + loss\n        backward(total)\n        total = total.data[0][0]\n"),
    ],
    # ---- The tokenizer ----
    "the mark comes last": [('["\\n"] + sorted(set("".join(docs)))', 'sorted(set("".join(docs))) + ["\\n"]')],
}  # fmt: skip
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
            flat = [abs(p - q) for m, n in zip(theirs, weights) for r, s in zip(m, n) for p, q in zip(r, s)]  # fmt: skip
            assert sorted(flat)[len(flat) * 99 // 100] < MOST_WEIGHTS[double], how
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
        texts = [state.sample(rng, Work.TEMPERATURE) for _ in range(Work.TEXTS)]
        assert [text.removesuffix("\n") for text in texts] == here.samples, how


@each
def test_runs_are_trained_side_by_side(name: str) -> None:
    _, lanes = done(name, True)[-1][:2]
    assert lanes.runs == (1 if name in NOT_IN_LANES else 3)


# ---- The file itself ----

TASKS = [*data.TASKS, "names"] if hasattr(data, "TASKS") else []

"""What is recorded of a source, and which sources are refused, with which sentence."""

from __future__ import annotations

import ast
import math
import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from engines import course, edited, refused

from microgpt import data
from microgpt.engines.compiled import Compiled
from microgpt.engines.graph import graph
from microgpt.engines.program import build
from microgpt.engines.record import (
    Constant,
    Expression,
    Length,
    Recorder,
    Tape,
    arithmetic,
    at,
    computed,
    evaluate,
    number,
    parts,
    rebuilt,
    record_update,
    same,
    unedited,
    whole,
)
from microgpt.engines.rehearse import Course, Rehearsal, Schedule
from microgpt.errors import LeavesContract
from microgpt.run import Run
from microgpt.source import ORIGINAL, execute

X, Y = Expression("input", 0), Expression("input", 1)
FEW = data.Corpus("few", "a few names", data.load("names").docs[:40])
SMALL: dict[str, Any] = {"batch": 2, "n_embd": 4, "n_head": 2, "block_size": 8}


def numbers(e: Expression, *inputs: float, tokens: int = 0) -> float:
    return computed(e, [[x] for x in inputs], 1, tokens)[0]


# ---- Expressions ----


def test_equal_expressions_are_one_object() -> None:
    assert (X + Y) is (X + Y)
    assert (X + Y) is not (Y + X)
    assert number(2) is number(2.0)


def test_what_nobody_holds_is_forgotten() -> None:
    before = len(Expression._made)
    kept = X * 1234.5
    assert len(Expression._made) == before + 2
    del kept
    assert len(Expression._made) == before


@pytest.mark.parametrize(
    ("e", "same_as"),
    [
        (X * 1, X), (1 * X, X), (X + 0, X), (0 + X, X), (X - 0, X), (X / 1, X), (X**1, X),
        (X**0, number(1)), (X**2, X * X), (X**-1, 1 / X), (2 * X, X * 2), (3 + X, X + 3),
        (X + Y * -1, X - Y), (X**0.5, Expression("sqrt", X)), (+X, X),
        (arithmetic("where", X > 0, Y, Y), Y), (number(2) * number(3), number(6)),
    ],
)  # fmt: skip
def test_what_changes_nothing_is_left_out(e: Expression, same_as: Expression) -> None:
    assert e is same_as


@pytest.mark.parametrize("power", [-4, -2.5, -2, -1.5, -1, -0.5, 0, 0.3, 0.5, 1, 1.5, 2, 3, 4, 7])
def test_powers(power: float) -> None:
    for x in (0.3, 1.0, 2.7):
        assert numbers(X**power, x) == pytest.approx(x**power, rel=1e-15)


def test_zero_times_a_cell_is_not_zero() -> None:
    """It is not a number where the cell is none."""
    assert math.isnan(numbers(X * 0, math.inf))


def test_expressions_that_share_parts_are_walked_once() -> None:
    e = X
    for _ in range(150):
        e = e * e + 1  # as a tree it has 2^150 leaves
    assert len(parts(e)) == 302
    assert parts(e)[-1] is e
    assert parts(e)[0] is X
    assert numbers(e, 0.5) == math.inf
    assert rebuilt(e, lambda leaf: number(2) if leaf is X else leaf) is number(math.inf)


def test_each_part_comes_after_what_it_is_made_of() -> None:
    seen: set[Expression] = set()
    for part in parts(X * Y + (X - Y) / (X * Y), X):
        assert part.leaf or all(a in seen for a in part.args)
        seen.add(part)


def test_numbers_are_those_of_python() -> None:
    e = (X + 2) * Y / (X * X + 1) - abs(Y) ** 0.3
    x, y = 0.7, -1.3
    assert numbers(e, x, y) == pytest.approx((x + 2) * y / (x * x + 1) - abs(y) ** 0.3)
    assert numbers(arithmetic("max", X, Y), x, y) == x
    assert numbers(arithmetic("min", X, Y), x, y) == y
    assert [numbers(c, x, y) for c in (X > Y, X < Y, X >= Y, X <= Y)] == [1, 0, 1, 0]


def test_an_expression_may_depend_on_the_length() -> None:
    e = arithmetic("log", Length(2, 1)) * number(3)
    assert evaluate(e, {}, 5) == pytest.approx(3 * math.log(11))
    assert evaluate(Expression("each", (7.0, 8.0, 9.0)), {}, 2) == 8
    assert evaluate(Expression("symbol", "t") / 2, {"t": 5.0}) == 2.5


def test_what_no_number_is_refused() -> None:
    with refused("a number in it cannot be computed, ", whole=False):
        number(1) / number(0)
    with refused("a number in it cannot be computed, ", whole=False):
        Constant(lambda tokens: [[math.log(0)]], True).at(3)


def test_each_thread_records_for_itself() -> None:
    found: list[Any] = []

    def work() -> None:
        for _ in range(3):
            found.append(tape_of(ORIGINAL))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [(n.op, n.parents, n.line) for n in tape_of(ORIGINAL).nodes]
    assert [[(n.op, n.parents, n.line) for n in tape.nodes] for tape in found] == [expected] * 9


# ---- Sizes ----


def test_lengths() -> None:
    t = Length(1, 0)
    assert at(2 * t + 3, 5) == 13
    assert at(3 - t, 1) == 2
    assert t - t == 0 and type(t - t) is int
    assert at(-t, 4) == -4
    assert same(t + 1 - 1, t) and not same(t, 1) and not same(t + 1, t)
    assert repr(2 * t + 1) == "2T+1" and repr(t) == "T"
    assert evaluate(t * 0.5, {}, 3) == 1.5
    assert whole(3) == 3
    with refused("a matrix in it grows with the document where none can"):
        whole(t)


# ---- Tapes ----


def recorder(source: str, **sizes: int) -> tuple[Recorder, dict[str, Any], Any]:
    space = execute(source)
    params = space["init"](random.Random(1), 5, **(sizes or {"n_embd": 4, "n_head": 2}))
    return Recorder(source, params, space), space, params


def tape_of(source: str, longest: int = 6, **sizes: int) -> Tape:
    def loss(space: Any, params: Any, ids: Any, targets: Any) -> Any:
        return space["cross_entropy"](space["gpt"](ids, **params), targets)

    return recorder(source, **sizes)[0].record(loss, longest, 5)


def ops(tape: Tape) -> list[str]:
    return [op.op for op in graph(tape) if op.op not in ("weight", "targets", "constant")]


def test_the_file_becomes_a_few_large_operations() -> None:
    assert ops(tape_of(ORIGINAL)) == [
        *("tokens", "rows", "cells"),
        *("norm", "wide", *("slab", "slab", "slab", "attend") * 2, "long"),
        *("norm", "product", "cells", "long"),
        *("norm", "product", "softmax"),
        *("cells", "sum", "cells", "transpose", "sum", "cells"),
    ]


def test_nodes_know_their_lines() -> None:
    lines = ORIGINAL.splitlines()
    for node in tape_of(ORIGINAL).nodes:
        if node.op == "product":
            assert "@" in lines[node.line - 1]
        if node.op == "tokens":
            assert "wte[ids]" in lines[node.line - 1]


def test_a_form_is_found_wherever_it_is() -> None:
    """By what is computed, not by the names of functions."""
    renamed = ORIGINAL.replace("softmax", "likely").replace("norm(", "level(")
    assert ops(tape_of(renamed)) == ops(tape_of(ORIGINAL))


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ("* (mean_square + 1e-5) ** -0.5", "* (mean_square + 1e-5) ** -0.4", "norm"),
        ("return e / e.sum", "return e * 2 / e.sum", "softmax"),
        ("softmax(scores + future)", "softmax((scores + future) * 2)", "attend"),
        ("(math.exp(a), math.exp(a))", "(math.exp(a), 1.01 * math.exp(a))", "softmax"),
        ("lambda a, b: (a * b, b, a)", "lambda a, b: (a * b, b, 2 * a)", "norm"),
    ],
)
def test_a_form_that_is_not_quite_there_is_not_found(old: str, new: str, lost: str) -> None:
    assert lost in ops(tape_of(ORIGINAL))
    assert lost not in ops(tape_of(edited((old, new))))


def test_what_the_result_does_not_need_is_left_out() -> None:
    wasteful = edited(("    h = norm(x)", "    h = norm(x)\n        unused = (h @ fc).exp()"))
    wasteful = wasteful.replace("unused = (h @ fc)", 'unused = (h @ block["fc"])')
    assert len(tape_of(wasteful).nodes) == len(tape_of(ORIGINAL).nodes)


def test_one_tape_from_one_for_each_length() -> None:
    table = "Tensor([[i] * wte.shape[-1] for i in range(len(ids))])"
    asked = edited(("x = tokens +", f"x = tokens * (1 / len(ids)) + {table} +"))
    tape = tape_of(asked)
    (growing,) = [n for n in tape.nodes if n.op == "constant" and n.columns == 4]
    assert same(growing.rows, Length(1, 0))
    assert growing.detail.nested
    assert growing.detail.at(3) == [[float(i)] * 4 for i in range(3)]
    cells = [n.detail[0] for n in tape.nodes if n.op == "cells"]
    scaled = [e for e in cells if any(part.op == "each" for part in parts(e))]
    assert len(scaled) == 2  # and the mean of the surprise
    assert [numbers(scaled[0], 6.0, tokens=t) for t in (1, 2, 3)] == [6, 3, 2]
    assert ops(tape).count("attend") == ops(tape_of(ORIGINAL)).count("attend")


def test_constants_may_shrink_with_the_document() -> None:
    """Room for them is that of the shortest."""
    shrinking = edited(
        (
            "    return norm(x) @ lm_head",
            "    rest = wpe[tokens.shape[-2] - 1 :]\n"
            "    rest = rest * rest.new_full(rest.shape, 0.5)\n"
            "    total = rest.sum(-1, keepdim=True).transpose(-2, -1).sum(-1, keepdim=True)\n"
            "    return norm(x) @ lm_head + total",
        )
    )
    program = build(tape_of(shrinking, n_embd=4, n_head=2, block_size=6), None, 1, 5)
    assert any(len(flat) == 6 * 16 and set(flat) == {0.5, 0.0} for _, flat in program.constants)


# ---- Which sources are refused ----

Q = "    scores = q @"
H = "    hidden = (x @ fc).relu()"
RELU = "lambda a: (max(a, 0.0), a > 0)"
NEW = "    tokens = wte[ids]  # (T, C)"

# What is refused, the sentence, and words of the line that it names, if it names one.
REFUSED: dict[str, tuple[Sequence[tuple[str, str]], str, str]] = {
    # Operations with a meaning of their own
    "matmul": (
        [("    columns = flip(b)\n", "    columns = flip(b)[:]\n")],
        "it changes matmul, which the fast engine has a copy of",
        "def matmul",
    ),
    "dot": (
        [('"sumprod", lambda a, b: sum(', '"sumprod", lambda a, b: 0 + sum(')],
        "it changes dot, which the fast engine has a copy of",
        "dot = getattr",
    ),
    "a method": (
        [
            (
                ("def amax(self, dim, keepdim): return Tensor([[max(row)] for row in self.data])"),
                ("def amax(self, dim, keepdim): return Tensor([[min(row)] for row in self.data])"),
            )
        ],
        "it changes Tensor.amax, which the fast engine has a copy of",
        "def amax",
    ),
    "a method replaced": (
        [("# ---- Model:", "Tensor.amax = lambda self, dim, keepdim: self\n\n# ---- Model:")],
        "it changes Tensor.amax, which the fast engine has a copy of",
        "def amax",
    ),
    "a function replaced": (
        [("# ---- Model:", "flip = lambda a: [list(r) for r in zip(*a)]\n\n# ---- Model:")],
        "it changes flip, which the fast engine has a copy of",
        "flip = lambda",
    ),
    "a decorated function": (
        [("def stretch(a, shape):", "def same(f): return f\n\n@same\ndef stretch(a, shape):")],
        "it changes stretch, which the fast engine has a copy of",
        "def stretch",
    ),
    "Python's own sum": (
        [("# ---- Model:", "def sum(values, start=0):\n    return 0\n\n# ---- Model:")],
        "it has a sum of its own",
        "def sum(values",
    ),
    # Numbers
    "reads numbers": (
        [(Q, "    first = q.data[0][0]\n" + Q)],
        "it reads the numbers of a tensor",
        "first = ",
    ),
    "reads a gradient": (
        [(Q, "    first = q.grad\n" + Q)],
        "it reads the numbers of a tensor",
        "first = ",
    ),
    "draws": (
        [(H, "    hidden = (x @ fc).relu() * random.random()")],
        "its model draws random numbers",
        "random.random()",
    ),
    "draws from a generator": (
        [
            ("def mlp(", "luck = random.Random(1)\n\ndef mlp("),
            (H, "    hidden = (x @ fc).relu() * luck.random()"),
        ],
        "its model draws random numbers",
        "luck.random()",
    ),
    "draws by another name": (
        [
            ("import random\n", "import random\nfrom random import gauss\n"),
            (H, "    hidden = (x @ fc).relu() * gauss(0, 1)"),
        ],
        "its model draws random numbers",
        "gauss(0, 1)",
    ),
    "counts its calls": (
        [
            ("def mlp(", "calls = []\n\ndef mlp("),
            (H, "    calls.append(1)\n    hidden = (x @ fc).relu() * len(calls)"),
        ],
        "it does something else each time it runs",
        "* len(calls)",
    ),
    "grows from call to call": (
        [
            ("def mlp(", "calls = []\n\ndef mlp("),
            (
                H,
                (
                    "    calls.append(1)\n"
                    "    hidden = (x @ fc).relu()\n"
                    "    for _ in calls:\n"
                    "        hidden = hidden.relu()"
                ),
            ),
        ],
        "it does something else each time it runs",
        "",
    ),
    "prints": ([(H, "    print(x.shape)\n" + H)], "it prints as it runs", "print(x.shape)"),
    "asks": ([(H, "    input()\n" + H)], "it asks a question as it runs", "input()"),
    "opens": ([(H, "    open('x')\n" + H)], "it opens a file as it runs", "open('x')"),
    "catches": (
        [(H, "    try:\n        x.data\n    except Exception:\n        pass\n" + H)],
        "it catches exceptions",
        "try:",
    ),
    "matches": (
        [(H, "    match x.shape[-2]:\n        case int():\n            pass\n" + H)],
        "it matches patterns",
        "match x",
    ),
    "what a cell is": (
        [(RELU, "lambda a: (a if isinstance(a, float) else 0, 1)")],
        "it asks of what type a cell or a token is",
        "def relu(self)",
    ),
    "cells in a set": (
        [(RELU, "lambda a: (0.0 if a in {0, 1} else a, 1)")],
        "it looks up a cell in a set or a dictionary",
        "def relu(self)",
    ),
    "what a token is": (
        [(NEW, NEW + "\n    t = type(ids[0])")],
        "it asks of what type a cell or a token is",
        "t = type",
    ),
    "tensors in a list": (
        [("def mlp(", "kept = [Tensor([[1.0]])]\n\ndef mlp("), (H, H + " + kept[0]")],
        "it computes with a Tensor where a number is expected",
        "+ kept[0]",
    ),
    # Tensors
    "another way back": (
        [(H, H + "\n    hidden = Tensor([[1.0]], (hidden, lambda g: g))")],
        "it makes a tensor with a way back of its own",
        "lambda g: g",
    ),
    "uneven rows": (
        [(H, H + "\n    t = Tensor([[1.0], [1.0, 2.0]])")],
        "it makes a tensor whose rows are empty or not equally long",
        "t = Tensor",
    ),
    "texts": (
        [(H, H + "\n    t = Tensor([['a']])")],
        "it makes a tensor of something other than numbers",
        "t = Tensor",
    ),
    "a method that is not there": (
        [(H, "    hidden = (x @ fc).gelu()")],
        "it asks a tensor for its gelu",
        "gelu",
    ),
    "a matrix by a number": (
        [(H, H + "\n    hidden = hidden @ 2")],
        "it multiplies a tensor by a int, with @",
        "hidden @ 2",
    ),
    "a number as a matrix": (
        [(H, H + "\n    hidden = hidden + [1]")],
        "it computes with a list where a number is expected",
        "hidden + [1]",
    ),
    "factors that do not fit": (
        [(H, H + "\n    hidden = hidden @ fc")],
        "it multiplies a matrix of 16 columns by one of 4 rows",
        "hidden @ fc",
    ),
    "shapes that do not fit": (
        [(H, H + "\n    hidden = hidden + x")],
        "matrices of 16 and 4 rows or columns do not fit together",
        "hidden + x",
    ),
    "lengths that do not fit": (
        [(NEW, NEW + "\n    tokens = tokens + wpe[:3]")],
        "matrices of 2 and 3 rows or columns do not fit together",
        "wpe[:3]",
    ),
    "no tensor": (
        [
            (
                (
                    "    return surprise.transpose(-2, -1).sum(-1, keepdim=True) / "
                    "surprise.shape[-2]"
                ),
                "    return 1.0",
            )
        ],
        "what it computes is not a tensor",
        "",
    ),
    "a name that is not there": (
        [(H, "    hidden = (x @ fc).relu() + nothing")],
        "it cannot be recorded; name 'nothing' is not defined",
        "+ nothing",
    ),
    "without end": (
        [
            (
                "def mlp(x, fc, proj):",
                ("def mlp(x, fc, proj):\n    return mlp(x, fc, proj)\n\ndef unused(x, fc, proj):"),
            )
        ],
        "it cannot be recorded; a function calls itself without end",
        "return mlp(x, fc, proj)",
    ),
    "empty": (
        [(H, H + "\n    t = hidden.new_full((0, 3), 1.0)")],
        "it makes a tensor without rows or columns",
        "new_full((0, 3)",
    ),
    "a tensor that is kept": (
        [
            ("def mlp(", "kept = []\n\ndef mlp("),
            (H, H + "\n    kept.append(hidden)\n    hidden = kept[0]"),
        ],
        "it keeps a tensor of one document for the next",
        "",
    ),
    "a loss of several numbers": (
        [(".transpose(-2, -1).sum(-1, keepdim=True) / surprise", " / surprise")],
        "its loss is not a single number",
        "surprise.shape[-2]",
    ),
    "a loss of nothing": (
        [("    probs = softmax(logits)\n", "    probs = softmax(targets)\n")],
        "its loss does not depend on any weight",
        "/ surprise.shape[-2]",
    ),
    # Rows
    "a step": (
        [(NEW, NEW + "\n    t = tokens[::2]")],
        "it takes a slice of a tensor with a step",
        "t = tokens",
    ),
    "half a place": (
        [(NEW, NEW + "\n    t = tokens[: 1.5]")],
        "it takes a slice between places that are not whole numbers",
        "t = tokens",
    ),
    "no row": ([(NEW, NEW + "\n    t = wpe[2:2]")], "it chooses no row of a tensor", "t = wpe"),
    "no rows at all": (
        [(NEW, NEW + "\n    t = wpe[[]]")],
        "it chooses no row of a tensor",
        "t = wpe",
    ),
    "one row": (
        [(NEW, NEW + "\n    t = wpe[0]")],
        "it chooses rows by something other than tokens or numbers",
        "t = wpe",
    ),
    "a row beyond": (
        [(NEW, NEW + "\n    t = wpe[[8]]")],
        "it chooses a row that is not there, of a tensor of 8",
        "t = wpe",
    ),
    "a row before": (
        [(NEW, NEW + "\n    t = wpe[[-1]]")],
        "it chooses a row that is not there, of a tensor of 8",
        "t = wpe",
    ),
    "a small table": (
        [(NEW, NEW + "\n    t = wpe[:3][ids]")],
        "it looks up tokens in a table with fewer rows than tokens",
        "t = wpe",
    ),
    "a triangle": (
        [(NEW, NEW + "\n    flat = Tensor.triu\n    t = flat(tokens, -1)")],
        "it takes a triangle that begins left of the diagonal",
        "t = flat",
    ),
    # Tokens
    "the number of a token": (
        [(NEW, NEW + "\n    t = [i + 1 for i in ids]")],
        "it computes with the number of a token",
        "t = [i",
    ),
    "equal tokens": (
        [(NEW, NEW + "\n    t = ids[0] == 0")],
        "it computes with the number of a token",
        "t = ids",
    ),
    "a table by token": (
        [(NEW, NEW + "\n    t = {0: 1}[ids[0]]")],
        "it computes with the number of a token",
        "t = {0",
    ),
    # Cells
    "a remainder": (
        [(RELU, "lambda a: (a % 1, 1)")],
        "it turns a cell into a whole number",
        "def relu(self)",
    ),
    "a plain number": (
        [(RELU, "lambda a: (float(a), 1)")],
        "it turns a cell into a plain number",
        "def relu(self)",
    ),
    "a floor": (
        [(RELU, "lambda a: (math.floor(a), 1)")],
        "it gives a cell to math.floor",
        "def relu(self)",
    ),
    "a sine": (
        [(RELU, "lambda a: (math.sin(a), math.cos(a))")],
        "it gives a cell to math.sin",
        "def relu(self)",
    ),
    "too few slopes": (
        [(RELU, "lambda a: (a,)")],
        "it has a function of cells without a slope for each of them",
        "def relu(self)",
    ),
    "too many ways": (
        [(RELU, "lambda a: ((a > 0) + sum(1 if a > i else 0 for i in range(9)), 1)")],
        "a function of cells has too many ways through it",
        "def relu(self)",
    ),
    "too many parts": (
        [(RELU, "lambda a: (sum(a**i for i in range(5, 300)), 1)")],
        "a function of cells takes more than 200 operations",
        "def relu(self)",
    ),
    "more in one case": (
        [(RELU, "lambda a: (a, 1) if a > 0 else (a, 1, 1)")],
        "a function of cells gives more in one case than in another",
        "def relu(self)",
    ),
    "too many numbers": (
        [(RELU, "lambda a: (sum(math.exp(a * (i + 0.1)) * (i + 0.3) for i in range(30)), 1)")],
        "a function of cells in it is too long for the kernel",
        "hidden",
    ),
    "too many matrices": (
        [
            (
                H,
                (
                    "    h = x @ fc\n"
                    "    hs = [h.exp() @ h.transpose(-2, -1) @ h for _ in range(9)]\n"
                    "    hidden = h.cellwise(lambda *a: (sum(a), *[1] * len(a)), *hs)"
                ),
            )
        ],
        "a function in it reads more than 8 matrices",
        "hidden = h.cellwise",
    ),
    # The way it goes
    "other things for short ones": (
        [(H, H + "\n    hidden = hidden.relu() if x.shape[-2] > 3 else hidden")],
        "it does other things for short documents than for long ones",
        "",
    ),
    "uneven growth": (
        [
            (
                NEW,
                NEW
                + (
                    "\n"
                    "    t = tokens[: tokens.shape[-2] // 2 + 1]\n"
                    "    tokens = tokens + t.sum(-1, keepdim=True).transpose(-2, "
                    "-1).sum(-1, keepdim=True)"
                ),
            )
        ],
        "a matrix in it does not grow evenly with the document",
        "t = tokens",
    ),
    "nothing to divide by": (
        [(NEW, NEW + "\n    tokens = tokens * (1 / (tokens.shape[-2] - 1.0))")],
        "a number in it cannot be computed, ",
        "",
    ),
    # Weights
    "a weight left out": (
        [
            (
                "    return [tree] if isinstance",
                (
                    '    parts = [p for k, p in tree.items() if k != "wpe"] if '
                    "isinstance(tree, dict) else parts\n"
                    "    return [tree] if isinstance"
                ),
            )
        ],
        "its leaves leave out a weight, which then is never trained",
        "",
    ),
    # The optimiser
    "another's cells": (
        [("        move = [a / c1", "        c1 = c1 * (1 + sum(grad))\n        move = [a / c1")],
        "its adam moves a cell by what is in others",
        "",
    ),
    "by its size": (
        [("    c1, c2 =", "    lr = lr / w.shape[-1]\n    c1, c2 =")],
        "its adam treats a cell by the size of its matrix, or by chance",
        "",
    ),
    "by its place": (
        [
            (
                "        m[i] = [beta1",
                "        grad = [g * (i + 1) for g in grad]\n        m[i] = [beta1",
            )
        ],
        "its adam does not treat every cell alike",
        "",
    ),
    "a gradient that stays": (
        [("    w.grad = []  # the next step starts from nothing\n", "")],
        "its adam leaves a gradient to the next step",
        "",
    ),
    "by chance": (
        [("    c1, c2 =", "    lr = lr * random.random()\n    c1, c2 =")],
        "its model draws random numbers",
        "random.random()",
    ),
    "an unknown attribute": (
        [("    c1, c2 =", "    w.age = w.age + 1\n    c1, c2 =")],
        "it cannot be recorded; '_Moved' object has no attribute 'age'",
        "w.age",
    ),
}


def compile_only(source: str) -> Compiled:
    run = Run(source, FEW, **SMALL)
    assert run.context is not None
    return Compiled(source, run.namespace, run.params, run.vocab, run.context, course(run, tuple))


@pytest.mark.parametrize("name", REFUSED)
def test_a_source_is_refused_with_its_reason(name: str) -> None:
    changes, sentence, words = REFUSED[name]
    source = ORIGINAL
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    with pytest.raises(LeavesContract) as caught:
        compile_only(source)
    why = caught.value
    assert why.message.startswith(sentence)
    if words:
        line = 1 + next(i for i, text in enumerate(source.splitlines()) if words in text)
        assert (why.line, why.message[-len(f" (line {line})") :]) == (line, f" (line {line})")


# ---- Courses of training ----

RATE = "lr * (1 - step / steps)"
ADAM = f"            adam(w, m, v, step + 1, {RATE})"
TOTAL = "            total += loss.data[0][0]\n"
LOSS = "            loss = cross_entropy(gpt(ids[:-1], **params), targets) / batch\n"


def rehearsed(source: str, **options: Any) -> Course:
    return course(Run(source, FEW, **{**SMALL, "steps": 20, **options}), tuple)


@pytest.mark.parametrize("first", [0, 7])
def test_a_rehearsal_of_the_files_train_tells_what_is_known_of_it(first: int) -> None:
    run = Run(ORIGINAL, FEW, **SMALL, steps=20)
    weights = run.namespace["leaves"](run.params)
    given = {"steps": 20, "batch": 3, "lr": 0.5, "start": first}
    told = Rehearsal(ORIGINAL, run.params, weights, run.train_docs, run.vocab, given, True)
    cut = lambda doc: tuple(run.namespace["encode"](doc, run.vocab)[:9])  # noqa: E731
    known = Schedule(run.train_docs, cut, 3, 20, 0.5, first)
    assert (told.batch, told.scale, told.update) == (known.batch, known.scale, known.update)
    for count in (2, 0, 5):
        assert told.take(count) == known.take(count)
    told.back(2)
    known.back(2)
    assert told.take(3) == known.take(3)


@pytest.mark.parametrize(
    ("new", "rate"),
    [
        ("lr", lambda step: 0.01),
        ("lr * min(1, (step + 1) / 4)", lambda step: 0.01 * min(1, (step + 1) / 4)),
        ("lr * math.cos(step)", lambda step: 0.01 * math.cos(step)),
        ("lr if step < 5 else lr / 10", lambda step: 0.01 if step < 5 else 0.001),
    ],
)
def test_rates_are_followed(new: str, rate: Callable[[int], float]) -> None:
    steps = rehearsed(edited((RATE, new))).take(8)
    assert steps.numbers == [(step + 1, pytest.approx(rate(step))) for step in range(8)]


def test_arguments_are_followed_by_their_names() -> None:
    told = rehearsed(
        edited((ADAM, "            adam(lr=0.5, eps=1e-3, w=w, step=step + 1, m=m, v=v)"))
    )
    assert told.update == (
        "adam",
        (
            ("lr", "number"),
            ("eps", "number"),
            ("w", "w"),
            ("step", "number"),
            ("m", "m"),
            ("v", "v"),
        ),
    )
    assert told.take(2).numbers == [(0.5, 1e-3, 1), (0.5, 1e-3, 2)]


def test_documents_in_another_order_are_followed() -> None:
    source = edited(("docs[i % len(docs)]", "docs[-1 - i % len(docs)]"))
    run = Run(source, FEW, **SMALL, steps=20)
    told = rehearsed(source).take(3).documents
    ids = [run.namespace["encode"](doc, run.vocab)[:9] for doc in run.train_docs[:-7:-1]]
    assert [list(document) for document in told] == ids


def test_scales_are_followed() -> None:
    assert rehearsed(ORIGINAL.replace("def train", "\ndef train")).scale == 0.5
    assert rehearsed(edited((" / batch\n", "\n"))).scale == 1
    assert rehearsed(edited((" / batch\n", " * 3 / batch * 0.5\n"))).scale == 0.75


def test_steps_that_cannot_be_followed_come_after_those_that_can() -> None:
    late = edited(
        (TOTAL, TOTAL + "            if step == 3 and total > 3:\n                lr = lr / 2\n")
    )
    told = rehearsed(late)
    assert len(told.take(5).numbers) == 3
    with refused("its train looks at the loss"):
        told.take(1)
    told.back(2)
    assert len(told.take(5).numbers) == 2


def test_what_is_given_back_is_taken_again() -> None:
    told = rehearsed(edited((RATE, "lr")))
    first = told.take(6)
    told.back(4)
    again = told.take(6)
    assert again.numbers[:4] == first.numbers[2:]
    assert again.documents[:8] == first.documents[4:]


REFUSED_TRAINS: dict[str, tuple[str, str, str]] = {
    "a rate by the loss": (
        TOTAL,
        TOTAL + "            lr = lr / 2 if total > 3 else lr\n",
        "its train looks at the loss",
    ),
    "a rate times the loss": (RATE, "lr * total", "its train gives adam a loss"),
    "an early end": (
        TOTAL,
        TOTAL + "            if total < 1: return\n",
        "its train looks at the loss",
    ),
    "a loss that is shown": (
        TOTAL,
        TOTAL + '            label = f"{total:.3f}"\n',
        "its train looks at the loss",
    ),
    "a loss that is no number": (
        TOTAL,
        TOTAL + "            math.isnan(total)\n",
        "its train looks at the loss",
    ),
    "a loss that is printed": (TOTAL, TOTAL + "            print(step)\n", "it prints as it runs"),
    "a loss and a text": (
        TOTAL,
        TOTAL + '            total += "!"\n',
        "its train computes with a loss and something other than a number",
    ),
    "another number": (
        "        yield total",
        "        yield 1.0",
        "its train yields something other than the loss",
    ),
    "half the loss": (
        "        yield total",
        "        yield total / 2",
        "its train yields something other than the loss",
    ),
    "one more": (
        "        yield total",
        "        yield total + 1",
        "its train yields something other than the loss",
    ),
    "weighed documents": (
        LOSS,
        LOSS.replace("/ batch", "/ (i + 1)"),
        "its train weighs some losses more than others",
    ),
    "a weight that stays": (
        "            adam(w, m",
        ("            if w is weights[0]:\n                w.grad = []\n            adam(w, m"),
        "its train sets the gradient of a weight",
    ),
    "a weight left out": (
        "            adam(w, m",
        ("            if w is weights[0]:\n                continue\n            adam(w, m"),
        "its train does not move every weight once in a step",
    ),
    "a weight twice": (ADAM, f"{ADAM}\n{ADAM}", "its train moves a weight twice in a step"),
    "some faster": (
        RATE,
        "lr * (2 if w is weights[0] else 1)",
        "its train moves some weights otherwise than others",
    ),
    "some otherwise": (
        ADAM,
        (
            "            if w is weights[0]:\n"
            "                adam(w, m, v, step + 1, lr)\n"
            "            else:\n"
            "                adam(w, m, v, step + 1, lr=lr)"
        ),
        "its train moves weights in more than one way",
    ),
    "some weights": (
        "    weights = leaves(params)\n    moments",
        '    weights = leaves(params["blocks"])\n    moments',
        "its train takes the leaves of something other than params",
    ),
    "a sum of weights": (
        LOSS,
        LOSS + "            size = weights[0] * 2\n",
        "its train computes with a weight",
    ),
    "a row of a moment": (
        "            adam(w, m",
        "            first = m[0]\n            adam(w, m",
        "its train reads what the optimiser remembers of a weight",
    ),
    "other weights": (
        "gpt(ids[:-1], **params), targets)",
        'gpt(ids[:-1], **{**params, "wpe": params["wte"]}), targets)',
        "its train gives the model other weights",
    ),
    "other tokens": (
        "gpt(ids[:-1], **params), targets)",
        "gpt([0] + ids[1:-1], **params), targets)",
        "its train reads something other than the tokens of a document",
    ),
    "other targets": (
        "[[j == t for j",
        "[[(j == t) * 0.9 for j",
        "its targets are not the tokens that come next",
    ),
    "earlier targets": (
        "for t in ids[1:]]",
        "for t in ids[:-1]]",
        "its targets are not the tokens that come next",
    ),
    "another loss": (
        LOSS,
        LOSS.replace("gpt(ids[:-1], **params), targets)", "targets, targets)"),
        "its train takes a loss of other than logits and targets",
    ),
    "a way back from nothing": (
        "            backward(loss)",
        "            backward(targets)",
        "its train goes back from something other than a loss",
    ),
    "no way back": ("            backward(loss)\n", "", "its train takes no loss"),
    "an optimiser with a list": (
        f"adam(w, m, v, step + 1, {RATE})",
        f"adam(w, m, v, step + 1, {RATE}, [0])",
        "its train gives adam more than a weight and numbers",
    ),
    "no optimiser": (
        (f"        for w, (m, v) in zip(weights, moments):\n{ADAM}  # ever smaller steps\n"),
        "",
        "its train does not move every weight once in a step",
    ),
    "an end": (
        "        yield total",
        "        return\n        yield total",
        "its train ended by itself",
    ),
    "a fault": (
        TOTAL,
        TOTAL + "            nothing\n",
        "it cannot be recorded; name 'nothing' is not defined",
    ),
    "moved before": (
        "            backward(loss)\n",
        (
            "            for w, (m, v) in zip(weights, moments):\n"
            "                adam(w, m, v, step + 1, lr)\n"
            "            backward(loss)\n"
        ),
        "its train goes back after it has moved a weight",
    ),
}


@pytest.mark.parametrize("name", REFUSED_TRAINS)
def test_a_train_is_refused_with_its_reason(name: str) -> None:
    old, new, sentence = REFUSED_TRAINS[name]
    with refused(sentence, whole=False):
        rehearsed(edited((old, new)))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            LOSS,
            LOSS.replace("/ batch", "/ (step + 1)"),
            "its train weighs some losses more than others",
        ),
        (
            "        for i in range(step * batch, (step + 1) * batch):",
            "        for i in range(step * batch, (step + 1) * batch + step):",
            "its train reads more documents in some steps than in others",
        ),
    ],
)
def test_a_later_step_that_is_unlike_the_first(old: str, new: str, sentence: str) -> None:
    told = rehearsed(edited((old, new)))
    assert len(told.take(2).numbers) == 1
    with refused(sentence):
        told.take(1)


def test_an_encode_that_gives_no_numbers_of_tokens() -> None:
    source = edited(
        ('for char in "\\n" + text + "\\n"]', 'for char in "\\n" + text + "\\n"] + [99]')
    )
    source = source.replace(RATE, "lr")
    with refused("its encode gives something other than numbers of tokens"):
        rehearsed(source)


def test_an_update_needs_its_function() -> None:
    made, _, _ = recorder(ORIGINAL)
    with refused("it has no function sgd"):
        record_update(made, "sgd", ())


# ---- Sentences ----


def test_reasons_end_a_sentence() -> None:
    """Each completes "This edit runs on the reference engine: ...": no capital, no full stop."""
    folder = Path(__file__).parent.parent / "microgpt" / "engines"
    seen = 0
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id not in ("LeavesContract", "refusal") or not node.args:
                continue
            reason = node.args[0]
            values = reason.values if isinstance(reason, ast.JoinedStr) else [reason]
            said = "".join(v.value if isinstance(v, ast.Constant) else "..." for v in values)
            if said != "...":
                seen += 1
                assert said[0].islower() or said.startswith("..."), said
                assert not said.endswith(".") or said.endswith("..."), said
    assert seen > 60


def test_what_is_edited_is_told_by_its_text_not_its_layout() -> None:
    spaced = ORIGINAL.replace("def flip(a): return", "def flip(a):\n    # a remark\n    return")
    assert spaced != ORIGINAL
    assert unedited(spaced, "flip", "train") is None
    assert unedited(edited((RATE, "lr")), "flip", "train") == "train"
    assert unedited("def flip(", "flip") == "flip"

"""What the tests of the engines share: the kernel, edits, and programs made at random."""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from microgpt import source as file
from microgpt.data import Corpus
from microgpt.engines import kernel
from microgpt.engines.fast import Fast, State
from microgpt.engines.kernel import Kernel
from microgpt.engines.rehearse import Course, Rehearsal, Schedule, plain
from microgpt.errors import LeavesContract
from microgpt.run import Run
from microgpt.source import ORIGINAL

Matrix = list[list[float]]


@cache
def library(double: bool = False) -> Kernel:
    """The kernel of this machine, with 4 bytes a number or with 8; the test is skipped where there
    is none, except where there must be one."""
    name = kernel.filename()
    if name is None:
        pytest.skip("the kernel is not built for this system")
    stem, dot, end = name.partition(".")
    path = kernel.FOLDER / f"{stem}{'-double' if double else ''}{dot}{end}"
    try:
        return Kernel(path)
    except OSError as error:
        reason = f"there is no kernel {path.name}: {error}"
    if "CI" in os.environ or os.environ.get("MICROGPT_KERNEL") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def refused(sentence: str, whole: bool = True) -> Any:
    """What is run in it must be refused with this reason, or with one that begins so."""
    end = r"( \(line \d+\))?$" if whole else ""
    return pytest.raises(LeavesContract, match=f"^{re.escape(sentence)}{end}")


# ---- Edits of the file ----


def edited(*pairs: tuple[str, str]) -> str:
    """The file with some of its words replaced; each must be in it exactly once."""
    text = ORIGINAL
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def redefined(**functions: str) -> str:
    """The file with some of its functions written anew."""
    lines = ORIGINAL.splitlines()
    for function in reversed(file.functions(ORIGINAL)):
        if function.name in functions:
            lines[function.first - 1 : function.last] = functions[function.name].splitlines()
    return "\n".join(lines) + "\n"


# ---- Programs at random ----

VOCAB = 5
T = "T"  # as many as the document has tokens
Size = int | str


@dataclass
class Value:
    """A tensor of a program: its name, its shape, and how large its cells may become."""

    name: str
    rows: Size
    columns: Size
    bound: float


@dataclass
class Writer:
    """Writes the lines of two functions, `gpt` and `cross_entropy`, by choices that `draw` makes.

    Every operation is one line. What it makes stays tame: where cells could become large, they are
    made smaller; where a slope jumps, the cells are moved away from there.
    """

    choose: Callable[[Sequence[Any]], Any]
    context: int
    weights: list[tuple[str, int, int]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    count: int = 0

    def add(self, text: str, rows: Size, columns: Size, bound: float) -> Value:
        self.count += 1
        name = f"x{self.count}"
        self.lines.append(f"    {name} = {text}")
        if bound > 12:
            self.lines.append(f"    {name} = {name} * {1 / bound!r}")
            bound = 1.0
        made = Value(name, rows, columns, bound)
        self.values.append(made)
        return made

    def pick(self, test: Callable[[Value], bool] = lambda value: True) -> Value | None:
        fitting = [value for value in self.values if test(value)]
        recent = fitting[-3:]
        return self.choose([*fitting, *recent, *recent]) if fitting else None

    def size(self, size: Size) -> int:
        return self.context if size == T else int(size)

    # ---- Operations; each gives up silently where nothing fits ----

    def cells(self) -> None:
        x = self.pick()
        assert x is not None
        y = self.pick(
            lambda v: all(
                a == b or 1 in (a, b) for a, b in ((v.rows, x.rows), (v.columns, x.columns))
            )
        )
        assert y is not None
        rows = y.rows if x.rows == 1 else x.rows
        columns = y.columns if x.columns == 1 else x.columns
        a, b = x.bound, y.bound
        text, bound = self.choose(
            [
                ("{x} + {y}", a + b),
                ("{x} + {y}", a + b),
                ("{x} - {y}", a + b),
                ("{x} * {y}", a * b),
                ("{x} * {y}", a * b),
                ("{x} / ({y} * {y} + 1)", a),
                ("{x}.cellwise(lambda a, b: (a * b + a, b + 1, a), {y})", a * b + a),
                ("{x}.cellwise(lambda a, b: (a - b, 2.0, b), {y})", a + b),  # not its slopes
                (
                    "{x}.cellwise(lambda a, b: (a if a > b + 0.0123 else b * 2,"
                    " a > b + 0.0123, 2.0 * (a <= b + 0.0123)), {y})",
                    a + 2 * b,
                ),
                ("{x}.cellwise(lambda a, b: (max(a, b) - min(a, b, 0.3), a, b), {y})", a + b),
            ]
        )
        self.add(text.format(x=x.name, y=y.name), rows, columns, bound)

    def cell(self) -> None:
        x = self.pick()
        assert x is not None
        b = x.bound
        text, bound = self.choose(
            [
                ("{x} + 0.5", b + 0.5),
                ("2 * {x}", 2 * b),
                ("{x} * -1", b),
                ("{x} / 3", b),
                ("{x} - {x}.amax(-1, keepdim=True)", 2 * b),
                ("({x} * 0.2).exp()", 12.0 if b > 12 else 2.8 ** (b / 5)),
                ("({x} * {x} + 0.5).log()", b + 1),
                ("({x} + 0.0123).relu()", b + 0.1),
                ("{x} ** 2", b * b),
                ("({x} * {x} + 0.5) ** {p}", (b * b + 0.5) ** 3 + 2),
                ("{x} ** 3", b**3),
                ("{x}.cellwise(lambda a: (math.tanh(a), 1 - math.tanh(a) ** 2))", 1.0),
                ("{x}.cellwise(lambda a: (abs(a) + math.exp(-a * a), a - 0.3))", b + 1),
                ("{x}.cellwise(lambda a: (a, 0.0))", b),
                ("{x} * {x}.shape[-2] ** -0.5", b),
                ("{x} / {x}.shape[-1]", b),
                ("{x} * math.log({x}.shape[-2] + 1.5)", b * 4),
                ("{x} + {x}.new_full({x}.shape, 0.7)", b + 1),
                ("{x} + 1 / len(ids)", b + 1),
            ]
        )
        power = self.choose([-2, -1.5, -1, -0.5, 0.3, 0.5, 1, 1.5, 2, 3])
        if "len(ids)" in text and not self.has_ids:
            return
        self.add(text.format(x=x.name, p=power), x.rows, x.columns, bound)

    has_ids = True

    def product(self) -> None:
        x = self.pick()
        assert x is not None
        y = self.pick(lambda v: v.rows == x.columns)
        if y is not None:
            bound = x.bound * y.bound * self.size(x.columns)
            self.add(f"{x.name} @ {y.name}", x.rows, y.columns, bound)

    def flipped_product(self) -> None:
        x = self.pick()
        assert x is not None
        y = self.pick(lambda v: v.columns == x.columns)
        assert y is not None
        bound = x.bound * y.bound * self.size(x.columns)
        self.add(f"{x.name} @ {y.name}.transpose(-2, -1)", x.rows, y.rows, bound)

    def residual(self) -> None:
        x = self.pick()
        assert x is not None
        y = self.pick(lambda v: v.rows == x.columns and v.columns == x.columns)
        if y is not None:
            bound = x.bound * (1 + y.bound * self.size(x.columns))
            self.add(f"{x.name} + {x.name} @ {y.name}", x.rows, x.columns, bound)

    def side_by_side(self) -> None:
        """One matrix times several weights, and the results times others, all added up."""
        x = self.pick(lambda v: v.rows == T and v.columns != T)
        if x is None:
            return
        weights = [v for v in self.values if v.rows == x.columns and v.name[0] == "w"]
        made = []
        for w in weights:
            if self.choose([True, True, False]):
                bound = x.bound * w.bound * self.size(x.columns)
                made.append(self.add(f"{x.name} @ {w.name}", T, w.columns, bound))
        text, bound = x.name, x.bound
        for y in made:
            back = [v for v in self.values if (v.rows, v.columns) == (y.columns, x.columns)]
            if back:
                text += f" + {y.name} @ {self.choose(back).name}"
                bound += 12 * 12 * self.size(y.columns)
        if self.choose([True, False]):
            self.add(text, T, x.columns, bound)

    def transpose(self) -> None:
        x = self.pick()
        assert x is not None
        self.add(f"{x.name}.transpose(-2, -1)", x.columns, x.rows, x.bound)

    def along(self) -> None:
        x = self.pick()
        assert x is not None
        if self.choose([0, 1, 2]):
            bound = x.bound * self.size(x.columns)
            self.add(f"{x.name}.sum(-1, keepdim=True)", x.rows, 1, bound)
        else:
            self.add(f"{x.name}.amax(-1, keepdim=True)", x.rows, 1, x.bound)

    def triangle(self) -> None:
        x = self.pick(
            lambda v: (
                v.rows == v.columns
                or v.rows == 1
                or (type(v.rows) is int and type(v.columns) is int and v.rows < v.columns)
            )
        )
        if x is not None:
            k = self.choose([0, 1]) if x.columns != 1 else 0
            self.add(f"{x.name}.triu({k})", x.rows, x.columns, x.bound)

    def rows(self) -> None:
        x = self.pick()
        assert x is not None
        if x.rows == T:
            cut, rows = self.choose([("-1:", 1), (":1", 1), (":", T)])
        else:
            end = self.choose(range(1, int(x.rows) + 1))
            first = self.choose(range(end))
            cut, rows = f"{first}:{end}", end - first
        self.add(f"{x.name}[{cut}]", rows, x.columns, x.bound)

    def chosen(self) -> None:
        x = self.pick(lambda v: type(v.rows) is int)
        if x is not None:
            ids = [self.choose(range(int(x.rows))) for _ in range(self.choose([1, 2, 4]))]
            self.add(f"{x.name}[{ids}]", len(ids), x.columns, x.bound)

    def tokens(self) -> None:
        x = self.pick(lambda v: v.rows == VOCAB)
        if x is None or not self.has_ids:
            return
        ids, rows = self.choose(
            [
                ("ids", T),
                ("ids", T),
                ("ids[::-1]", T),
                ("[ids[i // 2] for i in range(len(ids))]", T),
                ("ids[-1:]", 1),
                ("[ids[0], ids[-1]]", 2),
            ]
        )
        self.add(f"{x.name}[{ids}]", rows, x.columns, x.bound)

    def positions(self) -> None:
        x = self.pick(lambda v: type(v.rows) is int and int(v.rows) >= self.context)
        y = self.pick(lambda v: v.rows == T)
        if x is not None and y is not None:
            cut = self.choose([f": {y.name}.shape[-2]", f"-{y.name}.shape[-2] :"])
            self.add(f"{x.name}[{cut}]", T, x.columns, x.bound)

    def numbers(self) -> None:
        x = self.pick()
        assert x is not None
        text = self.choose(
            [
                "math.cos(i + 2 * j)",
                "(i - j) / (i + j + {t})",
                "0.3 if i > j else 0.0",
                "0.25",
            ]
        ).format(t=f"{x.name}.shape[-2]")
        rows, columns = f"range({x.name}.shape[-2])", f"range({x.name}.shape[-1])"
        constant = f"Tensor([[{text} for j in {columns}] for i in {rows}])"
        how = self.choose([("{x} + {c}"), ("{x} * {c}"), ("{c}")])
        self.add(how.format(x=x.name, c=constant), x.rows, x.columns, x.bound + 1)

    def larger(self) -> None:
        x = self.pick()
        assert x is not None
        text = self.choose(["softmax({x})", "norm({x})", "{x} * ({x} * {x} + 1) ** -0.5"])
        self.add(text.format(x=x.name), x.rows, x.columns, 1.0 if "norm" not in text else 4.0)

    def attend(self) -> None:
        q = self.pick(lambda v: v.rows == T and v.columns != T)
        if q is None:
            return
        k = self.pick(lambda v: v.rows == T and v.columns == q.columns)
        v = self.pick(lambda v: v.rows == T and v.columns != T)
        assert k is not None and v is not None
        scale = self.choose(["", " * 0.7", f" * {q.name}.shape[-1] ** -0.5"])
        mask = self.choose(
            [
                "",
                " + {s}.new_full({s}.shape, -math.inf).triu(1)",
                " + Tensor([[0.2 * (j - i) for j in range({s}.shape[-1])]"
                " for i in range({s}.shape[-2])])",
            ]
        )
        bound = q.bound * k.bound * self.size(q.columns)
        s = self.add(f"{q.name} @ {k.name}.transpose(-2, -1){scale}", T, T, min(bound, 12.0))
        text = f"softmax({s.name}{mask.format(s=s.name)})"
        if self.choose([True, False]):
            self.values.remove(s)
        self.add(f"{text} @ {v.name}", T, v.columns, v.bound)

    def write(self, count: int) -> None:
        operations = [
            self.cells, self.cells, self.cells, self.cell, self.cell, self.product, self.product,
            self.flipped_product, self.residual, self.side_by_side, self.side_by_side,
            self.transpose, self.along, self.along, self.triangle, self.rows, self.chosen,
            self.tokens, self.tokens, self.positions, self.numbers, self.larger, self.larger,
            self.attend,
        ]  # fmt: skip
        for _ in range(count):
            self.choose(operations)()

    def read(self) -> set[str]:
        """The names of all that some later line reads."""
        lines = [line.split(" = ", 1) for line in self.lines]
        return {
            name for made, text in lines for name in re.findall(r"\b[xw]\d+", text)
            if name != made.strip()
        }  # fmt: skip

    def reduced(self, value: Value) -> str:
        """A value as one number."""
        text = value.name
        if self.choose([True, False, False]):
            text = f"({text} * {text})"
        if value.columns != 1:
            text += ".sum(-1, keepdim=True)"
        if value.rows != 1:
            text += ".transpose(-2, -1).sum(-1, keepdim=True)"
        return text


SGD = """def adam(w, m, v, step, lr):
    for i, grad in enumerate(w.grad):
        w.data[i] = [a - lr * g for a, g in zip(w.data[i], grad)]
    w.grad = []
"""


def program(choose: Callable[[Sequence[Any]], Any], context: int, length: int) -> str:
    """An edit of the file whose model, loss and optimiser are another's.

    Args:
        choose: one of several, at random.
        context: the most tokens.
        length: how many operations.
    """
    widths = [1, 2, 3, 4, 5, 7, 16, 17, 33]
    c, d = choose(widths), choose(widths)
    writer = Writer(choose, context)
    shapes = [(VOCAB, c), (context, c), (c, c), (c, d), (1, c), (c, 1), (1, 1), (d, c)]
    shapes.append((VOCAB, d))
    for n in range(choose([1, 2, 3, 4, 5, 6])):
        rows, columns = (VOCAB, c) if n == 0 else choose(shapes)
        writer.weights.append((f"w{n}", rows, columns))
        writer.values.append(Value(f"w{n}", rows, columns, 1.0))
    writer.add("w0[ids]", T, c, 1.0)
    writer.write(length)
    names = ", ".join(name for name, _, _ in writer.weights)
    result = writer.values[-1]
    parts = [
        writer.reduced(value)
        for value in writer.values[:-1]
        if value.name not in writer.read() and choose([True, True, False])
    ]
    total = " + ".join([result.name, *parts])
    model = [f"def gpt(ids, {names}):", *writer.lines, f"    return {total}"]
    loss = Writer(choose, context, values=[Value("logits", result.rows, result.columns, 12.0)])
    loss.has_ids = False
    loss.count = 100
    loss.values.append(Value("targets", T, VOCAB, 1.0))
    loss.write(choose([0, 1, 2, 3]))
    ends = [value for value in loss.values[2:] if choose([True, False])]
    ends = [loss.values[0], *ends] if not ends or choose([True, False]) else ends
    total = " + ".join(loss.reduced(value) for value in ends)
    surprise = ["def cross_entropy(logits, targets):", *loss.lines, f"    return {total}"]
    made = ", ".join(f"{n}=new({r}, {k})" for n, r, k in writer.weights)
    init = [
        "def init(rng, vocab_size):",
        "    new = lambda m, n: Tensor([[rng.uniform(-1, 1) for _ in range(n)] for _ in range(m)])",
        f"    return dict({made})",
    ]
    texts = {"gpt": model, "cross_entropy": surprise, "init": init, "adam": SGD.splitlines()}
    return redefined(**{name: "\n".join(lines) + "\n" for name, lines in texts.items()})


# ---- The file and the kernel, side by side ----


def loss_and_gradients(
    space: dict[str, Any],
    params: Any,
    documents: Sequence[tuple[int, ...]],
    scale: float,
    vocab: int = VOCAB,
) -> tuple[float, list[Matrix]]:
    """The loss of documents, each times `scale`, and its gradient in every weight, by the source's
    own tensors."""
    weights, total = space["leaves"](params), 0.0
    for w in weights:
        w.grad = []
    for ids in documents:
        targets = space["Tensor"]([[float(j == t) for j in range(vocab)] for t in ids[1:]])
        loss = space["cross_entropy"](space["gpt"](list(ids[:-1]), **params), targets) * scale
        space["backward"](loss)
        total += loss.data[0][0]
    gradients = [w.grad or [[0.0] * w.shape[1]] * w.shape[0] for w in weights]
    for w in weights:
        w.grad = []
    return total, gradients


def some_documents(rng: random.Random, count: int, context: int) -> list[tuple[int, ...]]:
    """Documents of 1 to `context` tokens, and the one after."""
    return [
        tuple(rng.randrange(VOCAB) for _ in range(rng.randint(1, context) + 1))
        for _ in range(count)
    ]


def copied(weights: Sequence[Any]) -> list[Matrix]:
    """The numbers of tensors."""
    return [[row[:] for row in w.data] for w in weights]


def apart(a: Sequence[Matrix], b: Sequence[Matrix]) -> float:
    """How far apart two lists of matrices are: the largest difference of two cells."""
    assert [(len(m), len(m[0])) for m in a] == [(len(m), len(m[0])) for m in b]
    pairs = [(p, q) for m, n in zip(a, b) for r, s in zip(m, n) for p, q in zip(r, s)]
    return max(abs(p - q) if p == p and q == q else math.inf for p, q in pairs)


def largest(matrices: Sequence[Matrix]) -> float:
    """The largest size of a cell."""
    return max(abs(x) for m in matrices for row in m for x in row)


def course(
    run: Run, ids: Callable[[str], tuple[int, ...]], docs: Sequence[str] | None = None
) -> Course:
    """What the training steps of a run are, from the first on."""
    docs = run.train_docs if docs is None else docs
    if plain(run.source):
        assert run.steps is not None and run.batch is not None and run.lr is not None
        return Schedule(docs, ids, run.batch, run.steps, run.lr)
    given = {"steps": run.steps, "batch": run.batch, "lr": run.lr}
    return Rehearsal(
        run.source,
        run.params,
        run.namespace["leaves"](run.params),
        docs,
        run.vocab,
        {name: number for name, number in given.items() if number is not None},
        run.moments is not None,
    )


def compiled(run: Run, double: bool = True) -> Fast:
    """The program of a run."""
    kernel = library(double)
    assert run.context is not None
    first = course(run, lambda doc: ())
    return Fast(
        run.source, run.namespace, run.params, run.vocab, run.context, first, kernel, double
    )  # fmt: skip


class Work:
    """What some runs of a source do in some steps, by the file; and the same by the kernel.

    Attributes:
        runs: whose seeds are 0, 1, ...; the first is measured and samples.
        start: the first weights of each.
        documents, loss, gradients: of the first step of the first run.
        losses: of each step and run.
        held_out, samples: after the steps.
    """

    STEPS, HELD_OUT, TEXTS, TEMPERATURE = 3, 6, 2, 0.9

    def __init__(self, source: str, corpus: Corpus, count: int = 2, **options: Any) -> None:
        self.runs = [
            Run(source, corpus, seed=seed, steps=50, **options) for seed in range(count)
        ]  # fmt: skip
        run = self.runs[0]
        self.docs = [list(r.train_docs) for r in self.runs]  # as they are before train has them
        self.start = [copied(r.namespace["leaves"](r.params)) for r in self.runs]
        first = course(run, self._ids)
        self.documents = first.take(1).documents
        self.loss, self.gradients = loss_and_gradients(
            run.namespace, run.params, self.documents, first.scale, len(run.vocab)
        )
        self.losses = [[r.advance() for r in self.runs] for _ in range(self.STEPS)]
        self.held_out = run.held_out_loss(self.HELD_OUT)
        self.samples = run.sample(self.TEXTS, temperature=self.TEMPERATURE)

    def _ids(self, doc: str) -> tuple[int, ...]:
        run = self.runs[0]
        assert run.context is not None
        return tuple(run.namespace["encode"](doc, run.vocab)[: run.context + 1])

    def states(self, double: bool) -> Iterator[tuple[str, State, list[list[float]], Any]]:
        """By one thread, by two, and in lanes: a name, the state after training, the losses, and
        what the kernel says of the first step."""
        fast = compiled(self.runs[0], double)
        lanes = len(self.runs) if fast.training.laned else 1
        for name, count, threads in (("alone", 1, 1), ("threads", 1, 2), ("lanes", lanes, 1)):
            state = fast.open(count, threads)
            for i, weights in enumerate(self.start[:count]):
                state.load(i, weights, None)
            first = state.gradients(self.documents)
            courses = [
                course(run, fast.ids, docs) for run, docs in zip(self.runs[:count], self.docs)
            ]
            yield name, state, state.train(courses, self.STEPS), first

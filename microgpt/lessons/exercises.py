"""The exercises of the walk, checked by running them.

An answer is judged by what it does: the reader's program is executed over a small model, and its
shapes, sums, dependencies and gradients are looked at. Its text is never compared with a solution,
so any right answer passes. Only the standard library is needed; this runs in the page.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from microgpt import source as file
from microgpt.errors import MicrogptError
from microgpt.lessons.instruments import one_step, relative
from microgpt.run import HELD_OUT, Run

Plain = dict[str, Any]
Rows = list[list[float]]

DOCS = ["abc", "cad", "fee", "bead", "deaf"]  # of the small model: their letters are its tokens
WIDE, LONG = 8, 8  # its channels and its context
SIZES = {"n_layer": 1, "n_head": 2, "n_embd": WIDE, "block_size": LONG, "std": 0.5}
NEAR = 1e-9  # two results of the same arithmetic in another order are nearer than this
STEPS = 1000  # of a training whose step sizes are watched
WARM = 100  # its first steps, over which they grow


@dataclass(frozen=True)
class Result:
    """One thing that was looked at: whether it is right, in words, and where to look if not."""

    ok: bool
    message: str
    line: int | None = None


class Subject:
    """The reader's program, and a small model of it whose weights are all different.

    Raises:
        MicrogptError: the program cannot be run, or cannot make a model.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.names = file.execute(source)
        self.vocab: list[str] = self.names["vocabulary"](DOCS)
        self.params = self._made()

    def _made(self) -> Any:
        params = self.names["init"](random.Random(0), len(self.vocab), **SIZES)
        chance = random.Random(1)
        for weight in self.names["leaves"](params):
            weight.data = [[chance.gauss(0, 0.5) for _ in row] for row in weight.data]
        return params

    def line(self, function: str) -> int | None:
        """The line of the reader's program on which a function begins."""
        found = next((f for f in file.functions(self.source) if f.name == function), None)
        return found.first if found else None

    def tensor(self, rows: Rows) -> Any:
        """A tensor of the reader's program."""
        return self.names["Tensor"]([list(map(float, row)) for row in rows])

    def logits(self, ids: list[int]) -> Rows:
        """What the reader's model says of each next token."""
        rows: Rows = self.names["gpt"](ids, **self.params).data
        return rows

    def step(self, doc: str) -> tuple[float, list[Rows]]:
        """The loss of one training step of the reader's program, and all its gradients."""
        return one_step(self.names, self.params, self.vocab, doc)


@dataclass(frozen=True)
class Exercise:
    """Something to do with the file.

    Attributes:
        id: its name.
        how: `line` (choose it), `edit` (change the file) or `mend` (find the bug in it).
        places: functions of the file, or classes, that it is about.
        answers: for a line, the right ones, as (scope, exact text).
        bug: for `mend`, a text of the file and what is planted in its place.
        change: for the others, texts of the file and what one solution has in their place.
        check: looks at the reader's program.
    """

    id: str
    how: Literal["edit", "line", "mend"]
    places: tuple[str, ...]
    answers: tuple[tuple[str, str], ...] = ()
    bug: tuple[str, str] | None = None
    change: tuple[tuple[str, str], ...] = ()
    check: Callable[[Subject], Iterator[Result]] | None = None

    @property
    def truth(self) -> list[int]:
        """The right lines, for an exercise in which one is chosen."""
        return [file.anchor(file.ORIGINAL, scope, text) for scope, text in self.answers]

    @property
    def focus(self) -> list[int]:
        """The lines that may be looked at first, ascending."""
        spans = {f.name: range(f.first, f.last + 1) for f in file.functions(file.ORIGINAL)}
        return sorted({line for place in self.places for line in spans[place]})

    @property
    def start(self) -> str | None:
        """The program with the bug in it; None where the file itself is where to start."""
        return _replaced(file.ORIGINAL, (self.bug,)) if self.bug else None

    @property
    def solved(self) -> str:
        """The program with one solution."""
        return _replaced(file.ORIGINAL, self.change)

    @property
    def solution(self) -> str:
        """A unified diff from the start to one solution; empty where a line is chosen."""
        return file.diff(self.start or file.ORIGINAL, self.solved)


def _replaced(source: str, changes: tuple[tuple[str, str], ...]) -> str:
    for old, new in changes:
        if source.count(old) != 1:
            raise MicrogptError(f"An exercise changes a text that the file has not once: {old}")
        source = source.replace(old, new)
    return source


def check(name: str, source: str) -> Plain:
    """What a check of an exercise finds in the reader's program.

    Returns:
        `done`, and `results`: each with `ok`, `message` and the `line` to look at or None.

    Raises:
        MicrogptError: there is no such exercise, or it is one in which a line is chosen.
    """
    if name not in EXERCISES:
        raise MicrogptError(
            f"There is no exercise called {name!r}; there are: {', '.join(EXERCISES)}."
        )
    exercise = EXERCISES[name]
    if exercise.check is None:
        raise MicrogptError(f"In the exercise {name} a line is chosen, so there is no edit to run.")
    results: list[Result] = []
    try:
        results.extend(exercise.check(Subject(source)))
    except (Exception, SystemExit) as error:  # whatever the reader's program does is an answer
        results.append(_failure(error, source))
    done = bool(results) and all(result.ok for result in results)
    return {"done": done, "results": [vars(result) for result in results]}


def _failure(error: BaseException, source: str) -> Result:
    told = file.explain(error, source)
    return Result(False, told.message, told.line)


# ---- Looking at rows of numbers ----


def _apart(a: Rows, b: Rows) -> float:
    """The largest difference between two matrices; infinite where their shapes differ."""
    if [len(row) for row in a] != [len(row) for row in b]:
        return math.inf
    return max((abs(x - y) for p, q in zip(a, b) for x, y in zip(p, q)), default=0.0)


def _finite(rows: Rows) -> bool:
    return all(math.isfinite(x) for row in rows for x in row)


def _times(a: Rows, b: Rows) -> Rows:
    columns = list(zip(*b))
    return [[math.fsum(x * y for x, y in zip(row, column)) for column in columns] for row in a]


def _random(rows: int, columns: int, seed: int) -> Rows:
    chance = random.Random(seed)
    return [[chance.gauss(0, 1) for _ in range(columns)] for _ in range(rows)]


def _shape(rows: Rows) -> str:
    return f"({len(rows)}, {len(rows[0])})"


def _cells(values: list[float]) -> str:
    return ", ".join(f"{x:.3g}" for x in values[:4])


def _trains(subject: Subject) -> Result:
    loss, _ = subject.step("bead")
    ok = math.isfinite(loss)
    return Result(ok, "It still trains." if ok else f"In training its loss becomes {loss}.")


def _gradients(subject: Subject, line: int | None) -> Result:
    """Gradients by the reader's `backward` against the loss recomputed with a weight nudged."""
    by, chance = 1e-5, random.Random(2)
    _, gradients = subject.step("bead")
    paths = dict(_paths(subject.params))
    for number, weight in enumerate(subject.names["leaves"](subject.params)):
        for _ in range(2):
            row, column = chance.randrange(weight.shape[0]), chance.randrange(weight.shape[1])
            value, ends = weight.data[row][column], []
            for moved in (value + by, value - by):
                weight.data[row][column] = moved
                ends.append(subject.step("bead")[0])
            weight.data[row][column] = value
            measured = (ends[0] - ends[1]) / (2 * by)
            gradient = gradients[number][row][column]
            if abs(gradient - measured) > 1e-7 and relative(gradient, measured) > 1e-4:
                name = paths.get(id(weight), f"weight {number}")
                return Result(
                    False,
                    f"The way back is wrong: backward gives {name}[{row}][{column}] the gradient "
                    f"{gradient:.4g}, and when it is really nudged, the loss moves by "
                    f"{measured:.4g} times the nudge.",
                    line,
                )
    return Result(True, "Every gradient agrees with a nudge of its weight.")


def _paths(tree: Any, path: str = "") -> Iterator[tuple[int, str]]:
    if isinstance(tree, dict | list | tuple):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, branch in pairs:
            yield from _paths(branch, f"{path}.{key}" if path else str(key))
    else:
        yield id(tree), path


# ---- Checks ----


def _mend_gradient(subject: Subject) -> Iterator[Result]:
    original = Subject(file.ORIGINAL)
    apart = _apart(subject.logits([0, 1, 2, 3]), original.logits([0, 1, 2, 3]))
    ok = apart < NEAR
    yield Result(
        ok,
        "The values are those of the file."
        if ok
        else "The program now calculates other values: mend only the way back.",
    )
    yield _gradients(subject, None)


def _no_positions(subject: Subject) -> Iterator[Result]:
    line = subject.line("gpt")
    here = subject.logits([0, 1, 2, 3])
    ok = _apart(here[-1:], subject.logits([0, 2, 1, 3])[-1:]) < NEAR
    yield Result(
        ok,
        "Two earlier tokens may change places, and the guess stays the same."
        if ok
        else "When two earlier tokens change places, the guess changes: the model still knows "
        "where they stand.",
        None if ok else line,
    )
    ok = _apart(here[-1:], subject.logits([0, 1, 4, 3])[-1:]) > 1e-6
    yield Result(
        ok,
        "The guess still depends on the earlier tokens."
        if ok
        else "The guess no longer depends on which tokens came before: only their places "
        "should be unknown.",
        None if ok else line,
    )
    ok = _apart(here[-1:], subject.logits([0, 1, 2, 4])[-1:]) > 1e-6
    yield Result(
        ok,
        "It depends on the last token."
        if ok
        else "The guess no longer depends on the last token: each must still bring its row of wte.",
        None if ok else line,
    )
    ok = _apart(here[:-1], subject.logits([0, 1, 2, 4])[:-1]) < NEAR
    yield Result(
        ok,
        "No token sees the future."
        if ok
        else "An earlier guess changes with a later token: the future must stay hidden.",
        None if ok else line,
    )
    original = Subject(file.ORIGINAL)
    for one in (subject, original):
        one.params["wpe"].data = [[0.0 for _ in row] for row in one.params["wpe"].data]
    ok = _apart(subject.logits([0, 1, 2, 3]), original.logits([0, 1, 2, 3])) < NEAR
    yield Result(
        ok,
        "All else is as it was."
        if ok
        else "Something else has changed too: with an empty table of positions, the file "
        "and your program should agree.",
        None if ok else line,
    )
    yield _trains(subject)


def _uniform_attention(subject: Subject) -> Iterator[Result]:
    line = subject.line("attention")
    head = subject.params["blocks"][0]["heads"][0]
    x = _random(5, WIDE, 3)

    def read(rows: Rows, **other: Any) -> Rows:
        out: Rows = subject.names["attention"](subject.tensor(rows), **{**head, **other}).data
        return out

    out = read(x)
    if [len(row) for row in out] != [len(x[0])] * len(x):
        yield Result(False, f"attention should return {_shape(x)}, and gives {_shape(out)}.", line)
        return
    if not _finite(out):
        yield Result(
            False,
            "The result is not a number: minus infinity times zero is none, nor is a share of "
            "nothing. Each token may read itself at least.",
            line,
        )
        return
    later = read([*x[:-1], [y + 1 for y in x[-1]]])
    ok = _apart(out[:-1], later[:-1]) < NEAR
    yield Result(
        ok,
        "No token reads the future."
        if ok
        else "A change of the last token reaches earlier ones: they read the future.",
        None if ok else line,
    )
    other = {
        name: subject.tensor(_random(len(head[name].data), len(head[name].data[0]), 4))
        for name in ("wq", "wk")
    }
    ok = _apart(out, read(x, **other)) < NEAR
    yield Result(
        ok,
        "The shares no longer depend on queries and keys."
        if ok
        else "With other queries and keys the result changes, so the shares are not equal.",
        None if ok else line,
    )
    values = _times(x, head["wv"].data)
    means = [[math.fsum(c) / (i + 1) for c in zip(*values[: i + 1])] for i in range(len(values))]
    expected = _times(means, head["wo"].data)
    off = [_apart([row], [wanted]) > 1e-6 for row, wanted in zip(out, expected)]
    ok, wrong = not any(off), off.index(True) if any(off) else 0
    yield Result(
        ok,
        "Each token gets the mean of what it may read."
        if ok
        else f"Token {wrong + 1} may read {wrong + 1} tokens, itself included, and does not get "
        "their mean.",
        None if ok else line,
    )
    yield _trains(subject)


def _squared_relu(subject: Subject) -> Iterator[Result]:
    line = subject.line("mlp")
    block = subject.params["blocks"][0]
    x = _random(4, WIDE, 5)
    inner = _times(x, block["fc"].data)
    out: Rows = subject.names["mlp"](subject.tensor(x), block["fc"], block["proj"]).data

    def through(f: Callable[[float], float]) -> Rows:
        return _times([[f(cell) for cell in row] for row in inner], block["proj"].data)

    ok = _apart(out, through(lambda a: max(a, 0.0) ** 2)) < NEAR
    if ok:
        yield Result(True, "Each hidden cell is the square of what relu gives.")
    elif _apart(out, through(lambda a: max(a, 0.0))) < NEAR:
        yield Result(False, "The hidden cells are still what relu gives, not its square.", line)
    elif _apart(out, through(lambda a: a * a)) < NEAR:
        yield Result(
            False, "A negative cell must stay zero: square what relu gives, not what it is given.",
            line,
        )  # fmt: skip
    else:
        yield Result(
            False,
            "mlp does not give what squared hidden cells would: only the line with relu changes.",
            line,
        )
    if ok:
        yield _gradients(subject, line)


def _layer_norm(subject: Subject) -> Iterator[Result]:
    line = subject.line("norm")
    x = [[3 * cell + 2 for cell in row] for row in _random(4, WIDE, 6)]
    out: Rows = subject.names["norm"](subject.tensor(x)).data
    if [len(row) for row in out] != [len(row) for row in x]:
        yield Result(False, f"norm should return {_shape(x)}, and gives {_shape(out)}.", line)
        return
    means = [math.fsum(row) / len(row) for row in out]
    ok = max(map(abs, means)) < 1e-6
    yield Result(
        ok,
        "Every row has the mean zero."
        if ok
        else f"The rows should have the mean zero; theirs are {_cells(means)}.",
        None if ok else line,
    )
    squares = [math.fsum(c * c for c in row) / len(row) for row in out]
    ok = all(abs(square - 1) < 1e-3 for square in squares)
    yield Result(
        ok,
        "Every row has the mean square one."
        if ok
        else f"The rows should have the mean square one; theirs are {_cells(squares)}. Take it of "
        "the difference, not of x.",
        None if ok else line,
    )
    expected = []
    for row in x:
        mean = math.fsum(row) / len(row)
        size = math.sqrt(math.fsum((c - mean) ** 2 for c in row) / len(row))
        expected.append([(c - mean) / size for c in row])
    ok = _apart(out, expected) < 1e-3
    yield Result(
        ok,
        "Apart from that, each row keeps its pattern."
        if ok
        else "A row should keep its pattern: only its mean and its size change.",
        None if ok else line,
    )
    flat: Rows = subject.names["norm"](subject.tensor([[1.0] * WIDE])).data
    if not _finite(flat):
        yield Result(False, "A row of equal numbers is divided by zero: keep what is added.", line)
    elif ok and _apart(flat, [[0.0] * WIDE]) > 1e-6:
        yield Result(False, "A row of equal numbers should become zeros.", line)
    yield _gradients(subject, line)


def _temperature_greedy(subject: Subject) -> Iterator[Result]:
    line = subject.line("sample")
    names = subject.names
    likeliest: list[str] = []
    text = ""
    while not text.endswith("\n") and len(text) < LONG:
        row = subject.logits(names["encode"](text, subject.vocab)[:-1])[-1]
        text += subject.vocab[row.index(max(row))]
        likeliest.append(text)

    def written(seed: int, temperature: float = 1.0, begun: str = "") -> list[str]:
        steps = names["sample"](
            subject.params, subject.vocab, random.Random(seed), temperature, begun
        )
        return [str(text) for _, text in zip(range(LONG + 1), steps)]

    texts = [written(seed) for seed in range(6)]
    ends = sorted({text[-1] if text else "" for text in texts})
    ok = all(text == texts[0] for text in texts)
    yield Result(
        ok,
        "It writes the same text for every seed."
        if ok
        else f"Other seeds give other texts, such as {ends[0]!r} and {ends[-1]!r}: chance still "
        "decides.",
        None if ok else line,
    )
    if not ok:
        return
    ok = texts[0] == likeliest
    yield Result(
        ok,
        "Each character is the likeliest."
        if ok
        else f"The likeliest characters would give {likeliest[-1]!r}, step by step, and it writes "
        f"{(texts[0] or [''])[-1]!r}.",
        None if ok else line,
    )
    begun = likeliest[0] if likeliest[0] != "\n" else "a"
    after = written(0, 0.5, begun)
    ok = bool(after) and after[0].startswith(begun) and len(after[0]) == len(begun) + 1
    yield Result(
        ok,
        "It still goes on from a given beginning."
        if ok
        else "Given a beginning, it must go on from there, one character at a time.",
        None if ok else line,
    )


def _sgd(subject: Subject) -> Iterator[Result]:
    line = subject.line("adam")
    rate, total, doc = 0.1, 10, "bead"
    original = Subject(file.ORIGINAL)
    steps = subject.names["train"](subject.params, [doc], subject.vocab, steps=total, lr=rate)
    earlier: list[Rows] = []
    for step in range(2):
        before = _weights(subject)
        for weight, rows in zip(original.names["leaves"](original.params), before, strict=True):
            weight.data = rows
        _, gradients = original.step(doc)
        next(steps)
        after, size = _weights(subject), rate * (1 - step / total)
        downhill = _moved(before, gradients, size)
        if _same(after, downhill):
            yield Result(True, f"Step {step + 1}: each weight moved by lr times its gradient.")
            earlier = gradients
            continue
        if _same(after, before):
            what = "The weights do not move."
        elif _same(after, _moved(before, gradients, -size)):
            what = "The weights move uphill: subtract lr times the gradient."
        elif step and _same(after, _moved(downhill, earlier, size)):
            what = "The second step used the gradient of the first as well: clear w.grad."
        else:
            what = "The weights do not move by lr times their gradient, and by that alone."
        yield Result(False, what, line)
        return


def _weights(subject: Subject) -> list[Rows]:
    return [[list(row) for row in w.data] for w in subject.names["leaves"](subject.params)]


def _moved(weights: list[Rows], gradients: list[Rows], size: float) -> list[Rows]:
    """Weights, less a multiple of gradients."""
    return [
        [[x - size * g for x, g in zip(*rows)] for rows in zip(weight, gradient)]
        for weight, gradient in zip(weights, gradients, strict=True)
    ]


def _same(a: list[Rows], b: list[Rows]) -> bool:
    return all(_apart(p, q) < NEAR for p, q in zip(a, b, strict=True))


def _warmup(subject: Subject) -> Iterator[Result]:
    line, rate = subject.line("train"), 0.01
    sizes = _step_sizes(subject, rate)
    peak = next(i for i, size in enumerate(sizes) if size > max(sizes) - NEAR)
    ok = max(sizes) <= rate * (1 + 1e-6)
    yield Result(
        ok,
        "No step is larger than lr."
        if ok
        else f"Step {peak + 1} is {max(sizes) / rate:.3g} times lr; none should be larger than it.",
        None if ok else line,
    )
    ok = WARM * 0.8 <= peak + 1 <= WARM * 1.2
    yield Result(
        ok,
        f"The largest step is near step {WARM}."
        if ok
        else f"The largest step is step {peak + 1}, and should be near step {WARM}.",
        None if ok else line,
    )
    if not ok:
        return
    grows = all(a < b + NEAR for a, b in itertools.pairwise(sizes[: peak + 1]))
    ok = grows and sizes[0] < 0.1 * sizes[peak] and sizes[peak // 2] < 0.8 * sizes[peak]
    yield Result(
        ok,
        "Until then they grow, step by step."
        if ok
        else "Before that the steps should grow bit by bit, from almost nothing: they go "
        f"{_cells([sizes[i] / rate for i in (0, peak // 3, peak // 2, peak)])} times lr.",
        None if ok else line,
    )
    falls = all(a > b - NEAR for a, b in itertools.pairwise(sizes[peak:]))
    ok = falls and 0 <= sizes[-1] < 0.1 * sizes[peak] and sizes[peak] > 0.5 * rate
    yield Result(
        ok,
        "After that they fall, to almost nothing."
        if ok
        else "After that the steps should fall until the end, from nearly lr to almost nothing.",
        None if ok else line,
    )


def _step_sizes(subject: Subject, rate: float) -> list[float]:
    """How far each step of the reader's `train` moves a weight whose gradient is always one.

    Adam moves such a weight by just the step size, wherever in the program that is decided. The
    model itself is left out: its scores are all zero.
    """
    tensor = subject.names["Tensor"]
    params = {"wte": tensor([[0.0]]), "wpe": tensor([[0.0], [0.0]])}
    width = len(subject.vocab)

    def backward(loss: Any) -> None:
        for weight in params.values():
            weight.grad = [[1.0 for _ in row] for row in weight.data]

    plain = {name: subject.names[name] for name in ("gpt", "backward")}
    subject.names["gpt"] = lambda ids, **weights: tensor([[0.0] * width for _ in ids])
    subject.names["backward"] = backward
    places = [0.0]
    try:
        steps = subject.names["train"](params, ["a"], subject.vocab, steps=STEPS, lr=rate)
        for _ in zip(range(STEPS), steps):
            places.append(params["wte"].data[0][0])
    finally:
        subject.names |= plain
    return [a - b for a, b in itertools.pairwise(places)]


# ---- The exercises ----

_ALL = (
    Exercise(
        "tokens-both-ends", "line", ("vocabulary", "encode", "train", "sample"),
        answers=((
            "encode",
            'def encode(text, vocab): return [vocab.index(char) for char in "\\n" + text + "\\n"]',
        ),),
    ),
    Exercise(
        "mend-gradient", "mend", ("Tensor",),
        bug=("(max(a, 0.0), a > 0)", "(max(a, 0.0), a < 0)"),
        check=_mend_gradient,
    ),
    Exercise(
        "no-positions", "edit", ("gpt",),
        change=((
            "    x = tokens + wpe[: tokens.shape[-2]]  "
            "# (T, C), the residual stream: only added to",
            "    x = tokens  # (T, C), the residual stream: only added to",
        ),),
        check=_no_positions,
    ),
    Exercise(
        "break-causality-line", "line", ("attention",),
        answers=((
            "attention", "future = scores.new_full(scores.shape, -math.inf).triu(1)",
        ),),
    ),
    Exercise(
        "uniform-attention", "edit", ("attention",),
        change=(("softmax(scores + future)", "softmax(scores * 0 + future)"),),
        check=_uniform_attention,
    ),
    Exercise(
        "squared-relu", "edit", ("mlp",),
        change=(("hidden = (x @ fc).relu()", "hidden = (x @ fc).relu() ** 2"),),
        check=_squared_relu,
    ),
    Exercise(
        "residual-line", "line", ("gpt",),
        answers=(("gpt", "x = x + attention(h, **head)"),),
    ),
    Exercise(
        "layer-norm", "edit", ("norm",),
        change=((
            "    mean_square = (x * x).sum",
            "    x = x - x.sum(-1, keepdim=True) / x.shape[-1]\n    mean_square = (x * x).sum",
        ),),
        check=_layer_norm,
    ),
    Exercise(
        "loss-line", "line", ("cross_entropy",),
        answers=((
            "cross_entropy",
            "surprise = (targets * (probs + 1e-30).log()).sum(-1, keepdim=True) * -1",
        ),),
    ),
    Exercise(
        "sgd", "edit", ("adam",),
        change=(("[a - lr * b for a, b in zip(w.data[i], move)]",
                 "[a - lr * g for a, g in zip(w.data[i], grad)]"),),
        check=_sgd,
    ),
    Exercise(
        "warmup", "edit", ("train",),
        change=(("lr * (1 - step / steps))  # ever smaller steps",
                 "lr * min((step + 1) / 100, 1 - step / steps))"),),
        check=_warmup,
    ),
    Exercise(
        "temperature-greedy", "edit", ("sample",),
        change=(("rng.choices(vocab, probs)[0]", "vocab[probs.index(max(probs))]"),),
        check=_temperature_greedy,
    ),
)  # fmt: skip

EXERCISES: dict[str, Exercise] = {exercise.id: exercise for exercise in _ALL}


def measure_mend(steps: int) -> Plain:
    """How well the planted bug hides: training with it and without it, from the same seed.

    Returns:
        `steps`; `right` and `wrong`, the mean training loss of the last 50 steps; `right_held_out`
        and `wrong_held_out`; and `relative`, the largest error of a gradient as a share of it.
    """
    planted = EXERCISES["mend-gradient"].start or file.ORIGINAL
    right, wrong = Run(file.ORIGINAL), Run(planted)
    errors = []
    both = [one_step(r.namespace, r.params, r.vocab, "anna")[1] for r in (right, wrong)]
    for true, false in zip(*both, strict=True):
        size = max(abs(x) for row in true for x in row)
        errors.append(_apart(true, false) / size)
    for run in (right, wrong):
        for _ in range(steps):
            run.advance()
    return {
        "steps": steps, "right": right.smoothed(50), "wrong": wrong.smoothed(50),
        "right_held_out": right.held_out_loss(HELD_OUT),
        "wrong_held_out": wrong.held_out_loss(HELD_OUT), "relative": max(errors),
    }  # fmt: skip

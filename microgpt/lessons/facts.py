"""The numbers that prose and questions speak of: each is computed by running the file.

Between `{{` and `}}` a chapter holds a Python expression. It is evaluated over the names that
`Facts.namespace` gives, and written as its format says. Our own Markdown is trusted: this runs when
the page is built, never in a reader's browser.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from microgpt import source as file
from microgpt.errors import MicrogptError
from microgpt.lessons import exercises, instruments
from microgpt.lessons.instruments import Models, Plain, Rows
from microgpt.run import Run

HELD_OUT = 50  # documents, as the page's recording measures on
RECENT = 100  # steps at the end of training, of which the lowest and the highest loss is told
SMOOTH = 50  # steps of a trailing mean
MOST_POINTS = 120  # of a curve
MENDED = 300  # steps for which the program with the planted bug is trained beside the right one
SLOW = ("training", "temperatures", "moments")
MINUS, TIMES, THIN = "\u2212", "\u00d7", "\u202f"
_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
)  # fmt: skip
_LARGE = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"))
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_FORMAT = re.compile(r"[0-6]|sig[1-9]|word|comma|big|tiny|percent|list")


class Answers:
    """The instruments' answers; those that take long are kept in a file until the package changes.

    Args:
        models: what is asked.
        cache: the file; None keeps nothing.
    """

    def __init__(self, models: Models, cache: Path | None = None) -> None:
        self.models, self.cache = models, cache
        self.kept: dict[str, Any] = {}
        self.stamp = _stamp(models)
        if cache is not None and cache.is_file():
            try:
                saved = json.loads(cache.read_text(encoding="utf-8"))
            except ValueError:
                saved = {}
            if saved.get("stamp") == self.stamp:
                self.kept = saved["answers"]

    def ask(self, name: str, arguments: Plain) -> Plain:
        """What an instrument answers, its numbers in full."""
        if name not in SLOW:
            return instruments.answer(self.models, name, arguments)
        return self.once(
            f"{name} {json.dumps(arguments, sort_keys=True)}",
            lambda: instruments.answer(self.models, name, arguments),
        )

    def once(self, key: str, compute: Callable[[], Plain]) -> Plain:
        """What was computed under this key, now or by an earlier build."""
        if key not in self.kept:
            self.kept[key] = compute()
            if self.cache is not None:
                text = json.dumps({"stamp": self.stamp, "answers": self.kept})
                self.cache.write_text(text, encoding="utf-8")
        plain: Plain = self.kept[key]
        return plain


def _stamp(models: Models) -> str:
    """A hash of all that an answer depends on."""
    total = hashlib.sha256(platform.python_version().encode())
    package = Path(file.__file__).parent
    parts = [*package.glob("*.py"), *(package / "data").glob("*")]
    parts += [Path(module.__file__ or "") for module in (instruments, exercises)]
    for path in sorted(parts):
        if path.is_file():
            total.update(path.read_bytes())
    for run in (models.first, models.trained):
        if run is not None:
            total.update(repr([w.data for w in run.named_weights().values()]).encode())
    return total.hexdigest()


class Facts:
    """What is known of the file, its first weights and its trained ones.

    Args:
        answers: how the instruments are asked.
    """

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.models = answers.models
        self.names = self.namespace()

    def evaluate(self, expression: str) -> Any:
        """The value of an expression over the facts.

        Raises:
            MicrogptError: it cannot be computed, or it is None.
        """
        try:
            value = eval(expression, dict(self.names))
        except MicrogptError as error:
            raise MicrogptError(f"{{{{{expression}}}}}: {error.message}") from error
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise MicrogptError(f"{{{{{expression}}}}} cannot be computed: {said}") from error
        if value is None:
            raise MicrogptError(f"{{{{{expression}}}}} is None.")
        return value

    def namespace(self) -> dict[str, Any]:
        """The names that an expression may use."""
        source, first = file.ORIGINAL, self.models.first
        trained = self.models.run("trained")
        filled = [line for line in source.splitlines() if line.strip()]
        knobs = {knob.name: knob.value for knob in file.knobs(source)}
        weights = first.named_weights()
        return {
            "lines": len(filled), "columns": max(map(len, filled)),
            **{name: knobs[name] for name in (
                "n_layer", "n_head", "n_embd", "block_size", "std", "steps", "lr", "batch",
                "beta1", "beta2", "eps",
            )},
            "vocab_size": len(first.vocab), "parameters": first.parameters,
            "head_size": weights["blocks.0.heads.0.wq"].shape[1],
            "mlp_size": weights["blocks.0.fc"].shape[1],
            "documents": len(first.corpus.docs), "train_docs": len(first.train_docs),
            "held_out_docs": len(first.held_out_docs),
            "loss": _Loss(first, trained), "training": _Training(self),
            "mend": _Lazy(self._mend),
            "exp": math.exp, "log": math.log, "sqrt": math.sqrt,
            "ids": lambda text: first.namespace["encode"](text, first.vocab),
            "tokens": lambda text: self.ask("tokens", text=text).tokens,
            "value": self.value, "shape": self.shape, "share_of_zeros": self.share_of_zeros,
            "prob": self.prob, "top": self.top, "nearest": self.nearest, "slope": self.slope,
            "samples": lambda n, temperature=1.0, seed=7: trained.sample(
                n, temperature=temperature, seed=seed
            ),
            "at_temperature": self.at_temperature, "nudge": self.nudge, "instrument": self.ask,
            "moments": self.moments, "scale": self.scale,
            "count_lines": self.count_lines,
            "line": lambda scope, text: file.anchor(source, scope, text),
            "nodes": len(instruments.completed(self.models.record("anna", "trained"))),
            "count_parameters": instruments.count_parameters,
            "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"),
        }  # fmt: skip

    def ask(self, name: str, **arguments: Any) -> Any:
        """Any instrument's answer, its parts by name: `instrument("surprise").loss`."""
        return _spaced(self.answers.ask(name, arguments))

    def value(
        self,
        name: str,
        row: int,
        column: int,
        text: str = "anna",
        model: str = "trained",
        grad: bool = False,
    ) -> float:
        """One cell of a named value, or of its gradient."""
        return float(self._rows(name, text, model, grad)[row][column])

    def shape(self, name: str, text: str = "anna", model: str = "trained") -> tuple[int, int]:
        """The shape of a named value."""
        rows = self._rows(name, text, model, False)
        return len(rows), len(rows[0])

    def share_of_zeros(self, name: str, text: str = "anna", model: str = "trained") -> float:
        """How much of a named value is exactly zero."""
        cells = [x for row in self._rows(name, text, model, False) for x in row]
        return cells.count(0.0) / len(cells)

    def _rows(self, name: str, text: str, model: str, grad: bool) -> Rows:
        found = self.answers.ask("matrix", {"text": text, "model": model, "value": name})
        if grad and found["grad"] is None:
            raise MicrogptError(f"{name} has no gradient.")
        rows: Rows = found["grad" if grad else "rows"]
        return rows

    def prob(self, prefix: str, char: str, model: str = "trained") -> float:
        """The probability of a character after a prefix."""
        return instruments.next_probabilities(self.models, prefix, model)[char]

    def top(self, prefix: str, n: int, model: str = "trained") -> list[tuple[str, float]]:
        """The n likeliest characters after a prefix, with their probabilities."""
        probs = instruments.next_probabilities(self.models, prefix, model)
        return sorted(probs.items(), key=lambda pair: -pair[1])[:n]

    def nearest(self, table: str, label: str, model: str = "trained") -> str:
        """The row of wte or wpe that points most nearly the way that this one points."""
        found = self.ask("neighbours", table=table)
        place = found.labels.index(label)
        row = getattr(found, model)[place]
        others = [i for i in range(len(row)) if i != place]
        return str(found.labels[max(others, key=lambda i: row[i])])

    def slope(self, text: str, name: str, **values: float) -> float:
        """The gradient of an expression in one of its values, by the file's backward."""
        found = self.ask("expression", text=text, values=values)
        if found.error:
            raise MicrogptError(found.error)
        return float(next(node.grad for node in found.nodes if node.name == name))

    def at_temperature(self, temperature: float, n: int = 200) -> Any:
        """The row of the temperatures' picture at one temperature, and `n`."""
        arguments: Plain = {}  # the figure's own question, where it holds this temperature
        if temperature not in instruments.default("temperatures", "temperatures"):
            arguments["temperatures"] = [temperature]
        if n != instruments.default("temperatures", "n"):
            arguments["n"] = n
        found = self.answers.ask("temperatures", arguments)
        row = next(row for row in found["rows"] if row["temperature"] == temperature)
        return _spaced(row | {"n": found["n"]})

    def nudge(self, weight: str, row: int, column: int, **more: Any) -> Any:
        """The gradient check of one weight."""
        return self.ask("nudge", weight=weight, row=row, column=column, **more)

    def moments(self, weight: str, row: int, column: int, steps: int = 20) -> Any:
        """One weight through the first steps, and `first_move`: how far a weight of its column
        that has a gradient in the first step moves in it, counted in learning rates.
        """
        found = self.ask("moments", weight=weight, row=row, column=column, steps=steps)
        rows = self.models.first.named_weights()[weight].shape[0]
        for moved in (row, *range(rows)):
            first = self.ask("moments", weight=weight, row=moved, column=column, steps=1).steps[0]
            if first.gradient:
                found.first_move = first.move / float(self.names["lr"])
                return found
        raise MicrogptError(f"No weight of column {column} of {weight} has a gradient at first.")

    def scale(self, name: str) -> Any:
        """The sizes of a published model."""
        rows = self.ask("scale").models
        known = [row.name for row in rows]
        if name not in known:
            raise MicrogptError(f"There is no model {name!r}; there are: {'; '.join(known)}.")
        return rows[known.index(name)]

    def count_lines(self, section: str) -> int:
        """The lines of a section of the file that are not blank."""
        parts = {part.name: part for part in file.sections(file.ORIGINAL)}
        if section not in parts:
            raise MicrogptError(f"There is no section {section!r}; there are: {', '.join(parts)}.")
        part = parts[section]
        lines = file.ORIGINAL.splitlines()[part.first - 1 : part.last]
        return sum(bool(line.strip()) for line in lines)

    def _mend(self) -> Plain:
        return self.answers.once("mend", lambda: exercises.measure_mend(MENDED))


class _Lazy:
    """Facts that are computed when the first of them is asked for."""

    def __init__(self, compute: Callable[[], Plain]) -> None:
        self._compute = compute

    def __getattr__(self, name: str) -> Any:
        found = self._compute()
        if name not in found:
            raise AttributeError(f"there is no {name}; there are: {', '.join(found)}")
        return found[name]


class _Loss:
    """Losses in nats a token."""

    def __init__(self, first: Run, trained: Run) -> None:
        self._first, self._trained = first, trained
        self.guess = first.baseline
        self.last = trained.smoothed(SMOOTH)
        self.lowest = min(trained.losses[-RECENT:])
        self.highest = max(trained.losses[-RECENT:])

    @property
    def first(self) -> float:
        """Held-out loss before training."""
        return self._first.held_out_loss(HELD_OUT)

    @property
    def trained(self) -> float:
        """Held-out loss after training."""
        return self._trained.held_out_loss(HELD_OUT)


class _Training:
    """Curves of the run that trained the model: lists of (step, loss)."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    @property
    def losses(self) -> list[tuple[float, float]]:
        """The loss of single steps."""
        losses = self._facts.models.run("trained").losses
        return _thinned(list(enumerate(losses, 1)))

    @property
    def smoothed(self) -> list[tuple[float, float]]:
        """The mean loss of the last steps."""
        losses = self._facts.models.run("trained").losses
        means = []
        for i in range(1, len(losses) + 1):
            recent = losses[max(0, i - SMOOTH) : i]
            means.append((i, math.fsum(recent) / len(recent)))
        return _thinned(means)

    @property
    def held_out(self) -> list[tuple[float, float]]:
        """Held-out loss at the moments that the training figure keeps."""
        found = self._facts.answers.ask("training", {})
        return [(moment["step"], moment["heldOut"]) for moment in found["moments"]]


def _thinned(points: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS`, evenly spread, with the first and the last."""
    if len(points) <= MOST_POINTS:
        return [(float(x), y) for x, y in points]
    last = len(points) - 1
    places = sorted({round(i * last / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})
    return [(float(points[i][0]), points[i][1]) for i in places]


def _spaced(plain: Any) -> Any:
    """The same plain data with its names as attributes."""
    if isinstance(plain, dict):
        return SimpleNamespace(**{str(key): _spaced(value) for key, value in plain.items()})
    if isinstance(plain, list | tuple):
        return [_spaced(value) for value in plain]
    return plain


# ---- As text ----


def split(text: str) -> tuple[str, str]:
    """An expression and its format, from what stands between the braces."""
    expression, bar, form = text.rpartition("|")
    if bar and _FORMAT.fullmatch(form.strip()):
        return expression.strip(), form.strip()
    return text.strip(), ""


def written(value: Any, form: str) -> str:
    """A value as prose has it.

    Args:
        value: a number, a text or a list.
        form: `0` to `6` decimals, `sig3` significant digits, `word` (four), `comma` (1,000), `big`
            (42 million), `tiny` (3 times 10⁻⁹), `percent`, `list`, or empty for str.

    Raises:
        MicrogptError: the value has no such form.
    """
    if form == "list":
        if not isinstance(value, list | tuple):
            raise MicrogptError("is no list")
        return ", ".join(written(item, "") for item in value)
    if not form:
        return _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MicrogptError(f"is {_plain(value)!r}, which is no number")
    if not math.isfinite(value):
        raise MicrogptError(f"is {value}, which is no finite number")
    if form == "word":
        if value != int(value) or not 0 <= value < len(_WORDS):
            raise MicrogptError(f"is {value}, and numbers from 0 to 20 have a word")
        return _WORDS[int(value)]
    if form == "comma":
        return _signed(f"{round(value):,}")
    if form == "percent":
        return _signed(f"{round(value * 100)}{THIN}%")
    if form == "big":
        return _big(value)
    if form == "tiny":
        mantissa, _, power = f"{value:.0e}".partition("e")
        return f"{_signed(mantissa)} {TIMES} 10{str(int(power)).translate(_RAISED)}"
    if form.startswith("sig"):
        return _significant(value, int(form[3:]))
    return _signed(f"{value:.{form}f}")


def _big(value: float) -> str:
    """175 billion, 1.6 billion, 42 million; below a million as `comma` has it."""
    for unit, name in _LARGE:
        if abs(value) >= unit:
            count = value / unit
            return _signed(f"{count:.1f}" if abs(count) < 9.95 else f"{count:.0f}") + f" {name}"
    return _signed(f"{round(value):,}")


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return "↵" if value == "\n" else value.replace("\n", "↵")
    if isinstance(value, float):
        return _significant(value, 6)
    if isinstance(value, tuple):
        return f"({', '.join(map(_plain, value))})"
    return _signed(str(value)) if isinstance(value, int) else str(value)


def _significant(value: float, digits: int) -> str:
    text = f"{value:.{digits}g}"
    mantissa, e, power = text.partition("e")
    if not e:
        return _signed(text)
    return f"{_signed(mantissa)}e{_signed(str(int(power)))}"


def _signed(text: str) -> str:
    if text.startswith("-") and not any(c in "123456789" for c in text):
        text = text[1:]  # minus zero
    return MINUS + text[1:] if text.startswith("-") else text

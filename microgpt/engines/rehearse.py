"""Which documents each training step reads, and with what numbers it moves the weights.

The file's own `train` is known: its documents come in order, a batch to each step. A `train` that
was edited is *rehearsed*: it is run, step by step, with stand-ins for tensors that cost nothing,
and what it asks of them is written down: whose loss it takes, and what it tells `adam` (or whatever
it moves weights with). A schedule of learning rates or another order of documents is followed so,
whatever it is. A `train` that does more with tensors than that, or that looks at the loss, is
refused with `LeavesContract`.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Protocol

from microgpt.engines.record import explained, refuse, unedited
from microgpt.errors import LeavesContract
from microgpt.source import FILENAME, ORIGINAL, Knob, execute, knobs

# What the function that moves a weight is given: each with its keyword or None, `w` for the weight,
# `m` and `v` for its two moments, or `number`.
Arguments = tuple[tuple[str | None, str], ...]

# Functions of the file that train may call and that move no weight.
KNOWN = {"encode", "gpt", "cross_entropy", "backward", "leaves", "train", "vocabulary", "init"}


@dataclass(frozen=True)
class Steps:
    """Some training steps.

    Attributes:
        documents: the tokens of each document, and the one after them, in the order in which they
            are read.
        numbers: for each step the numbers that it moves weights with.
    """

    documents: list[tuple[int, ...]]
    numbers: list[tuple[float, ...]]


class Course(Protocol):
    """What training does, step by step, told to an engine that is not the source's own.

    Attributes:
        batch: documents of each step.
        scale: what the loss of a document is multiplied by.
        update: the name of the function that moves a weight, and what it is given.
    """

    batch: int
    scale: float
    update: tuple[str, Arguments]

    def take(self, count: int) -> Steps:
        """The next `count` steps; fewer when one of them cannot be told.

        Raises:
            LeavesContract: not even the next one can be.
        """

    def back(self, count: int) -> None:
        """Give back the last of the steps that were taken last: they were not done."""


NUMBERS = ("steps", "batch", "lr")  # of the file's train: `Schedule` is told them


def plain(source: str) -> bool:
    """Whether a source's `train` is the file's own, be it with other numbers."""
    if unedited(source, "train") is None:
        return True
    own = {k.name: k.value for k in knobs(ORIGINAL) if k.function == "train" and k.name in NUMBERS}
    lines = source.split("\n")
    for knob in reversed(knobs(source)):
        if knob.function == "train" and knob.name in own and told(knob):
            row, number = lines[knob.line - 1].encode(), repr(own[knob.name]).encode()
            row = row[: knob.column - 1] + number + row[knob.end_column - 1 :]
            lines[knob.line - 1] = row.decode()
    return unedited("\n".join(lines), "train") is None


def told(knob: Knob) -> bool:
    """Whether a number in the signature of `train` is one that `Schedule` can be told."""
    whole = knob.name != "lr"
    return not whole or (type(knob.value) is int and knob.value >= 1)


class Schedule:
    """The course of the file's own `train`.

    Args:
        docs: the documents to learn from, in order.
        encoded: a document's tokens, as many as the context holds, and the one after.
        batch: documents of each step.
        steps: how many steps the learning rate takes to fall to nothing.
        lr: the learning rate of the first step.
        first: the step to begin with, from 0.
    """

    update: tuple[str, Arguments] = (
        "adam",
        ((None, "w"), (None, "m"), (None, "v"), (None, "number"), (None, "number")),
    )

    def __init__(
        self,
        docs: Sequence[str],
        encoded: Callable[[str], tuple[int, ...]],
        batch: int,
        steps: int,
        lr: float,
        first: int = 0,
    ) -> None:
        self.batch, self.scale = batch, 1 / batch
        self._docs, self._encoded = docs, encoded
        self._steps, self._lr, self._next = steps, lr, first

    def take(self, count: int) -> Steps:
        """The next `count` steps."""
        steps = range(self._next, self._next + count)
        self._next += count
        read = range(steps.start * self.batch, steps.stop * self.batch)
        return Steps(
            [self._encoded(self._docs[i % len(self._docs)]) for i in read],
            [(step + 1, self._lr * (1 - step / self._steps)) for step in steps],
        )

    def back(self, count: int) -> None:
        """Give back steps that were taken and not done."""
        self._next -= count


# ---- Stand-ins ----


class _Ids(list):  # type: ignore[type-arg]
    """The tokens of a document, which know where in it they stand."""

    def __init__(self, tokens: Sequence[int], whole: tuple[int, ...], first: int) -> None:
        super().__init__(tokens)
        self.whole, self.first = whole, first

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            chosen = range(len(self))[place]
            if chosen.step == 1:
                return _Ids(list(self)[place], self.whole, self.first + chosen.start)
        return super().__getitem__(place)


_WORDS = {"grad": "gradient", "data": "numbers"}  # what a tensor's attributes are


class _Weight:
    """A weight, of which only the shape is there."""

    def __init__(self, shape: tuple[int, int], place: int) -> None:
        self.__dict__.update(shape=shape, place=place)

    def __getattr__(self, name: str) -> Any:
        raise LeavesContract(f"its train reads the {_WORDS.get(name, name)} of a weight")

    def __setattr__(self, name: str, value: Any) -> None:
        raise LeavesContract(f"its train sets the {_WORDS.get(name, name)} of a weight")

    def _refuse(self, *_: Any) -> Any:
        raise LeavesContract("its train computes with a weight")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __pow__ = _refuse
    __matmul__ = __getitem__ = _refuse


class _Moment:
    """One of the two running means of a weight."""

    def __init__(self, letter: str, place: int) -> None:
        self.letter, self.place = letter, place

    def _refuse(self, *_: Any) -> Any:
        raise LeavesContract("its train reads what the optimiser remembers of a weight")

    __getitem__ = __setitem__ = __iter__ = __len__ = _refuse


@dataclass(frozen=True)
class _Logits:
    """What the model says of a document."""

    ids: _Ids


class _Given:
    """A tensor that train makes of numbers: the targets."""

    def __init__(self, rows: Any, *parents: Any) -> None:
        self.rows = rows


class _Sum:
    """Losses of documents, each times a number, added up: as a tensor, or as a number.

    `terms` has the number for each document, counted in the order of their losses, and `more` is
    what is added besides.
    """

    def __init__(self, terms: dict[int, float], more: float = 0.0) -> None:
        self.terms, self.more = terms, more

    @property
    def data(self) -> list[list[_Sum]]:
        """The loss as a number."""
        return [[self]]

    def __add__(self, other: Any) -> _Sum:
        if isinstance(other, _Sum):
            terms = dict(self.terms)
            for i, factor in other.terms.items():
                terms[i] = terms.get(i, 0.0) + factor
            return _Sum(terms, self.more + other.more)
        return _Sum(self.terms, self.more + _number(other))

    __radd__ = __add__

    def __mul__(self, other: Any) -> _Sum:
        factor = _number(other)
        return _Sum({i: f * factor for i, f in self.terms.items()}, self.more * factor)

    __rmul__ = __mul__

    def __neg__(self) -> _Sum:
        return self * -1

    def __sub__(self, other: Any) -> _Sum:
        return self + _number(other) * -1 if not isinstance(other, _Sum) else self + -other

    def __truediv__(self, other: Any) -> _Sum:
        return self * (1 / _number(other))

    def _look(self, *_: Any) -> Any:
        raise LeavesContract("its train looks at the loss")

    __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __float__ = __int__ = __index__ = _look
    __abs__ = __round__ = __pow__ = __rpow__ = __rtruediv__ = __floordiv__ = __mod__ = _look
    __eq__ = __hash__ = __format__ = __str__ = __repr__ = __getattr__ = _look


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LeavesContract("its train computes with a loss and something other than a number")
    return float(value)


_Told = tuple[list[tuple[int, ...]], tuple[float, ...]]  # of a step: documents, and numbers


@dataclass
class _Step:
    """What one step was seen to do: documents read, what each loss weighs, what moved weights."""

    read: list[tuple[int, ...]] = field(default_factory=list)
    weighed: _Sum = field(default_factory=lambda: _Sum({}))
    numbers: dict[int, tuple[float, ...]] = field(default_factory=dict)


class Rehearsal:
    """The course of an edited `train`, run without its tensors.

    Args:
        source: the text of the edited file.
        params: the weights, as its `init` made them.
        leaves: those weights in order.
        docs, vocab: what training is given.
        arguments: what else, by name: steps, batch, lr, start, where the source's `train` takes
            them.
        keeps_moments: whether it also takes `moments`.

    Attributes:
        batch, scale, update: as of `Course`.

    Raises:
        LeavesContract: it cannot be followed.
    """

    def __init__(
        self,
        source: str,
        params: Any,
        leaves: Sequence[Any],
        docs: Sequence[str],
        vocab: list[str],
        arguments: dict[str, Any],
        keeps_moments: bool,
    ) -> None:
        self._source = source
        with contextlib.redirect_stdout(io.StringIO()):  # it has been executed, and heard, before
            space = execute(source)
        self._weights = [_Weight(tuple(w.shape), i) for i, w in enumerate(leaves)]
        self._params = _tree(params, {id(w): s for w, s in zip(leaves, self._weights)})
        self._seen = _Step()
        self._pattern: tuple[str, Arguments] | None = None
        for name, value in list(space.items()):
            ours = isinstance(value, FunctionType) and value.__code__.co_filename == FILENAME
            if ours and name not in KNOWN:
                space[name] = self._watched(name, value)
        space.update(
            Tensor=_Given,
            print=refuse("prints"),
            encode=_encoding(space["encode"]),
            leaves=self._leaves,
            gpt=self._gpt,
            cross_entropy=self._cross_entropy,
            backward=self._backward,
        )
        if keeps_moments:
            pairs = [(_Moment("m", i), _Moment("v", i)) for i in range(len(leaves))]
            arguments = arguments | {"moments": pairs}
        self._steps: Iterator[Any] = space["train"](self._params, list(docs), vocab, **arguments)
        self.batch, self.scale = 0, math.nan
        first = self._next()
        if self._pattern is None:
            raise LeavesContract("its train moves no weight by a function")
        self.update: tuple[str, Arguments] = self._pattern
        self._ready: list[_Told] = [first]  # steps that were seen and not taken
        self._taken: list[_Told] = []  # those that were taken last
        self._end: LeavesContract | None = None  # why it cannot be followed further

    def take(self, count: int) -> Steps:
        """The next `count` steps; fewer when one of them cannot be followed.

        Raises:
            LeavesContract: the next one cannot be.
        """
        while len(self._ready) < count and self._end is None:
            try:
                self._ready.append(self._next())
            except LeavesContract as why:
                self._end = why
        if count and not self._ready and self._end is not None:
            raise self._end
        self._taken, self._ready = self._ready[:count], self._ready[count:]
        return Steps(
            [ids for documents, _ in self._taken for ids in documents],
            [numbers for _, numbers in self._taken],
        )

    def back(self, count: int) -> None:
        """Give back the last of the steps that were taken last: they were not done."""
        at = len(self._taken) - count
        self._taken, self._ready = self._taken[:at], self._taken[at:] + self._ready

    def _next(self) -> _Told:
        """The documents of one step, and the numbers that it moves weights with."""
        self._seen = seen = _Step()
        try:
            total = next(self._steps)
        except StopIteration:
            raise LeavesContract("its train ended by itself") from None
        except Exception as error:
            raise explained(error, self._source) from error
        documents = [seen.read[i] for i in seen.weighed.terms]
        scales = set(seen.weighed.terms.values())
        if not documents:
            raise LeavesContract("its train takes no loss")
        if not self.batch:
            self.batch, self.scale = len(documents), next(iter(scales))
        if len(documents) != self.batch:
            raise LeavesContract("its train reads more documents in some steps than in others")
        if scales != {self.scale}:
            raise LeavesContract("its train weighs some losses more than others")
        if not isinstance(total, _Sum) or not _equal(total, seen.weighed):
            raise LeavesContract("its train yields something other than the loss")
        if len(seen.numbers) != len(self._weights):
            raise LeavesContract("its train does not move every weight once in a step")
        numbers = set(seen.numbers.values())
        if len(numbers) > 1:
            raise LeavesContract("its train moves some weights otherwise than others")
        return documents, next(iter(numbers))

    # ---- What train may call ----

    def _leaves(self, tree: Any) -> list[_Weight]:
        if tree is not self._params:
            raise LeavesContract("its train takes the leaves of something other than params")
        return list(self._weights)

    def _gpt(self, ids: Any, **params: Any) -> _Logits:
        if not isinstance(ids, _Ids) or not ids:
            raise LeavesContract("its train reads something other than the tokens of a document")
        known = self._params
        if params.keys() != known.keys() or any(params[k] is not known[k] for k in params):
            raise LeavesContract("its train gives the model other weights")
        return _Logits(ids)

    def _cross_entropy(self, logits: Any, targets: Any) -> _Sum:
        if not isinstance(logits, _Logits) or not isinstance(targets, _Given):
            raise LeavesContract("its train takes a loss of other than logits and targets")
        ids, rows = logits.ids, targets.rows
        after = ids.whole[ids.first + 1 : ids.first + 1 + len(ids)]
        one_hot = all(row[t] == 1 and sum(row) == 1 for row, t in zip(rows, after))
        if len(rows) != len(after) or len(ids) != len(after) or not one_hot:
            raise LeavesContract("its targets are not the tokens that come next")
        self._seen.read.append((*ids, after[-1]))
        return _Sum({len(self._seen.read) - 1: 1.0})

    def _backward(self, loss: Any) -> None:
        if not isinstance(loss, _Sum):
            raise LeavesContract("its train goes back from something other than a loss")
        if self._seen.numbers:
            raise LeavesContract("its train goes back after it has moved a weight")
        self._seen.weighed += loss

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the source; the call of one that is given a weight is noted."""

        def call(*args: Any, **more: Any) -> Any:
            given = [*[(None, a) for a in args], *more.items()]
            weight = next((a for _, a in given if isinstance(a, _Weight)), None)
            if weight is None:
                return function(*args, **more)
            pattern: list[tuple[str | None, str]] = []
            numbers: list[float] = []
            for keyword, a in given:
                if a is weight:
                    pattern.append((keyword, "w"))
                elif isinstance(a, _Moment) and a.place == weight.place:
                    pattern.append((keyword, a.letter))
                elif isinstance(a, _Sum):
                    raise LeavesContract(f"its train gives {name} a loss")
                elif isinstance(a, int | float) and not isinstance(a, bool):
                    pattern.append((keyword, "number"))
                    numbers.append(a)
                else:
                    raise LeavesContract(f"its train gives {name} more than a weight and numbers")
            found = name, tuple(pattern)
            if self._pattern not in (None, found):
                raise LeavesContract("its train moves weights in more than one way")
            if weight.place in self._seen.numbers:
                raise LeavesContract("its train moves a weight twice in a step")
            self._pattern = found
            self._seen.numbers[weight.place] = tuple(numbers)
            return None

        return call


def _encoding(encode: Callable[..., Any]) -> Callable[[str, list[str]], _Ids]:
    """The source's `encode`, whose tokens know where they stand."""

    def call(text: str, vocab: list[str]) -> _Ids:
        tokens = encode(text, vocab)
        if not all(type(i) is int and 0 <= i < len(vocab) for i in tokens):
            raise LeavesContract("its encode gives something other than numbers of tokens")
        return _Ids(tokens, tuple(tokens), 0)

    return call


def _equal(a: _Sum, b: _Sum) -> bool:
    return (
        a.more == 0 == b.more
        and a.terms.keys() == b.terms.keys()
        and all(math.isclose(a.terms[i], b.terms[i], rel_tol=1e-9) for i in a.terms)
    )


def _tree(tree: Any, by: dict[int, Any]) -> Any:
    """The same tree with other leaves."""
    if id(tree) in by:
        return by[id(tree)]
    if isinstance(tree, dict):
        return {key: _tree(part, by) for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)([_tree(part, by) for part in tree])
    return tree

"""Which documents each training step reads, and with what numbers it moves the weights.

The file's own `train` is known: its documents come in order, a batch to each step. A `train` that was
edited is *rehearsed*: it is run, step by step, with stand-ins for tensors that cost nothing, and what
it asks of them is written down: whose loss it takes, and what it tells `adam` (or whatever it moves
weights with). A schedule of learning rates or another order of documents is followed so, whatever it
is. A `train` that does more with tensors than that is refused with `LeavesContract`.
"""

from __future__ import annotations

import contextlib
import io
import math
import random
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from microgpt.engines.record import refuse, unedited
from microgpt.errors import LeavesContract
from microgpt.source import FILENAME, execute

Arguments = tuple[tuple[str | None, str], ...]  # of an update: its keyword, and w, m, v or a number


@dataclass
class Steps:
    """Some training steps.

    Attributes:
        documents: the tokens of each document, in the order in which they are read, and the one after.
        numbers: for each step the numbers that it moves weights with.
    """

    documents: list[tuple[int, ...]]
    numbers: list[tuple[float, ...]]


class Schedule:
    """The file's own `train`.

    Attributes:
        batch: documents of each step.
        scale: what the loss of a document is multiplied by.
        update: the name of the function that moves a weight, and what it is given.
    """

    update: tuple[str, Arguments] = (
        "adam", ((None, "w"), (None, "m"), (None, "v"), (None, "number"), (None, "number")),
    )  # fmt: skip

    def __init__(
        self, docs: Sequence[str], encoded: Callable[[str], tuple[int, ...]], batch: int, steps: int, lr: float,
        first: int = 0,
    ) -> None:  # fmt: skip
        self.batch, self.scale = batch, 1 / batch
        self._docs, self._encoded, self._steps, self._lr, self._next = (
            docs,
            encoded,
            steps,
            lr,
            first,
        )

    def take(self, count: int) -> Steps:
        """The next `count` steps."""
        first, self._next = self._next, self._next + count
        batch, docs = self.batch, self._docs
        return Steps(
            [
                self._encoded(docs[i % len(docs)])
                for i in range(first * batch, (first + count) * batch)
            ],
            [
                (step + 1, self._lr * (1 - step / self._steps))
                for step in range(first, first + count)
            ],
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


class _Weight:
    """A weight, of which only the shape is there."""

    def __init__(self, shape: tuple[int, int], place: int) -> None:
        self.shape, self.place = shape, place

    def __getattr__(self, name: str) -> Any:
        raise LeavesContract(f"its train reads the {name} of a weight")


class _Moment:
    """One of the two running means of a weight."""

    def __init__(self, letter: str, place: int) -> None:
        self.letter, self.place = letter, place

    def _refuse(self, *_: Any) -> Any:
        raise LeavesContract("its train reads a moment")

    __getitem__ = __iter__ = __len__ = _refuse


@dataclass
class _Logits:
    ids: _Ids


@dataclass
class _Given:
    rows: Any
    grad: Any = None


class _Loss:
    """The loss of one document, times a number; what it is, is drawn at random, so that a sum shows what is
    in it."""

    def __init__(
        self, rehearsal: Rehearsal, ids: tuple[int, ...], scale: float, drawn: float
    ) -> None:
        self.rehearsal, self.ids, self.scale, self.drawn = rehearsal, ids, scale, drawn

    @property
    def data(self) -> list[list[float]]:
        return [[self.drawn * self.scale]]

    @property
    def shape(self) -> tuple[int, int]:
        return 1, 1

    def __mul__(self, number: Any) -> _Loss:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise LeavesContract("its train multiplies a loss by something other than a number")
        return _Loss(self.rehearsal, self.ids, self.scale * number, self.drawn)

    __rmul__ = __mul__

    def __truediv__(self, number: Any) -> _Loss:
        return self * (1 / number)

    def __getattr__(self, name: str) -> Any:
        raise LeavesContract(f"its train uses {name} of a loss")


class Rehearsal:
    """An edited `train`, run without its tensors. Attributes and methods as of `Schedule`.

    Args:
        source: the text of the edited file.
        params: the weights, as its `init` made them.
        leaves: those weights in order.
        docs, vocab: what training is given.
        arguments: what else, by name: steps, batch, lr, start, where the source's `train` takes them.

    Raises:
        LeavesContract: it cannot be followed.
    """

    def __init__(
        self, source: str, params: Any, leaves: list[Any], docs: Sequence[str], vocab: list[str],
        arguments: dict[str, Any], keeps_moments: bool,
    ) -> None:  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):  # it has been executed, and heard, before
            space = execute(source)
        self._weights = [_Weight(tuple(w.shape), i) for i, w in enumerate(leaves)]
        stands = {id(w): s for w, s in zip(leaves, self._weights)}
        self._params = _tree(params, stands)
        self._rng = random.Random(0)
        self._losses: list[_Loss] = []
        self._numbers: dict[int, tuple[float, ...]] = {}
        self._pattern: tuple[str, Arguments] | None = None
        self._end: LeavesContract | None = None  # why it cannot be followed further
        self._ready: list[tuple[list[tuple[int, ...]], tuple[float, ...]]] = []
        known = {
            "encode",
            "gpt",
            "cross_entropy",
            "backward",
            "leaves",
            "train",
            "vocabulary",
            "init",
            "sample",
        }
        for name, value in list(space.items()):
            ours = isinstance(value, types.FunctionType) and value.__code__.co_filename == FILENAME
            if ours and name not in known:
                space[name] = self._follow(name, value)
        encode = space["encode"]
        space.update(
            Tensor=lambda rows, *more: _Given(rows), gpt=self._gpt, cross_entropy=self._cross_entropy,
            print=refuse("prints"), backward=self._backward, leaves=lambda _: self._weights, encode=self._encoded(encode),
        )  # fmt: skip
        if keeps_moments:
            arguments = arguments | {
                "moments": [(_Moment("m", i), _Moment("v", i)) for i in range(len(leaves))]
            }
        self._steps: Iterator[Any] = space["train"](self._params, list(docs), vocab, **arguments)
        documents, numbers = self._step()
        self._ready.append((documents, numbers))
        self.batch = len(documents)
        if self._pattern is None:
            raise LeavesContract("its train moves no weight by a function")
        self.update = self._pattern
        self.scale = self._scale

    def take(self, count: int) -> Steps:
        """The next `count` steps; fewer when one of them cannot be followed.

        Raises:
            LeavesContract: the next one cannot be.
        """
        while len(self._ready) < count and self._end is None:
            try:
                step = self._step()
                if len(step[0]) != self.batch:
                    raise LeavesContract(
                        "its train reads more documents in some steps than in others"
                    )
                self._ready.append(step)
            except LeavesContract as why:
                self._end = why
        if not self._ready and self._end is not None:
            raise self._end
        taken, self._ready = self._ready[:count], self._ready[count:]
        self._taken = taken
        return Steps(
            [d for documents, _ in taken for d in documents], [numbers for _, numbers in taken]
        )

    def back(self, count: int) -> None:
        """Give back the last steps that were taken and not done."""
        if count:
            self._ready = self._taken[-count:] + self._ready

    def _step(self) -> tuple[list[tuple[int, ...]], tuple[float, ...]]:
        self._losses, self._numbers = [], {}
        try:
            total = next(self._steps)
        except LeavesContract:
            raise
        except StopIteration:
            raise LeavesContract("its train ended by itself") from None
        except Exception as error:
            raise LeavesContract(f"{type(error).__name__} in its train: {error}") from error
        if not self._losses:
            raise LeavesContract("its train takes no loss")
        scales = {loss.scale for loss in self._losses}
        if len(scales) > 1 or scales != {getattr(self, "_scale", next(iter(scales)))}:
            raise LeavesContract("its train weighs some documents more than others")
        self._scale = next(iter(scales))
        expected = sum(loss.drawn * loss.scale for loss in self._losses)
        if not isinstance(total, int | float) or not math.isclose(total, expected, rel_tol=1e-9):
            raise LeavesContract("its train yields something other than the loss")
        if sorted(self._numbers) != list(range(len(self._weights))):
            raise LeavesContract("its train does not move every weight once in a step")
        numbers = set(self._numbers.values())
        if len(numbers) > 1:
            raise LeavesContract("its train moves some weights otherwise than others")
        return [loss.ids for loss in self._losses], next(iter(numbers))

    # ---- What train may call ----

    def _encoded(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        def call(text: str, vocab: list[str]) -> _Ids:
            tokens = encode(text, vocab)
            if not all(type(i) is int and 0 <= i < len(vocab) for i in tokens):
                raise LeavesContract("its encode gives something other than numbers of tokens")
            return _Ids(tokens, tuple(tokens), 0)

        return call

    def _gpt(self, ids: Any, **params: Any) -> _Logits:
        if not isinstance(ids, _Ids) or not ids:
            raise LeavesContract("its train reads something other than the tokens of a document")
        if set(params) != set(self._params) or any(
            params[k] is not self._params[k] for k in params
        ):
            raise LeavesContract("its train gives the model other weights")
        return _Logits(ids)

    def _cross_entropy(self, logits: Any, targets: Any) -> _Loss:
        if not isinstance(logits, _Logits) or not isinstance(targets, _Given):
            raise LeavesContract(
                "its train takes the loss of something other than logits and targets"
            )
        ids = logits.ids
        after = ids.whole[ids.first + 1 : ids.first + 1 + len(ids)]
        rows = targets.rows
        if len(rows) != len(after) or any(
            row[t] != 1 or sum(row) != 1 for row, t in zip(rows, after)
        ):
            raise LeavesContract("its targets are not the tokens that come next")
        whole = (*ids, after[-1])
        return _Loss(self, whole, 1.0, self._rng.random())

    def _backward(self, loss: Any) -> None:
        if not isinstance(loss, _Loss):
            raise LeavesContract("its train goes back from something other than a loss")
        self._losses.append(loss)

    def _follow(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the source; the call of one that is given a weight is noted."""

        def call(*args: Any, **more: Any) -> Any:
            everything = [(None, a) for a in args] + list(more.items())
            weight = next((a for _, a in everything if isinstance(a, _Weight)), None)
            if weight is None:
                return function(*args, **more)
            pattern, numbers = [], []
            for keyword, a in everything:
                if a is weight:
                    pattern.append((keyword, "w"))
                elif isinstance(a, _Moment) and a.place == weight.place:
                    pattern.append((keyword, a.letter))
                elif isinstance(a, int | float) and not isinstance(a, bool):
                    pattern.append((keyword, "number"))
                    numbers.append(a)
                else:
                    raise LeavesContract(f"its train gives {name} more than a weight and numbers")
            found = name, tuple(pattern)
            if self._pattern not in (None, found):
                raise LeavesContract("its train moves weights in more than one way")
            if weight.place in self._numbers:
                raise LeavesContract("its train moves a weight twice in a step")
            self._pattern = found
            self._numbers[weight.place] = tuple(numbers)
            return None

        return call


def _tree(tree: Any, by: dict[int, Any]) -> Any:
    if id(tree) in by:
        return by[id(tree)]
    if isinstance(tree, dict):
        return {key: _tree(part, by) for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_tree(part, by) for part in tree)
    return tree


def plain(source: str) -> bool:
    """Whether a source's `train` is the file's own."""
    return unedited(source, "train") is None

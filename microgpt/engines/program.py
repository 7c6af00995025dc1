"""From a tape to a program for the kernel: where every matrix lies, and a list of steps.

A program is one array of whole numbers (views and steps), some numbers, and the sizes of three
parts of memory: what all threads share (weights and moments), what each has of its own (gradients
and results on the way), and what is fixed (constants). The kernel executes the steps; it knows no
model.

Documents are done a few at a time. A matrix with a row for each token holds the rows of all of
them, one document after another, so that a step which treats each row alone does all at once.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from microgpt.engines.graph import (
    INPUT,
    ONE,
    ZERO,
    Form,
    Op,
    causal,
    graph,
    grows,
    mask_rows,
    match,
)
from microgpt.engines.record import (
    NO_NUMBER,
    Expression,
    Length,
    Matrix,
    Size,
    Tape,
    Update,
    arithmetic,
    at,
    evaluate,
    parts,
    refusal,
    same,
    whole,
)

MAGIC = 0x6D677074
VECTOR = 16  # numbers in the widest vector: rows begin at a multiple of it
SHARED, OWN, FIXED = range(3)  # the parts of memory
STAY, BY_ROW, BY_DOCUMENT, BY_LENGTH = range(4)  # how a view moves from document to document
SLACK = 128  # numbers after the last one of a part of memory, which vectors may touch
MOST_CONSTANTS = 4_000_000  # numbers of one constant, for all lengths
MOST_MEMORY = 2**31 - 2**20  # numbers in one part of memory
MOST_VIEWS = 8  # that a function of cells reads, and that it writes
MOST_REGISTERS = 64  # of a function of cells, its results included

STEPS = (
    "product", "cells", "sum", "sum_rows", "max", "tokens", "scatter", "targets", "triu",
    "transpose", "norm", "norm_back", "softmax", "softmax_back", "attend", "attend_back",
    "zero", "adam",
)  # fmt: skip
MICRO = (
    "add", "sub", "mul", "div", "max", "min", "gt", "ge", "where", "exp", "log", "sqrt", "tanh",
    "pow", "copy", "muladd",
)  # fmt: skip
T = Length(1, 0)

Place = tuple[int, int, int, int]  # of a weight: where, from row to row, and its shape
Result = tuple["View", Expression, bool]  # where to, what, and whether it is added to what is there


@dataclass(frozen=True)
class View:
    """Where a matrix lies: a place in a part of memory, and how far apart its rows are."""

    space: int
    offset: int
    stride: int  # from a row to the next
    rows: Size
    columns: Size
    shift: int = STAY
    jump: int = 0  # from a document, or a length, to the next
    first: Size = 0  # the row that it begins with
    room: int = 0  # numbers that belong to a row, from its begin: what may be overwritten

    @property
    def row_wise(self) -> bool:
        """Whether it has a row for each token, so that those of all documents are neighbours."""
        return self.shift == BY_ROW and same(self.rows, T) and type(self.columns) is int

    @property
    def together(self) -> bool:
        """Whether a step can read or write it for all documents at once."""
        sizes = type(self.rows), type(self.columns)
        return self.row_wise or (self.shift == STAY and Length not in sizes)

    @property
    def laned(self) -> bool:
        """Whether documents of different lengths can share it: each has the first rows of it. What
        the rows of no token get is ignored, but where rows are for all tokens a slice is not."""
        sizes = [size for size in (self.rows, self.columns) if isinstance(size, Length)]
        return (
            self.shift != BY_LENGTH
            and not (self.shift == BY_DOCUMENT and isinstance(self.rows, Length))
            and all(same(size, T) for size in sizes)
            and not isinstance(self.first, Length)
        )

    def beside(self, column: int, columns: Size) -> View:
        """Some of its columns, as a matrix."""
        return replace(self, offset=self.offset + column, columns=columns, room=at(columns, 1))


@dataclass(frozen=True)
class Program:
    """What the kernel needs to know.

    Attributes:
        code: views and steps, as the kernel reads them.
        numbers: for each scalar, one number for each length from 0 to the longest.
        constants: (place in fixed memory, numbers).
        weights: for each weight its place in shared memory, the distance of its rows, its shape.
        parameters: how many numbers the weights take, their padding included.
        shared, own, fixed, scratch: numbers in each part of memory, and what own memory has more.
        scalars: expressions of symbols, which are computed anew for each step.
        slots: where in `numbers` each of them is.
        longest: the most tokens of a document.
        chunk: how many documents are done at a time.
        grows: whether one token more adds a row to what is there, so that a text need not be done
            anew for it.
        laned: whether several runs can be trained side by side: not when lanes of different lengths
            would need other rows or constants.
        lines: for each step the line of the source that it does, 0 where it does none.
    """

    code: array[int]
    numbers: list[list[float]]
    constants: list[tuple[int, list[float]]]
    weights: list[Place]
    parameters: int
    shared: int
    own: int
    fixed: int
    scratch: int
    scalars: list[Expression]
    slots: list[int]
    longest: int
    chunk: int
    grows: bool
    laned: bool
    lines: list[int]

    def own_numbers(self, lanes: int) -> int:
        """How many numbers the kernel wants of memory that one thread has of its own."""
        return (self.own + self.longest + 1 + self.scratch) * lanes + SLACK


def build(tape: Tape, update: Update | None, chunk: int, vocab: int) -> Program:
    """A program for the kernel.

    Args:
        tape: what one document goes through, to the result.
        update: the optimiser; None for a program that only measures or samples.
        chunk: the most documents that are done at a time.
        vocab: the tokens there are.

    Raises:
        LeavesContract: in words, why there is none.
    """
    return _Builder(tape, chunk, vocab).build(update)


def _padded(n: int) -> int:
    return -(-n // VECTOR) * VECTOR


class _Builder:
    """Lays out and lists one program."""

    def __init__(self, tape: Tape, chunk: int, vocab: int) -> None:
        self._ops = graph(tape)
        self._longest, self._chunk, self._vocab = tape.longest, chunk, vocab
        self._views: dict[View, int] = {}
        self._steps: list[list[int]] = []
        self._lines: list[int] = []
        self._line = 0  # of the source, of the steps that are being listed
        self._used = [0, 0, 0]  # numbers in each part of memory
        self._parameters = self._scratch = 0
        self._slots: dict[Any, int] = {}  # of the numbers
        self._numbers: list[list[float]] = []
        self._scalars: dict[int, Expression] = {}
        self._constants: list[tuple[int, list[float]]] = []
        self._kept: dict[tuple[float, ...], int] = {}  # constants by their numbers
        self._values: dict[Op, View] = {}
        self._grads: dict[Op, View] = {}
        self._saved: dict[Op, View] = {}  # what the way back needs besides
        self._factors: dict[Op, View] = {}  # of a long product: its factors, side by side
        self._reserved: dict[Op, View] = {}  # for gradients, side by side as the values lie

    def build(self, update: Update | None) -> Program:
        """The program, with an update or without."""
        weights = self._lay_weights(moments=update is not None)
        for op in self._ops:
            self._line = op.line
            self._forward(op)
        middle = sum(map(len, self._steps))
        if update is not None:
            self._backward()
        end = sum(map(len, self._steps))
        if update is not None:
            self._line = 0
            self._update(update)
        self._numbers = self._numbers or [[0.0] * (self._longest + 1)]
        result = self._view(self._value(self._ops[-1]))
        views = [n for view in self._views for n in _flat(view)]
        body = [n for step in self._steps for n in step]
        slots, scalars = list(self._scalars), list(self._scalars.values())
        shared, own, fixed = self._used
        header = [
            MAGIC, len(self._views), len(body), middle, end, self._longest, self._chunk,
            self._vocab, self._parameters, shared, own, fixed, self._scratch, len(self._numbers),
            result, len(scalars), update is None and grows(self._ops, self._longest),
        ]  # fmt: skip
        return Program(
            array("i", [*header, *slots, *views, *body]), self._numbers, self._constants, weights,
            self._parameters, shared, own, fixed, self._scratch, scalars, slots, self._longest,
            self._chunk, bool(header[-1]), all(view.laned for view in self._views), self._lines,
        )  # fmt: skip

    # ---- Memory ----

    def _view(self, view: View) -> int:
        return self._views.setdefault(view, len(self._views))

    def _take(self, space: int, count: int) -> int:
        start = self._used[space]
        self._used[space] += _padded(count)
        if self._used[space] >= MOST_MEMORY:
            raise refusal("it takes too much memory", self._line)
        return start

    def _most(self, size: Size) -> int:
        return max(at(size, 1), at(size, self._longest))

    def _stride(self, columns: Size) -> int:
        most = self._most(columns)
        return _padded(most) if most > 1 else 1

    def _new(self, rows: Size, columns: Size) -> View:
        """Room for a matrix of each document of a chunk."""
        stride = self._stride(columns)
        if isinstance(rows, Length) and same(rows, T):
            offset = self._take(OWN, self._chunk * self._longest * stride)
            return View(OWN, offset, stride, rows, columns, BY_ROW, room=stride)
        jump = _padded(self._most(rows) * stride)
        offset = self._take(OWN, self._chunk * jump)
        return View(OWN, offset, stride, rows, columns, BY_DOCUMENT, jump, room=stride)

    def _lay_weights(self, moments: bool) -> list[Place]:
        """Weights of one wide product lie side by side, those of a long one one after another."""
        places: dict[Op, tuple[int, int]] = {}
        end = 0

        def put(w: Op) -> None:
            nonlocal end
            stride = _padded(whole(w.columns))
            places[w] = end, stride
            end += stride * whole(w.rows)

        for op in self._ops:
            if op.op == "wide":
                stride, column = _padded(whole(op.columns)), 0
                for w in op.weights:
                    places[w] = end + column, stride
                    column += whole(w.columns)
                end += stride * whole(op.weights[0].rows)
        for op in self._ops:
            group = op.weights if op.op == "long" else []
            if all(w.op == "weight" and w not in places for w in group):
                for w in dict.fromkeys(group):
                    put(w)
        weights = sorted(
            (op for op in self._ops if op.op == "weight"), key=lambda op: int(op.detail)
        )
        for w in weights:
            if w not in places:
                put(w)
        self._parameters = _padded(end)
        self._take(SHARED, (3 if moments else 1) * self._parameters)  # and two of each
        self._take(OWN, self._parameters)  # gradients
        for w in weights:
            room = whole(w.columns)
            self._values[w] = View(SHARED, *places[w], w.rows, w.columns, room=room)
            self._grads[w] = replace(self._values[w], space=OWN)
        return [(*places[w], whole(w.rows), whole(w.columns)) for w in weights]

    def _constant(self, op: Op) -> View:
        stride = self._stride(op.columns)
        rows, columns = self._most(op.rows), self._most(op.columns)
        for tokens in (self._longest, 1):
            largest = (at(op.rows, tokens), at(op.columns, tokens)) == (rows, columns)
            if largest and op.detail.nested:  # the others are parts of this one
                place = self._keep(_padded_rows(op.detail.at(tokens), stride))
                return View(FIXED, place, stride, op.rows, op.columns)
        jump = _padded(rows * stride)
        if jump * (self._longest + 1) > MOST_CONSTANTS:
            raise refusal("its constants for all lengths take too much memory", self._line)
        flat = [0.0] * jump
        for tokens in range(1, self._longest + 1):
            cells = _padded_rows(op.detail.at(tokens), stride)
            flat += cells + [0.0] * (jump - len(cells))
        return View(FIXED, self._keep(flat), stride, op.rows, op.columns, BY_LENGTH, jump)

    def _keep(self, flat: list[float]) -> int:
        key = tuple(flat)
        if key not in self._kept:
            self._kept[key] = self._take(FIXED, len(flat))
            self._constants.append((self._kept[key], flat))
        return self._kept[key]

    def _number(self, e: Expression) -> int:
        """A scalar: one number for each length, or one that each step computes anew."""
        symbolic = any(part.op == "symbol" for part in parts(e))
        row = [0.0] * (self._longest + 1)
        if not symbolic:
            try:
                row[1:] = [evaluate(e, {}, tokens) for tokens in range(1, self._longest + 1)]
            except (ArithmeticError, ValueError, TypeError) as error:
                raise refusal(NO_NUMBER.format(error), self._line) from error
            if len(set(row[1:])) == 1:
                row[0] = row[1]
        key = e if symbolic else tuple(row)
        if key not in self._slots:
            self._slots[key] = len(self._numbers)
            self._numbers.append(row)
            if symbolic:
                self._scalars[self._slots[key]] = e
        return self._slots[key]

    def _value(self, op: Op) -> View:
        if op.op == "constant" and op not in self._values:
            self._values[op] = self._constant(op)
        return self._values[op]

    # ---- Steps ----

    def _step(
        self, name: str, views: Sequence[View | None], *more: int, together: bool | None = None
    ) -> None:
        if together is None:
            together = all(view is None or view.together for view in views)
        named = [-1 if view is None else self._view(view) for view in views]
        count = 4 + len(named) + len(more)
        self._list([STEPS.index(name), count, int(together), len(named), *named, *more])

    def _list(self, step: list[int]) -> None:
        self._steps.append(step)
        self._lines.append(self._line)

    def _forward(self, op: Op) -> None:
        if op.op == "weight":
            return
        if op.op == "constant":
            return  # what is only a mask of the future need not be there: see `_value`
        p = [self._value(parent) for parent in op.parents[: 3 if op.op == "attend" else None]]
        if op.op == "slab":
            self._values[op] = self._slab(op, p[0])
            return
        if op.op == "rows":
            first, _ = op.detail
            self._values[op] = replace(p[0], rows=op.rows, first=first + p[0].first)
            return
        y = self._values[op] = self._place(op)
        match op.op:
            case "cells":
                self._cells(p, [(y, op.detail[0], False)])
            case "product":
                self._product(y, p[0], p[1], *op.detail)
            case "wide":
                self._product(y, p[0], _wide(p[1], op))
            case "long":
                self._long(op)
            case "norm":
                root = self._saved[op] = self._new(op.rows, 1)
                self._step("norm", [y, p[0], root], *map(self._number, op.detail))
            case "attend":
                weights = self._saved[op] = self._new(T, T)
                future, bias = self._mask(op)
                self._panel(self._longest, op.parents[0].columns)
                views = [y, *p[:3], weights, bias]
                self._step("attend", views, self._number(op.detail), future, together=False)
            case "softmax" | "sum" | "max" | "transpose":
                self._step(op.op, [y, p[0]], 0)
            case "triu":
                self._step("triu", [y, p[0]], op.detail, 0)
            case "tokens":
                which = self._which(op)
                self._step("tokens", [y, p[0]], which, together=None if which < 0 else False)
            case "targets":
                self._step("targets", [y])
            case other:
                raise AssertionError(other)

    def _slab(self, op: Op, of: View) -> View:
        """The columns of a wide product that are one of its products."""
        weights = op.parents[0].weights
        return of.beside(sum(whole(w.columns) for w in weights[: op.detail]), op.columns)

    def _place(self, op: Op) -> View:
        """A new matrix, or a part of the one that a long product reads."""
        for user in op.users if op.op in ("attend", "product") else []:
            factors = user.factors if user.op == "long" else []
            if op not in factors or len(set(factors)) < len(factors):
                continue
            if not all(f.op in ("attend", "product") for f in factors) or any(
                isinstance(f.columns, Length) for f in factors
            ):
                continue
            columns = [whole(f.columns, op.line) for f in factors]
            if user not in self._factors:
                if any(f in self._values for f in factors):
                    continue
                self._factors[user] = self._new(op.rows, sum(columns))
            k = factors.index(op)
            return self._factors[user].beside(sum(columns[:k]), op.columns)
        return self._new(op.rows, op.columns)

    def _which(self, op: Op) -> int:
        """Which tokens choose the rows, as a view; -1 when all do, in order."""
        if op.detail is None:
            return -1
        rows = self._most(op.rows)
        flat = [0.0] * rows
        for tokens in range(1, self._longest + 1):
            places = op.detail(tokens)
            flat += [float(x) for x in places] + [0.0] * (rows - len(places))
        return self._view(View(FIXED, self._keep(flat), 1, op.rows, 1, BY_LENGTH, rows))

    def _mask(self, op: Op) -> tuple[bool, View | None]:
        """Whether the future weighs nothing, and what else is added to the scores."""
        if len(op.parents) < 4:
            return False, None
        future = causal(op, self._longest)
        past = (x for i, row in mask_rows(op, self._longest) for x in row[: i + 1])
        if future and all(x == 0 for x in past):
            return True, None
        return future, self._value(op.parents[3])

    def _panel(self, *inner: Size, more: int = 0) -> None:
        """Scratch memory for products: two vectors of columns of the second factor."""
        rows = max(map(self._most, inner))
        self._scratch = max(self._scratch, _padded(2 * VECTOR * rows + more))

    def _product(
        self, y: View, a: View, b: View, ta: bool = False, tb: bool = False, more: bool = False,
        begin: View | None = None,
    ) -> None:  # fmt: skip
        """y = a @ b, either transposed where it is said, added to y (`more`) or to `begin`."""
        inner = a.rows if ta else a.columns
        self._panel(inner * (self._chunk if isinstance(inner, Length) else 1))
        if ta:
            together = not tb and a.row_wise and b.row_wise and y.shift == STAY
        else:
            rows = [a, y] if begin is None else [a, y, begin]
            together = all(v.row_wise for v in rows) and b.shift == STAY and b.together
        self._step("product", [y, a, b, begin], ta, tb, more, together=together)

    def _long(self, op: Op) -> None:
        y, x = self._values[op], self._values[op.parents[0]]
        merged = self._merged(op)
        if merged is not None:
            self._product(y, *merged, begin=x)
            return
        for i, (f, w) in enumerate(zip(op.factors, op.weights)):
            a, b = self._values[f], self._values[w]
            self._product(y, a, b, more=i > 0, begin=None if i else x)

    def _merged(self, op: Op) -> tuple[View, View] | None:
        """The factors of a long product as one matrix and the weights as one, if they lie so."""
        factors = [self._values[f] for f in op.factors]
        tables = [self._values[w] for w in op.weights]
        after = [replace(v, offset=v.offset + at(v.rows, 0) * v.stride) for v in tables]
        if (
            any(isinstance(v.columns, Length) for v in factors)
            or any(w.op != "weight" for w in op.weights)
            or any(b != replace(a, rows=b.rows) for a, b in zip(after, tables[1:]))
            or not _side_by_side(factors)
        ):
            return None
        columns = sum(whole(v.columns) for v in factors)
        return (
            replace(factors[0], columns=columns, room=columns),
            replace(tables[0], rows=sum(whole(v.rows) for v in tables)),
        )

    # ---- Functions of cells ----

    def _cells(
        self, inputs: Sequence[View], results: Sequence[Result], update: bool = False
    ) -> None:
        """One step that reads views and writes expressions of their cells."""
        rows, columns = results[0][0].rows, results[0][0].columns
        machine = _Machine(inputs, [(view, _divided(e), more) for view, e, more in results])
        views = machine.inputs
        numbers = [self._number(e) for e in machine.numbers]
        free = [v.room >= _padded(self._most(columns)) and not more for v, _, more in results]
        body, places, count = machine.listing(free)
        if max(len(views), len(results)) > MOST_VIEWS:
            raise refusal(f"a function in it reads more than {MOST_VIEWS} matrices", self._line)
        if count + len(results) > MOST_REGISTERS:
            raise refusal("a function of cells in it is too long for the kernel", self._line)
        listed: list[int] = []
        for v in views:  # 0: a cell for each cell, 1: one row for all, 2: one column, 3: one cell
            kind = 2 * (not same(v.columns, columns)) + (not same(v.rows, rows))
            listed += [self._view(v), kind]
        for (v, _, more), place, direct in zip(results, places, free):
            listed += [self._view(v), place, more, direct]
        together = (
            (update or isinstance(rows, Length))
            and all(v.together for v in [*views, *[v for v, _, _ in results]])
            and not any(len(set(self._numbers[slot][1:])) > 1 for slot in numbers)
        )
        sizes = [len(views), len(numbers), len(results), len(body) // 5, count]
        length = 3 + len(sizes) + len(listed) + len(numbers) + len(body)
        kind = STEPS.index("cells")
        self._list([kind, length, int(together), *sizes, *listed, *numbers, *body])

    # ---- The way back ----

    def _into(self, op: Op) -> tuple[View, bool]:
        """Where a gradient goes, and whether it is added to what is there."""
        more = op in self._grads
        if more:
            self._whole(op)
        elif op.op == "slab":
            wide = op.parents[0]
            if wide not in self._grads:
                self._grads[wide] = self._new(wide.rows, wide.columns)
            self._grads[op] = self._slab(op, self._grads[wide])
        else:
            self._grads[op] = self._room_for(op)
        return self._grads[op], more

    def _room_for(self, op: Op) -> View:
        """Room for a gradient; side by side with others where the values lie so."""
        for user in op.users:
            if op in self._reserved or not self._is_factor(op, user) or not self._merged(user):
                continue
            if not any(f in self._grads for f in user.factors):
                columns = [whole(f.columns) for f in user.factors]
                all_of_them = self._new(op.rows, sum(columns))
                for k, f in enumerate(user.factors):
                    self._reserved[f] = all_of_them.beside(sum(columns[:k]), f.columns)
        return self._reserved.get(op) or self._new(op.rows, op.columns)

    def _is_factor(self, op: Op, user: Op) -> bool:
        """Whether it is one of several factors of a long product."""
        return user.op == "long" and len(user.factors) > 1 and op in user.factors

    def _whole(self, op: Op) -> View:
        """The gradient as a whole matrix, where only a column of it was kept."""
        g = self._grads[op]
        if not (same(g.columns, op.columns) and same(g.rows, op.rows)):
            self._grads[op] = self._new(op.rows, op.columns)
            self._cells([g], [(self._grads[op], INPUT[0], False)])
        return self._grads[op]

    def _backward(self) -> None:
        last = self._ops[-1]
        self._line = next((op.line for op in reversed(self._ops) if op.line), 0)
        if not (same(last.rows, 1) and same(last.columns, 1)):
            raise refusal("its loss is not a single number", self._line)
        if not last.learns:
            raise refusal("its loss does not depend on any weight", self._line)
        if last not in self._grads:
            self._grads[last] = self._new(1, 1)
        self._cells([], [(self._grads[last], ONE, last.op == "weight")])
        for op in reversed(self._ops):
            self._line = op.line
            if op.op == "wide":
                self._wide_back(op)
            elif op.op not in ("weight", "slab") and op in self._grads:
                self._back(op)

    def _back(self, op: Op) -> None:
        p = op.parents
        if op.op == "cells":
            self._cells_back(op)
            return
        if op.op == "sum":
            self._sum_back(op, p[0])
            return
        g, y = self._whole(op), self._values[op]
        x = [self._values[parent] for parent in p[: 3 if op.op == "attend" else None]]
        match op.op:
            case "product":
                self._product_back(op, g)
            case "long":
                self._long_back(op, g)
            case "norm":
                into, more = self._into(p[0])
                views = [into, g, x[0], self._saved[op]]
                self._step("norm_back", views, self._number(op.detail[0]), more)
            case "softmax":
                into, more = self._into(p[0])
                self._step("softmax_back", [into, g, y], more)
            case "attend":
                self._attend_back(op, g)
            case "transpose":
                into, more = self._into(p[0])
                self._step("transpose", [into, g], more)
            case "triu":
                into, more = self._into(p[0])
                self._step("triu", [into, g], op.detail, more)
            case "tokens":
                into = self._cleared(p[0])
                which = self._which(op)
                self._step("scatter", [into, g], which, together=None if which < 0 else False)
            case "rows":
                into = self._cleared(p[0])
                part = replace(into, rows=op.rows, first=op.detail[0] + into.first)
                self._cells([g], [(part, INPUT[0], True)])
            case other:
                raise AssertionError(other)

    def _cleared(self, op: Op) -> View:
        """Where parts of a gradient are added."""
        into, more = self._into(op)
        if not more:
            self._step("zero", [into])
        return into

    def _add(self, op: Op, g: View) -> None:
        into, more = self._into(op)
        self._cells([g], [(into, INPUT[0], more)])

    def _sum_back(self, op: Op, x: Op) -> None:
        """Every cell of a row has the row's gradient: a column of them will do for cells."""
        g = self._grads[op]
        if x in self._grads or x.op in ("weight", "slab"):
            self._add(x, g)
            return
        self._grads[x] = g
        if x.op != "cells" or len(x.users) > 1:
            self._whole(x)

    def _pass(self, op: Op, parents: list[Op]) -> None:
        """Parents whose gradient is just this one's: the first takes the matrix over, if it can."""
        g = self._grads[op]

        def free(x: Op) -> bool:
            laid = any(self._is_factor(x, user) for user in x.users)
            return x.op not in ("weight", "slab") and x not in self._grads and not laid

        if all(free(x) and x.users == [op] and x.op in ("tokens", "rows") for x in parents):
            for x in parents:  # all only read it
                self._grads[x] = g
            return
        heir = next((x for x in parents if free(x)), None)
        for x in parents:
            if x is not heir:
                self._add(x, g)
        if heir is not None:
            self._grads[heir] = g

    def _cells_back(self, op: Op) -> None:
        g = self._grads[op]
        is_whole = same(g.columns, op.columns) and same(g.rows, op.rows)
        inputs = [*[self._values[p] for p in op.parents], g]
        passed: list[Op] = []  # whose gradient is just this one's
        results: list[Result] = []
        repeated: list[tuple[Op, View]] = []  # whose gradient must be summed, and what is
        for x, slope in zip(op.parents, op.detail[1:]):
            fits = same(x.rows, op.rows) and same(x.columns, op.columns)
            e = arithmetic("mul", INPUT[len(op.parents)], slope)
            if not x.learns:
                continue
            if slope is ONE and is_whole:
                if fits:
                    passed.append(x)
                else:
                    repeated.append((x, g))
            elif fits:
                into, more = self._into(x)
                results.append((into, e, more))
            else:
                room = self._new(op.rows, op.columns)
                results.append((room, e, False))
                repeated.append((x, room))
        if results:
            self._cells(inputs, results)
        for x, room in repeated:
            self._shrink(x, room, op)
        self._pass(op, passed)

    def _shrink(self, x: Op, g: View, op: Op) -> None:
        """What was repeated on the way there is summed on the way back."""
        if not same(x.columns, op.columns):
            if same(x.rows, op.rows):
                into, more = self._into(x)
                self._step("sum", [into, g], more)
                return
            column = self._new(op.rows, 1)
            self._step("sum", [column, g], 0)
            g = column
        into, more = self._into(x)
        self._step("sum_rows", [into, g], more, together=into.shift == STAY and g.row_wise)

    def _product_back(self, op: Op, g: View) -> None:
        (a, b), (ta, tb) = op.parents, op.detail
        x, y = self._values[a], self._values[b]
        if a.learns:
            into, more = self._into(a)
            if ta:
                self._product(into, y, g, tb, True, more)
            else:
                self._product(into, g, y, False, not tb, more)
        if b.learns:
            into, more = self._into(b)
            if tb:
                self._product(into, g, x, True, ta, more)
            else:
                self._product(into, x, g, not ta, False, more)

    def _long_back(self, op: Op, g: View) -> None:
        merged = self._merged(op)
        if merged is not None and all(
            f.learns and f not in self._grads and f.op != "slab" for f in op.factors
        ):
            intos = [self._into(f)[0] for f in op.factors]
            if _side_by_side(intos):
                columns = whole(merged[0].columns)
                into = replace(intos[0], columns=columns, room=columns)
                self._product(into, g, merged[1], tb=True)
            else:
                for into, w in zip(intos, op.weights):
                    self._product(into, g, self._values[w], tb=True)
            table = replace(self._grads[op.weights[0]], rows=merged[1].rows)
            self._product(table, merged[0], g, ta=True, more=True)
        else:
            for f, w in zip(op.factors, op.weights):
                if f.learns:
                    into, more = self._into(f)
                    self._product(into, g, self._values[w], tb=True, more=more)
                if w.learns:
                    into, more = self._into(w)
                    self._product(into, self._values[f], g, ta=True, more=more)
        if op.parents[0].learns:
            self._pass(op, op.parents[:1])

    def _wide_back(self, op: Op) -> None:
        slabs = [u for u in op.users if u.op == "slab"]
        if op not in self._grads:
            return  # no product of it has a gradient
        for s in slabs:
            if s not in self._grads:
                self._step("zero", [self._into(s)[0]])
        x, w = op.parents[0], op.weights[0]
        g = self._grads[op]
        if x.learns:
            into, more = self._into(x)
            self._product(into, g, _wide(self._values[w], op), tb=True, more=more)
        self._product(_wide(self._grads[w], op), self._values[x], g, ta=True, more=True)

    def _attend_back(self, op: Op, g: View) -> None:
        three = op.parents[:3]
        future, _ = self._mask(op)
        intos = [
            self._into(x) if x.learns else (self._new(x.rows, x.columns), False) for x in three
        ]
        weights = self._saved[op]
        self._panel(
            self._longest, three[2].columns, more=self._longest * self._stride(weights.columns)
        )
        views = [*[v for v, _ in intos], g, *[self._values[x] for x in three], weights]
        mores = [more for _, more in intos]
        scale = self._number(op.detail)
        self._step("attend_back", views, scale, future, *mores, together=False)

    # ---- The optimiser ----

    def _update(self, update: Update) -> None:
        n = self._parameters
        w, m, v = (View(SHARED, i * n, n, 1, n, room=n) for i in range(3))
        g = View(OWN, 0, n, 1, n, room=n)
        adam = _adam(update)
        if adam is not None:
            self._step("adam", [w, g, m, v], *map(self._number, adam), together=True)
            return
        inputs = [w, g, m, v]
        results = [(m, update.first), (v, update.second), (w, update.weight), (g, ZERO)]
        changed = [
            (view, e, False)
            for view, e in results
            if not (e.op == "input" and inputs[e.args[0]] == view)
        ]
        self._cells(inputs, changed, update=True)


def _adam(update: Update) -> list[Expression] | None:
    """The numbers of a step of Adam, if an update has its form: what is kept of each moment and
    what is added, what both are divided by, turned, then epsilon and the learning rate."""
    found: dict[str, Expression] = {}
    slope, second = INPUT[1], ("mul", ("mul", INPUT[1], "new2"), INPUT[1])
    root: Form = ("sqrt", ("div", update.second, "c2"))
    move: Form = ("div", ("div", update.first, "c1"), ("add", root, "eps"))
    forms: list[tuple[Expression, Form]] = [
        (update.first, ("add", ("mul", INPUT[2], "keep1"), ("mul", slope, "new1"))),
        (update.second, ("add", ("mul", INPUT[3], "keep2"), second)),
        (update.weight, ("sub", INPUT[0], ("mul", "rate", move))),
    ]
    if not all(match(e, form, found) for e, form in forms):
        return None
    kept = [found[name] for name in ("keep1", "new1", "keep2", "new2")]
    ups = [arithmetic("div", 1.0, found[name]) for name in ("c1", "c2")]
    return [*kept, *ups, found["eps"], found["rate"]]


def _padded_rows(rows: Matrix, stride: int) -> list[float]:
    return [x for row in rows for x in [*row, *[0.0] * (stride - len(row))]]


def _flat(v: View) -> list[int]:
    """A view, as the kernel reads it."""
    rows, columns, first = ((at(s, 1) - at(s, 0), at(s, 0)) for s in (v.rows, v.columns, v.first))
    return [v.space, v.offset, v.stride, *rows, *columns, v.shift, v.jump, *first, v.room]


def _wide(first: View, wide: Op) -> View:
    """The weights of a wide product as one matrix, from the first of them."""
    columns = whole(wide.columns)
    return replace(first, columns=columns, room=columns)


def _side_by_side(views: Sequence[View]) -> bool:
    """Whether each matrix begins where the row of the one before it ends."""
    return all(
        b == replace(a, offset=a.offset + at(a.columns, 0), columns=b.columns, room=b.room)
        for a, b in itertools.pairwise(views)
    )


# ---- Functions of cells ----


def _varies(e: Expression) -> bool:
    return any(part.op == "input" for part in parts(e))


def _divided(e: Expression) -> Expression:
    """Dividing by a number is multiplying by its inverse."""
    made: dict[Expression, Expression] = {}
    for part in parts(e):
        args = [made[a] for a in part.args] if not part.leaf else []
        if part.op == "div" and _varies(part) and not _varies(part.args[1]):
            made[part] = Expression("mul", args[0], arithmetic("div", 1.0, args[1]))
        else:
            made[part] = part if part.leaf else Expression(part.op, *args)
    return made[e]


Register = tuple[str, int]  # ("input", i), ("number", i), or ("made", k): by the k-th micro-step


class _Machine:
    """Registers and micro-steps of one function of cells.

    Attributes:
        inputs: the views that it reads.
        numbers: the numbers that it reads.
    """

    def __init__(self, inputs: Sequence[View], results: Sequence[Result]) -> None:
        read = [part for _, e, _ in results for part in parts(e) if part.op == "input"]
        used = sorted({part.args[0] for part in read})
        self.inputs = [inputs[k] for k in used]
        self.numbers: list[Expression] = []
        self._body: list[tuple[str, list[Register]]] = []
        self._made: dict[Expression, Register] = {
            INPUT[k]: ("input", i) for i, k in enumerate(used)
        }
        self._outputs = [view for view, _, _ in results]
        self._results = [self._compute(e) for _, e, _ in results]

    def _compute(self, e: Expression) -> Register:
        """The register of an expression; what it needs is computed before it."""
        if e in self._made:
            return self._made[e]
        if not _varies(e):
            self.numbers.append(e)
            place = "number", len(self.numbers) - 1
        else:
            op, args = e.op, list(e.args)
            product = next(
                (a for a in args if a.op == "mul" and _varies(a) and a not in self._made), None
            )
            if op == "add" and product is not None:
                other = args[1] if product is args[0] else args[0]
                op, args = "muladd", [*product.args, other]
            self._body.append((op, [self._compute(a) for a in args]))
            place = "made", len(self._body) - 1
        self._made[e] = place
        return place

    def listing(self, free: Sequence[bool]) -> tuple[list[int], list[int], int]:
        """The micro-steps with registers given out, where each result is, and how many registers.

        A result that may be written as it comes (`free`) has a register of its own after all
        others, which is its memory; not so when an input that lies there is still read later.
        """
        last: dict[Register, int] = {}  # micro-step that reads a register
        for k, (_, args) in enumerate(self._body):
            last |= dict.fromkeys(args, k)
        owner: dict[Register, int] = {}
        for n, r in enumerate(self._results):
            there = [("input", i) for i, v in enumerate(self.inputs) if v == self._outputs[n]]
            unread = all(last.get(i, -1) <= r[1] for i in there)
            if r[0] == "made" and free[n] and r not in owner and unread:
                owner[r] = n
            last[r] = len(self._body)
        place: dict[Register, int] = {r: -1 - n for r, n in owner.items()}
        fixed = [*[("input", i) for i in range(len(self.inputs))]]
        fixed += [("number", i) for i in range(len(self.numbers))]
        place |= {r: i for i, r in enumerate(fixed)}
        count = len(fixed)
        idle: list[int] = []  # registers that hold nothing any more
        rows: list[tuple[int, list[int]]] = []
        for k, (op, args) in enumerate(self._body):
            sources = [place[a] for a in args]
            if ("made", k) not in owner:
                if not idle:
                    idle.append(count)
                    count += 1
                place["made", k] = idle.pop()
            rows.append((MICRO.index(op), [place["made", k], *sources, 0, 0][:4]))
            idle += [
                place[a] for a in set(args) if a[0] == "made" and last[a] == k and a not in owner
            ]

        def late(r: int) -> int:
            return count - 1 - r if r < 0 else r

        body = [n for op, registers in rows for n in (op, *map(late, registers))]
        return body, [late(place[r]) for r in self._results], count

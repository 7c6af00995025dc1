"""From a simplified tape to a program for the kernel: where every matrix lies, and a list of steps.

A program is one array of whole numbers (views and steps), some numbers, and the sizes of three parts of
memory: what all threads share (weights and moments), what each has of its own (gradients and results on
the way), and what is fixed (constants). The kernel executes the steps; it knows no model.

Documents are done a few at a time. A matrix with a row for each token holds the rows of all of them, one
document after another, so that a step which treats each row alone does all at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from microgpt.engines.graph import INPUT, MINUS, ONE, ZERO, Op, _match, graph, substituted
from microgpt.engines.record import (
    Expression, LeavesContract, Length, Size, Tape, Update, _arithmetic, _cell, at, evaluate, same, walk,
)  # fmt: skip

MAGIC = 0x6D677074
VECTOR = 16  # numbers in the widest vector: rows begin at a multiple of it
SHARED, OWN, FIXED = range(3)
STAY, BY_ROW, BY_DOCUMENT, BY_LENGTH = range(4)  # how a view moves from document to document
MOST_CONSTANTS = 4_000_000
MOST_MEMORY = 2**31 - 2**20  # numbers in one part of memory

STEPS = (
    "product", "cells", "sum", "sum_rows", "max", "tokens", "scatter", "targets", "triu", "transpose", "norm",
    "norm_back", "softmax", "softmax_back", "attend", "attend_back", "zero", "adam",
)  # fmt: skip
MICRO = (
    "add", "sub", "mul", "div", "max", "min", "gt", "ge", "where", "exp", "log", "sqrt", "tanh", "pow", "copy",
    "muladd",
)  # fmt: skip
T = Length(1, 0)


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

    def row_wise(self) -> bool:
        return self.shift == BY_ROW and same(self.rows, T) and type(self.columns) is int


@dataclass
class Program:
    """What the kernel needs to know.

    Attributes:
        code: views and steps, as the kernel reads them.
        numbers: for each scalar, one number for each length from 0 to the longest.
        constants: (place in fixed memory, numbers).
        weights: for each weight its place in shared memory, the distance of its rows, and its shape.
        parameters: how many numbers the weights take, their padding included.
        shared, own, fixed: numbers in each part of memory.
        scalars: expressions of `step` and `lr`, which are set anew for each step; `slots` are theirs in `numbers`.
        laned: whether several runs can be trained side by side: not when lanes of different lengths would need other
            rows or constants.
    """

    code: array[int]
    numbers: list[list[float]]
    constants: list[tuple[int, list[float]]]
    weights: list[tuple[int, int, int, int]]
    parameters: int
    shared: int
    own: int
    fixed: int
    scalars: list[Expression]
    longest: int
    chunk: int
    scratch: int
    result: View
    slots: list[int]
    laned: bool
    lines: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def _padded(n: int) -> int:
    return -(-n // VECTOR) * VECTOR


class Builder:
    """Lays out and lists one program.

    Args:
        tape: what one document goes through, to the result.
        update: the optimiser; None for a program that only measures or samples.
        chunk: the most documents that are done at a time.
        vocab: columns of the targets.
    """

    def __init__(self, tape: Tape, update: Update | None, chunk: int, vocab: int) -> None:
        self.ops = graph(tape)
        self.longest, self.chunk, self.vocab = tape.longest, chunk, vocab
        self.update = update
        self.views: dict[View, int] = {}
        self.steps: list[list[int]] = []
        self.lines: list[int] = []
        self.numbers: dict[Any, int] = {}
        self.rows_of_numbers: list[list[float]] = []
        self.scalars: dict[int, tuple[int, Expression]] = {}
        self.constants: list[tuple[int, list[float]]] = []
        self._kept: dict[Any, int] = {}
        self.shared = self.own = self.fixed = 0
        self.scratch = 0
        self._line = 0

    def build(self) -> Program:
        weights = self._weights()
        forward = len(self.steps)
        for op in self.ops:
            self._line = op.line
            self._forward(op)
        middle = len(self.steps)
        if self.update is not None:
            self._backward()
        end = len(self.steps)
        if self.update is not None:
            self._update(self.update)
        assert forward == 0
        result = self._view(self.ops[-1].value)
        code = array("i", [])
        order = list(self.views)
        flat = [n for view in order for n in self._flat(view)]
        body = [n for step in self.steps for n in step]
        at_step = [0]
        for step in self.steps:
            at_step.append(at_step[-1] + len(step))
        self.rows_of_numbers = self.rows_of_numbers or [[0.0] * (self.longest + 1)]
        header = [
            MAGIC, len(order), len(body), at_step[middle], at_step[end], self.longest, self.chunk, self.vocab,
            self.parameters, self.shared, self.own, self.fixed, self.scratch, len(self.rows_of_numbers), result,
            len(self.scalars),
        ]  # fmt: skip
        slots = [slot for slot, _ in self.scalars.values()]
        code.extend([*header, *slots, *flat, *body])
        return Program(
            code, self.rows_of_numbers, self.constants, weights, self.parameters, self.shared, self.own, self.fixed,
            [e for _, e in self.scalars.values()], self.longest, self.chunk, self.scratch, self.ops[-1].value, slots,
            all(_in_lanes(view) for view in order), self.lines,
            [STEPS[step[0]] for step in self.steps],
        )  # fmt: skip

    # ---- Memory ----

    def _flat(self, v: View) -> list[int]:
        rows, columns, first = (_affine(s) for s in (v.rows, v.columns, v.first))
        return [v.space, v.offset, v.stride, *rows, *columns, v.shift, v.jump, *first, v.room]

    def _view(self, view: View) -> int:
        return self.views.setdefault(view, len(self.views))

    def _take(self, space: int, count: int) -> int:
        count = _padded(count)
        start = (self.shared, self.own, self.fixed)[space]
        if space == SHARED:
            self.shared += count
        elif space == OWN:
            self.own += count
        else:
            self.fixed += count
        if start + count >= MOST_MEMORY:
            raise LeavesContract("it takes too much memory")
        return start

    def _most(self, size: Size) -> int:
        return max(at(size, 1), at(size, self.longest))

    def _new(self, rows: Size, columns: Size) -> View:
        """Room for a matrix of each document of a chunk."""
        stride = _padded(self._most(columns)) if self._most(columns) > 1 else 1
        if isinstance(rows, Length) and rows == T:
            offset = self._take(OWN, self.chunk * self.longest * stride)
            return View(OWN, offset, stride, rows, columns, BY_ROW, 0, 0, stride)
        jump = _padded(self._most(rows) * stride)
        offset = self._take(OWN, self.chunk * jump)
        return View(OWN, offset, stride, rows, columns, BY_DOCUMENT, jump, 0, stride)

    def _weights(self) -> list[tuple[int, int, int, int]]:
        """Weights of one wide product lie side by side, those of one long product one after another."""
        weights = [op for op in self.ops if op.op == "weight"]
        weights.sort(key=lambda op: int(op.detail))
        placed: dict[int, tuple[int, int]] = {}
        place = 0
        for op in self.ops:
            if op.op == "wide":
                group = op.parents[1:]
                stride = _padded(sum(int(w.columns) for w in group))  # type: ignore[arg-type]
                column = 0
                for w in group:
                    placed[id(w)] = place + column, stride
                    column += int(w.columns)  # type: ignore[arg-type]
                place += stride * int(group[0].rows)  # type: ignore[arg-type]
        for op in self.ops:
            if op.op == "long":
                group = op.parents[1 + op.detail :]
                if any(w.op != "weight" or id(w) in placed for w in group) or len(
                    set(map(id, group))
                ) < len(group):
                    continue
                for w in group:
                    stride = _padded(int(w.columns))  # type: ignore[arg-type]
                    placed[id(w)] = place, stride
                    place += stride * int(w.rows)  # type: ignore[arg-type]
        for w in weights:
            if id(w) not in placed:
                stride = _padded(int(w.columns))  # type: ignore[arg-type]
                placed[id(w)] = place, stride
                place += stride * int(w.rows)  # type: ignore[arg-type]
        self.parameters = _padded(place)
        for _ in range(3):
            self._take(SHARED, self.parameters)  # weights and two moments
        self._take(OWN, self.parameters)  # gradients
        for w in weights:
            offset, stride = placed[id(w)]
            w.value = View(SHARED, offset, stride, w.rows, w.columns, room=int(w.columns))  # type: ignore[arg-type]
            w.grad = replace(w.value, space=OWN)
        return [(*placed[id(w)], int(w.rows), int(w.columns)) for w in weights]  # type: ignore[arg-type]

    def _constant(self, op: Op) -> View:
        compute, even = op.detail
        stride = _padded(self._most(op.columns)) if self._most(op.columns) > 1 else 1
        if even:
            return View(
                FIXED, self._keep(compute(self.longest), stride), stride, op.rows, op.columns
            )
        jump = _padded(self._most(op.rows) * stride)
        if jump * (self.longest + 1) > MOST_CONSTANTS:
            raise LeavesContract("its constants for all lengths take too much memory")
        flat = [0.0] * jump
        for tokens in range(1, self.longest + 1):
            rows = compute(tokens)
            cells = [x for row in rows for x in [*row, *[0.0] * (stride - len(row))]]
            flat += cells + [0.0] * (jump - len(cells))
        return View(FIXED, self._kept_at(flat), stride, op.rows, op.columns, BY_LENGTH, jump)

    def _keep(self, rows: list[list[float]], stride: int) -> int:
        return self._kept_at([x for row in rows for x in [*row, *[0.0] * (stride - len(row))]])

    def _kept_at(self, flat: list[float]) -> int:
        key = tuple(flat)
        if key not in self._kept:
            self._kept[key] = self._take(FIXED, len(flat))
            self.constants.append((self._kept[key], flat))
        return self._kept[key]

    def _number(self, e: Expression) -> int:
        """A scalar: one number for each length, or one that each step sets anew."""
        if any(part.op == "symbol" for part in walk(e)):
            key: Any = ("symbol", id(e))
            row = [0.0] * (self.longest + 1)
        else:
            try:
                row = [0.0] + [evaluate(e, {}, t) for t in range(1, self.longest + 1)]
            except (ArithmeticError, ValueError) as error:
                raise LeavesContract(f"a number in it cannot be computed: {error}") from error
            if len(set(row[1:])) == 1:
                row[0] = row[1]
            key = tuple(row)
        if key not in self.numbers:
            self.numbers[key] = len(self.rows_of_numbers)
            self.rows_of_numbers.append(row)
            if key[0] == "symbol":
                self.scalars[id(e)] = (self.numbers[key], e)
        return self.numbers[key]

    # ---- Steps ----

    def _step(
        self, name: str, views: list[View | None], *more: int, together: bool | None = None
    ) -> None:
        seen = [v for v in views if v is not None]
        if together is None:
            together = all(
                v.row_wise() or (v.shift == STAY and not isinstance(v.rows, Length) and not isinstance(v.columns, Length))
                for v in seen
            )  # fmt: skip
        ints = [-1 if v is None else self._view(v) for v in views]
        self.steps.append(
            [STEPS.index(name), 4 + len(ints) + len(more), int(together), len(ints), *ints, *more]
        )
        self.lines.append(self._line)

    def _forward(self, op: Op) -> None:
        name = op.op
        if name == "weight":
            return
        if name == "constant":
            op.value = self._constant(op)
            return
        if name == "slab":
            wide = op.parents[0]
            column = sum(int(w.columns) for w in wide.parents[1 : 1 + op.detail])  # type: ignore[arg-type]
            op.value = _slab(wide.value, column, op.columns)
            return
        if name == "rows":
            op.value = self._sliced(op)
            return
        if op.value is None:
            op.value = self._place(op)
        p = [parent.value for parent in op.parents]
        y = op.value
        if name == "cells":
            self._cells(op.parents, [(y, op.detail[0], False)], op.rows, op.columns)
        elif name == "product":
            ta, tb = op.detail
            self._product(y, p[0], p[1], None, ta, tb, False)
        elif name == "wide":
            self._product(y, p[0], self._side_by_side(op, "value"), None, False, False, False)
        elif name == "long":
            self._long(op)
        elif name == "norm":
            op.detail = (*op.detail, self._new(op.rows, 1))
            self._step("norm", [y, p[0], op.detail[2]], *map(self._number, op.detail[:2]))
        elif name == "attend":
            scale = op.detail
            causal, kept = self._mask(op.parents[3] if len(op.parents) > 3 else None)
            weights = self._new(T, T)
            op.detail = (scale, causal, weights)
            self._scratch(self._most(op.parents[0].columns) * _padded(self.longest))
            self._step(
                "attend", [y, *p[:3], weights, kept], self._number(scale), int(causal), together=False
            )  # fmt: skip
        elif name in ("softmax", "sum", "max"):
            self._step(name, [y, p[0]], 0)
        elif name == "transpose":
            self._step(name, [y, p[0]], 0)
        elif name == "triu":
            self._step(name, [y, p[0]], op.detail, 0)
        elif name == "tokens":
            which = self._which(op)
            self._step(name, [y, p[0]], which, together=None if which < 0 else False)
        elif name == "targets":
            self._step(name, [y])
        else:
            raise LeavesContract(f"the fast engine has no {name}")

    def _place(self, op: Op) -> View:
        """A new matrix, or a part of the one that a long product reads."""
        for user in op.users:
            if (
                user.op == "long"
                and op in user.parents[1 : 1 + user.detail]
                and op.op in ("attend", "product")
            ):
                factors = user.parents[1 : 1 + user.detail]
                whole = user.grad  # kept here until its own gradient is there
                if len(set(map(id, factors))) < len(factors) or any(
                    f.op not in ("attend", "product") for f in factors
                ):
                    break
                if any(f.value is not None for f in factors) and whole is None:
                    break
                if whole is None:
                    columns = [int(f.columns) for f in factors]  # type: ignore[arg-type]
                    whole = user.grad = self._new(op.rows, sum(columns))
                column = sum(int(f.columns) for f in factors[: factors.index(op)])  # type: ignore[arg-type]
                return _slab(whole, column, op.columns)
        return self._new(op.rows, op.columns)

    def _sliced(self, op: Op) -> View:
        first, end = op.detail
        v = op.parents[0].value
        start: Size = first + v.first if not isinstance(v.first, Length) else v.first + first
        return replace(v, rows=op.rows, first=start)

    def _which(self, op: Op) -> int:
        if op.detail is None:
            return -1
        rows = self._most(op.rows)
        flat = [0.0] * rows
        for tokens in range(1, self.longest + 1):
            places = op.detail(tokens)
            flat += [float(x) for x in places] + [0.0] * (rows - len(places))
        return self._view(View(FIXED, self._kept_at(flat), 1, op.rows, 1, BY_LENGTH, rows))

    def _mask(self, mask: Op | None) -> tuple[bool, View | None]:
        """Whether the future weighs nothing, and what else is added to the scores."""
        if mask is None:
            return False, None
        compute, even = mask.detail
        lengths = [self.longest] if even else range(1, self.longest + 1)
        grids = [compute(t) for t in lengths]
        inf = float("-inf")
        causal = all(all(x == inf for x in row[i + 1 :]) for g in grids for i, row in enumerate(g))
        if causal and all(x == 0 for g in grids for i, row in enumerate(g) for x in row[: i + 1]):
            return True, None
        return causal, mask.value

    def _scratch(self, count: int) -> None:
        self.scratch = max(self.scratch, _padded(count))

    def _product(
        self, y: View, a: View, b: View, add: View | None, ta: bool, tb: bool, more: bool
    ) -> None:
        inner = a.rows if ta else a.columns
        self._scratch(
            self._most(inner) * (self.chunk if isinstance(inner, Length) else 1) * 4 * VECTOR
        )
        together = None
        rows_together = (
            a.row_wise()
            and y.row_wise()
            and not ta
            and b.shift == STAY
            and (add is None or add.row_wise())
        )
        sums_together = ta and not tb and a.row_wise() and b.row_wise() and y.shift == STAY
        if rows_together:
            together = not (isinstance(b.rows, Length) or isinstance(b.columns, Length))
        elif sums_together:
            together = True
        else:
            together = False
        self._step("product", [y, a, b, add], int(ta), int(tb), int(more), together=together)

    def _side_by_side(self, wide: Op, what: str) -> View:
        first = getattr(wide.parents[1], what)
        return replace(first, columns=wide.columns, room=wide.columns)

    def _long(self, op: Op) -> None:
        x, factors, weights = (
            op.parents[0],
            op.parents[1 : 1 + op.detail],
            op.parents[1 + op.detail :],
        )
        merged = self._merged(op)
        if merged is not None:
            self._product(op.value, merged[0], merged[1], x.value, False, False, False)
        else:
            for i, (f, w) in enumerate(zip(factors, weights)):
                self._product(
                    op.value, f.value, w.value, None if i else x.value, False, False, i > 0
                )
        op.grad = None

    def _merged(self, op: Op) -> tuple[View, View] | None:
        """The factors as one matrix and the weights as one, if they lie so."""
        factors, weights = op.parents[1 : 1 + op.detail], op.parents[1 + op.detail :]
        views, tables = [f.value for f in factors], [w.value for w in weights]
        for (a, b), (v, w) in zip(zip(views, views[1:]), zip(tables, tables[1:])):
            if replace(a, offset=a.offset + a.columns, columns=b.columns, room=b.room) != b:
                return None
            if w != replace(v, offset=v.offset + v.rows * v.stride, rows=w.rows):
                return None
        if any(t.shift != STAY or t.space != SHARED for t in tables):
            return None
        columns = sum(int(v.columns) for v in views)
        return (
            replace(views[0], columns=columns, room=columns),
            replace(tables[0], rows=sum(int(w.rows) for w in tables)),
        )

    # ---- Functions of cells ----

    def _cells(
        self, parents: list[Any], results: list[tuple[View, Expression, bool]], rows: Size, columns: Size,
        update: bool = False,
    ) -> None:  # fmt: skip
        """One step that reads views and writes expressions of them."""
        used = sorted({p.args[0] for _, e, _ in results for p in walk(e) if p.op == "input"})
        views = [parents[k].value if isinstance(parents[k], Op) else parents[k] for k in used]
        kinds = []
        for v in views:
            tall = not same(v.rows, rows)
            thin = not same(v.columns, columns)
            kinds.append(2 * int(thin) + int(tall))  # 0 whole, 1 a row, 2 a column, 3 one number
        machine = _Machine(self, {k: i for i, k in enumerate(used)})
        outs = []
        for v, e, more in results:
            outs.append((v, machine.compute(machine.divided(e)), int(more)))
        ints: list[int] = []
        for v, kind in zip(views, kinds):
            ints += [self._view(v), kind]
        numbers = list(machine.slots)
        base = len(views) + len(numbers)
        free = [v.room >= _padded(self._most(columns)) and not more for v, _, more in outs]
        twins = [next((i for i, w in enumerate(views) if w == v), None) for v, _, _ in outs]
        body, places, count = machine.listing(
            base, [register for _, register, _ in outs], free, twins
        )
        for (v, _, more), place, direct in zip(outs, places, free):
            ints += [self._view(v), place, more, int(direct)]
        together = all(
            v.row_wise() or (v.shift == STAY and not isinstance(v.rows, Length) and not isinstance(v.columns, Length))
            for v in [*views, *[v for v, _, _ in outs]]
        ) and not any(len(set(self.rows_of_numbers[slot][1:])) > 1 for slot in numbers)  # fmt: skip
        if not update and not any(isinstance(v.rows, Length) for v, _, _ in outs):
            together = False
        head = [
            STEPS.index("cells"),
            0,
            int(together),
            len(views),
            len(numbers),
            len(outs),
            len(body) // 5,
            count,
        ]
        step = [*head, *ints, *numbers, *body]
        step[1] = len(step)
        self.steps.append(step)
        self.lines.append(self._line)

    # ---- The way back ----

    def _into(self, op: Op) -> tuple[View, bool]:
        """Where a gradient goes, and whether it is added to what is there."""
        if op.op == "weight":
            return op.grad, True
        if op.op == "slab":
            wide = op.parents[0]
            if wide.grad is None:
                wide.grad = self._new(wide.rows, wide.columns)
            if op.grad is None:
                column = sum(int(w.columns) for w in wide.parents[1 : 1 + op.detail])  # type: ignore[arg-type]
                op.grad = _slab(wide.grad, column, op.columns)
                return op.grad, False
            return op.grad, True
        if op.grad is None:
            op.grad = self._like(op)
            return op.grad, False
        self._full(op)
        return op.grad, True

    def _like(self, op: Op) -> View:
        """Room for a gradient; side by side with others where the values lie so."""
        for user in op.users:
            if (
                user.op == "long"
                and op in user.parents[1 : 1 + user.detail]
                and self._merged(user) is not None
            ):
                factors = user.parents[1 : 1 + user.detail]
                if user.detail > 1 and all(f.grad is None for f in factors):
                    whole = self._new(op.rows, sum(int(f.columns) for f in factors))  # type: ignore[arg-type]
                    column = 0
                    for f in factors:
                        f.detail_grad = _slab(whole, column, f.columns)  # type: ignore[attr-defined]
                        column += int(f.columns)  # type: ignore[arg-type]
                kept = getattr(op, "detail_grad", None)
                if kept is not None:
                    return kept  # type: ignore[no-any-return]
        return self._new(op.rows, op.columns)

    def _full(self, op: Op) -> View:
        """The gradient as a whole matrix, where only a column of it was kept."""
        if not same(op.grad.columns, op.columns) or not same(op.grad.rows, op.rows):
            thin, op.grad = op.grad, self._new(op.rows, op.columns)
            self._cells([thin], [(op.grad, INPUT[0], False)], op.rows, op.columns)
        return op.grad  # type: ignore[no-any-return]

    def _backward(self) -> None:
        last = self.ops[-1]
        if not (same(last.rows, 1) and same(last.columns, 1)):
            raise LeavesContract("its loss is not a single number")
        if not last.learns:
            raise LeavesContract("its loss does not depend on any weight")
        for op in self.ops:
            if op.op != "weight":
                op.grad = None
        self._line = last.line
        last.grad = self._new(1, 1)
        self._cells([], [(last.grad, ONE, False)], 1, 1)
        for op in reversed(self.ops):
            if op.learns and op.op not in ("weight", "slab"):
                self._line = op.line
                if op.op == "wide":
                    self._wide_back(op)
                elif op.grad is not None:
                    self._back(op)

    def _back(self, op: Op) -> None:
        name, g = op.op, op.grad
        if name not in ("cells", "sum"):
            g = self._full(op)
        p = op.parents
        if name == "cells":
            self._cells_back(op)
        elif name == "product":
            self._product_back(op, p[0], p[1], g)
        elif name == "long":
            self._long_back(op, g)
        elif name == "sum":
            x = p[0]
            if x.grad is None and x.op not in ("weight", "slab"):
                x.grad = g
                if x.op != "cells" or len(x.users) > 1:
                    self._full(x)
            else:
                self._add(x, g)
        elif name == "norm":
            into, more = self._into(p[0])
            self._step(
                "norm_back",
                [into, g, p[0].value, op.detail[2]],
                self._number(op.detail[0]),
                int(more),
            )
        elif name == "softmax":
            into, more = self._into(p[0])
            self._step("softmax_back", [into, g, op.value], int(more))
        elif name == "attend":
            scale, causal, weights = op.detail
            p = p[:3]
            intos = [
                self._into(x) if x.learns else (self._new(x.rows, x.columns), False) for x in p
            ]
            self._scratch(
                3 * self._most(p[0].columns) * _padded(self.longest)
                + 2 * self.longest * _padded(self.longest)
            )
            self._step(
                "attend_back", [*[v for v, _ in intos], g, *[x.value for x in p], weights], self._number(scale),
                int(causal), *[int(more) for _, more in intos], together=False,
            )  # fmt: skip
        elif name == "transpose":
            into, more = self._into(p[0])
            self._step("transpose", [into, g], int(more))
        elif name == "triu":
            into, more = self._into(p[0])
            self._step("triu", [into, g], op.detail, int(more))
        elif name == "tokens":
            into, more = self._into(p[0])
            if not more:
                self._step("zero", [into])
            which = self._which(op)
            self._step("scatter", [into, g], which, together=None if which < 0 else False)
        elif name == "rows":
            first, _ = op.detail
            into, more = self._into(p[0])
            if not more:
                self._step("zero", [into])
            start: Size = (
                first + into.first if not isinstance(into.first, Length) else into.first + first
            )
            part = replace(into, rows=op.rows, first=start)
            self._cells([g], [(part, INPUT[0], True)], op.rows, op.columns)
        else:
            raise LeavesContract(f"the fast engine has no way back through {name}")

    def _add(self, op: Op, g: View) -> None:
        into, more = self._into(op)
        self._cells([g], [(into, INPUT[0], more)], op.rows, op.columns)

    def _pass(self, op: Op, parents: list[Op]) -> None:
        """Parents whose gradient is just this one's: the first takes the matrix over, if it can."""

        def free(x: Op) -> bool:
            return x.op not in ("weight", "slab") and x.grad is None and not self._laid(x)

        if all(free(x) and x.users == [op] and x.op in ("tokens", "rows") for x in parents):
            for x in parents:  # all only read it
                x.grad = op.grad
            return
        heir = next((x for x in parents if free(x)), None)
        for x in parents:
            if x is not heir:
                self._add(x, op.grad)
        if heir is not None:
            heir.grad = op.grad

    def _laid(self, op: Op) -> bool:
        return any(
            u.op == "long" and u.detail > 1 and op in u.parents[1 : 1 + u.detail] for u in op.users
        )

    def _cells_back(self, op: Op) -> None:
        g = op.grad
        whole = same(g.columns, op.columns) and same(g.rows, op.rows)
        passed, results, after = [], [], []
        out = len(op.parents)
        inputs: list[Any] = [*op.parents, g]
        for x, slope in zip(op.parents, op.detail[1:]):
            if not x.learns:
                continue
            fits = same(x.rows, op.rows) and same(x.columns, op.columns)
            if slope is ONE and fits and whole:
                passed.append(x)
                continue
            e = _arithmetic("mul", Expression("input", out), slope)
            if fits:
                into, more = self._into(x)
                results.append((into, e, more))
            else:
                room = g if slope is ONE and whole else self._new(op.rows, op.columns)
                if room is not g:
                    results.append((room, e, False))
                after.append((x, room))
        if results:
            self._cells(inputs, results, op.rows, op.columns)
        for x, room in after:
            self._shrink(x, room, op)
        self._pass(op, passed)

    def _shrink(self, x: Op, g: View, op: Op) -> None:
        """What was repeated on the way there is summed on the way back."""
        if not same(x.columns, op.columns):
            if same(x.rows, op.rows):
                into, more = self._into(x)
                self._step("sum", [into, g], int(more))
                return
            column = self._new(op.rows, 1)
            self._step("sum", [column, g], 0)
            g = column
        into, more = self._into(x)
        self._step("sum_rows", [into, g], int(more), together=into.shift == STAY and g.row_wise())

    def _product_back(self, op: Op, a: Op, b: Op, g: View) -> None:
        ta, tb = op.detail
        if a.learns:
            into, more = self._into(a)
            if ta:
                self._product(into, b.value, g, None, tb, True, more)
            else:
                self._product(into, g, b.value, None, False, not tb, more)
        if b.learns:
            into, more = self._into(b)
            if tb:
                self._product(into, g, a.value, None, True, ta, more)
            else:
                self._product(into, a.value, g, None, not ta, False, more)

    def _long_back(self, op: Op, g: View) -> None:
        x, factors, weights = (
            op.parents[0],
            op.parents[1 : 1 + op.detail],
            op.parents[1 + op.detail :],
        )
        merged = self._merged(op)
        fresh = all(f.learns and f.grad is None and f.op != "slab" for f in factors)
        if merged is not None and fresh:
            intos = [self._into(f)[0] for f in factors]
            whole = replace(intos[0], columns=merged[0].columns, room=merged[0].columns)
            together = all(
                b == replace(a, offset=a.offset + a.columns, columns=b.columns, room=b.room)
                for a, b in zip(intos, intos[1:])
            )  # fmt: skip
            if together:
                self._product(whole, g, merged[1], None, False, True, False)
            else:
                for into, w in zip(intos, weights):
                    self._product(into, g, w.value, None, False, True, False)
            table = replace(weights[0].grad, rows=merged[1].rows)
            self._product(table, merged[0], g, None, True, False, True)
        else:
            for f, w in zip(factors, weights):
                if f.learns:
                    into, more = self._into(f)
                    self._product(into, g, w.value, None, False, True, more)
                if w.learns:
                    into, more = self._into(w)
                    self._product(into, f.value, g, None, True, False, more)
        if x.learns:
            self._pass(op, [x])

    def _wide_back(self, op: Op) -> None:
        slabs = [u for u in op.users if u.op == "slab"]
        if all(s.grad is None for s in slabs):
            return
        for s in slabs:
            if s.grad is None:
                self._step("zero", [self._into(s)[0]])
        x = op.parents[0]
        if x.learns:
            into, more = self._into(x)
            self._product(into, op.grad, self._side_by_side(op, "value"), None, False, True, more)
        self._product(self._side_by_side(op, "grad"), x.value, op.grad, None, True, False, True)

    # ---- The optimiser ----

    def _update(self, update: Update) -> None:
        n = self.parameters
        w, m, v = (View(SHARED, i * n, n, 1, n, room=n) for i in range(3))
        g = View(OWN, 0, n, 1, n, room=n)
        self._line = 0
        found: dict[str, Any] = {}
        forms = (
            (update.first, ("add", ("mul", INPUT[2], "keep1"), ("mul", INPUT[1], "new1"))),
            (update.second, ("add", ("mul", INPUT[3], "keep2"), ("mul", ("mul", INPUT[1], "new2"), INPUT[1]))),
            (update.weight, ("sub", INPUT[0], ("mul", "rate", (
                "div", ("div", update.first, "c1"), ("add", ("sqrt", ("div", update.second, "c2")), "eps"),
            )))),
        )  # fmt: skip
        if all(_match(e, form, found) for e, form in forms):
            ups = [_arithmetic("div", 1.0, found[c]) for c in ("c1", "c2")]
            kept = [found[name] for name in ("keep1", "new1", "keep2", "new2")]
            numbers = [self._number(e) for e in (*kept, *ups, found["eps"], found["rate"])]
            self._step("adam", [w, g, m, v], *numbers, together=True)
            return
        inputs = [w, g, m, v]
        results = [
            (m, update.first, False),
            (v, update.second, False),
            (w, update.weight, False),
            (g, ZERO, False),
        ]
        results = [
            (view, e, more)
            for view, e, more in results
            if not (e.op == "input" and inputs[e.args[0]] == view)
        ]
        self._cells(inputs, results, 1, n, update=True)


def _in_lanes(v: View) -> bool:
    """Whether documents of different lengths can share a view: each lane has the first rows of it."""
    sizes = [size for size in (v.rows, v.columns, v.first) if isinstance(size, Length)]
    return (
        v.shift != BY_LENGTH
        and all(size == T for size in sizes)
        and not isinstance(v.first, Length)
    )


def _affine(size: Size) -> tuple[int, int]:
    return (size.times, size.plus) if isinstance(size, Length) else (0, size)


def _slab(whole: View, column: int, columns: Size) -> View:
    return replace(whole, offset=whole.offset + column, columns=columns, room=at(columns, 1))


class _Machine:
    """Registers and micro-steps of one function of cells."""

    def __init__(self, builder: Builder, inputs: dict[int, int]) -> None:
        self.builder, self.inputs = builder, inputs
        self.slots: dict[int, int] = {}  # slot of a number: its register, after the inputs'
        self.made: dict[int, Any] = {}
        self.body: list[tuple[int, Any, Any, Any, Any]] = []

    def divided(self, e: Expression) -> Expression:
        """Dividing by a number is multiplying by its inverse."""
        if not e.args or not isinstance(e.args[0], Expression) or not _varies(e):
            return e
        args = [self.divided(a) for a in e.args]
        if e.op == "div" and not _varies(args[1]):
            return Expression("mul", args[0], _arithmetic("div", 1.0, args[1]))
        return Expression(e.op, *args)

    def compute(self, e: Expression) -> Any:
        """The register of an expression: ("input", i), ("number", slot) or ("made", k)."""
        if id(e) in self.made:
            return self.made[id(e)]
        place: Any
        if e.op == "input":
            place = ("input", self.inputs[e.args[0]])
        elif not _varies(e):
            slot = self.builder._number(e)
            self.slots.setdefault(slot, len(self.slots))
            place = ("number", slot)
        elif e.op == "add" and any(
            a.op == "mul" and _varies(a) and id(a) not in self.made for a in e.args
        ):
            product = next(
                a for a in e.args if a.op == "mul" and _varies(a) and id(a) not in self.made
            )
            other = e.args[1] if product is e.args[0] else e.args[0]
            a, b, c = (self.compute(x) for x in (*product.args, other))
            place = self._emit("muladd", a, b, c)
        else:
            place = self._emit(e.op, *[self.compute(a) for a in e.args])
        self.made[id(e)] = place
        return place

    def _emit(self, op: str, *args: Any) -> Any:
        padded = (*args, None, None, None)[:3]
        place = ("made", len(self.body))
        self.body.append((MICRO.index(op), place, *padded))
        return place

    def listing(
        self, base: int, results: list[Any], free: list[bool], twins: list[int | None]
    ) -> tuple[list[int], list[int], int]:
        """The micro-steps with registers given out, where each result is, and how many registers.

        A result that may be written as it comes (`free`) has a register of its own after all others, which is
        its memory; not so when an input that lies there (`twins`) is still read later.
        """
        last: dict[Any, int] = {}
        for k, (_, _, *args) in enumerate(self.body):
            for a in args:
                if a is not None:
                    last[a] = k
        owner: dict[Any, int] = {}
        for n, r in enumerate(results):
            made_at = r[1] if r[0] == "made" else -1
            twin = ("input", twins[n])
            if r[0] == "made" and free[n] and r not in owner and last.get(twin, -1) <= made_at:
                owner[r] = n
            last[r] = len(self.body)
        idle: list[int] = []
        place: dict[Any, int] = {}
        count = base

        def register(a: Any) -> int:
            if a is None:
                return 0
            if a[0] == "input":
                return int(a[1])
            if a[0] == "number":
                return len(self.inputs) + self.slots[a[1]]
            return place[a]

        rows: list[list[int]] = []
        for k, (op, out, *args) in enumerate(self.body):
            sources = [register(a) for a in args]
            if out in owner:
                place[out] = -1 - owner[out]
            elif idle:
                place[out] = idle.pop()
            else:
                place[out] = count
                count += 1
            rows.append([op, place[out], *sources])
            for a in {a for a in args if a is not None}:
                if a[0] == "made" and last[a] == k and a not in owner:
                    idle.append(place[a])
        late = lambda r: count - 1 - r if r < 0 else r
        flat = [x if i == 0 else late(x) for row in rows for i, x in enumerate(row)]
        return flat, [late(register(r)) for r in results], count


def _varies(e: Expression) -> bool:
    return any(part.op == "input" for part in walk(e))


def build(tape: Tape, update: Update | None, chunk: int, vocab: int) -> Program:
    """A program for the kernel.

    Raises:
        LeavesContract: in words, why there is none.
    """
    return Builder(tape, update, chunk, vocab).build()


_unused: tuple[Any, ...] = (MINUS, Callable, substituted, _cell)

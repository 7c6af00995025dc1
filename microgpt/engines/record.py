"""Record a program: run the model of a source once, on tensors that only write down what is done to them.

The file's model functions are written in a contract of about a dozen operations. A `Recorder` runs
them on tensors that hold no numbers: each operation appends a `Node` to a list, the *tape*, with the
shape of its result, the nodes that it was made from, and what it does. How many tokens a document
has is not known then; it is a `Length`, and the tape holds for every length.

What an operation does to each cell (`+`, `relu`, ...) is not known here either: it is read from the
source, whose `cellwise` functions are run on symbols and give an `Expression` for the value and one
for each slope. So an edit of them, or a new one, is recorded like the rest. Only the operations that
move cells (`@`, `transpose`, `sum`, ...) have a meaning of their own here, the file's; a source that
edits those, or that does something that symbols cannot follow, is refused with `LeavesContract`.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from microgpt.errors import LeavesContract
from microgpt.source import FILENAME, ORIGINAL, execute

MOST_NODES = 20_000  # a tape longer than this is not worth recording
MOST_BRANCHES = 32  # ways through one function of cells, by its comparisons


class _Looked(Exception):
    """The program asked how many tokens there are, as a number: it must be recorded for each."""


# ---- Expressions: what is done to a cell ----


class Expression:
    """Arithmetic on symbols: `op` and its arguments, each made once, so that equal ones are the same.

    The leaves are `input` (the cell of the k-th matrix), `number`, `length` (the number of tokens, as
    a times it plus b) , `each` (a number for each length, from the first) and `symbol` (a name).
    """

    __slots__ = ("args", "op")
    op: str
    args: tuple[Any, ...]
    _made: dict[tuple[Any, ...], Expression] = {}  # noqa: RUF012

    def __new__(cls, op: str, *args: Any) -> Expression:
        key = (op, *[id(a) if isinstance(a, Expression) else (type(a), a) for a in args])
        made = cls._made.get(key)
        if made is None:
            if len(cls._made) > 200_000:
                cls._made.clear()
            made = super().__new__(cls)
            made.op, made.args = op, args
            cls._made[key] = made
        return made

    def __repr__(self) -> str:
        return f"{self.op}({', '.join(map(repr, self.args))})"

    def __add__(self, other: Any) -> Any:
        return _arithmetic("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return _arithmetic("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return _arithmetic("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _arithmetic("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return _arithmetic("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _arithmetic("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _arithmetic("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _arithmetic("div", other, self)

    def __pow__(self, other: Any) -> Any:
        return _arithmetic("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return _arithmetic("pow", other, self)

    def __neg__(self) -> Any:
        return _arithmetic("mul", self, -1)

    def __pos__(self) -> Expression:
        return self

    def __abs__(self) -> Any:
        return _arithmetic("max", self, _arithmetic("mul", self, -1))

    def __gt__(self, other: Any) -> Any:
        return _arithmetic("gt", self, other)

    def __lt__(self, other: Any) -> Any:
        return _arithmetic("gt", other, self)

    def __ge__(self, other: Any) -> Any:
        return _arithmetic("ge", self, other)

    def __le__(self, other: Any) -> Any:
        return _arithmetic("ge", other, self)

    def __bool__(self) -> bool:
        return _branches.decide(self)

    def __float__(self) -> float:
        raise LeavesContract("it turns a cell into a plain number")

    __int__ = __index__ = __round__ = __float__  # type: ignore[assignment]


def number(value: float) -> Expression:
    return Expression("number", float(value))


def expression(value: Any) -> Expression:
    """A number, a length or an expression, as an expression."""
    if isinstance(value, Expression):
        return value
    if isinstance(value, Length):
        return Expression("length", value.times, value.plus)
    if isinstance(value, int | float):
        return number(value)
    raise LeavesContract(f"it computes with a {type(value).__name__} where a number is expected")


def _arithmetic(op: str, *values: Any) -> Any:
    """An operation on cells; of numbers only it is done at once, and what changes nothing is left out."""
    if not all(isinstance(value, Expression | Length | int | float) for value in values):
        return NotImplemented
    args = [expression(value) for value in values]
    if (
        _branches.as_written
        and op in ("add", "sub", "mul", "div")
        and any(a.op != "number" for a in args)
    ):
        return Expression(op, *args)
    if all(arg.op == "number" for arg in args):
        try:
            return number(NUMERIC[op](*[arg.args[0] for arg in args]))
        except (ArithmeticError, ValueError, TypeError) as error:
            raise LeavesContract(f"a number in it cannot be computed: {error}") from error
    if op == "mul":
        if args[1].op == "number" and args[1].args[0] == 1:
            return args[0]
        if args[0].op == "number" and args[0].args[0] == 1:
            return args[1]
        if args[0].op == "number":
            args.reverse()  # the number last
    if op in ("add", "sub") and args[1].op == "number" and args[1].args[0] == 0:
        return args[0]
    if op == "add" and args[0].op == "number":
        if args[0].args[0] == 0:
            return args[1]
        args.reverse()
    if op == "add":
        for one, other in (args, args[::-1]):
            if other.op == "mul" and other.args[1] is number(-1):
                return _arithmetic("sub", one, other.args[0])
    if op == "div" and args[1].op == "number" and args[1].args[0] == 1:
        return args[0]
    if op == "pow" and args[1].op == "number":
        power = args[1].args[0]
        if power == 1:
            return args[0]
        if power == 2:
            return _arithmetic("mul", args[0], args[0])
        if power == 0.5:
            return Expression("sqrt", args[0])
        if power == 0:
            return number(1)
        if power in (-1, -2, -0.5):
            return _arithmetic("div", 1.0, _arithmetic("pow", args[0], -power))
        if power in (3, 4, -3, -4):
            half = _arithmetic("pow", args[0], abs(power) - 1)
            whole = _arithmetic("mul", half, args[0])
            return whole if power > 0 else _arithmetic("div", 1.0, whole)
        if power in (1.5, -1.5):
            whole = _arithmetic("mul", args[0], Expression("sqrt", args[0]))
            return whole if power > 0 else _arithmetic("div", 1.0, whole)
    if op == "where" and args[1] is args[2]:
        return args[1]
    return Expression(op, *args)


def simplified(e: Expression) -> Expression:
    """The same, without what changes nothing."""
    if not e.args or not isinstance(e.args[0], Expression):
        return e
    result: Expression = _arithmetic(e.op, *[simplified(a) for a in e.args])
    return result


def _log(x: float) -> float:
    return math.log(x)


NUMERIC: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b, "pow": lambda a, b: a**b, "max": max, "min": min,
    "gt": lambda a, b: float(a > b), "ge": lambda a, b: float(a >= b),
    "where": lambda c, a, b: a if c else b, "exp": math.exp, "log": _log, "sqrt": math.sqrt,
    "tanh": math.tanh,
}  # fmt: skip
CALLS = ("exp", "log", "sqrt", "tanh")  # functions of `math` that a cell may be given to


def evaluate(e: Expression, symbols: dict[str, float], tokens: int = 0) -> float:
    """The number that an expression without inputs stands for."""
    if e.op == "number":
        return float(e.args[0])
    if e.op == "symbol":
        return symbols[e.args[0]]
    if e.op == "length":
        return float(e.args[0] * tokens + e.args[1])
    if e.op == "each":
        return float(e.args[0][tokens - 1])
    return NUMERIC[e.op](*[evaluate(a, symbols, tokens) for a in e.args])


class _Branches:
    """The ways through a function whose course depends on a cell: each is taken once, and the results
    are put together, cell by cell, as the comparisons come out."""

    def __init__(self) -> None:
        self.taken: list[bool] | None = None
        self.used = 0
        self.as_written = False  # for one of several lengths: a 1 here may be a 2 there

    class Fork(Exception):
        def __init__(self, condition: Expression) -> None:
            self.condition = condition

    def decide(self, condition: Expression) -> bool:
        if condition.op == "number":
            return bool(condition.args[0])
        if self.taken is None:
            raise LeavesContract("which way it goes depends on the numbers in a matrix")
        if self.used == len(self.taken):
            raise _Branches.Fork(condition)
        self.used += 1
        return self.taken[self.used - 1]

    def explore(self, run: Callable[[], list[Any]]) -> list[Expression]:
        """What `run` gives, whichever way it goes."""
        before, count = (self.taken, self.used), 0

        def go(taken: list[bool]) -> list[Expression]:
            nonlocal count
            count += 1
            if count > MOST_BRANCHES:
                raise LeavesContract("a function of cells has too many ways through it")
            self.taken, self.used = taken, 0
            try:
                return [expression(value) for value in run()]
            except _Branches.Fork as fork:
                yes, no = go([*taken, True]), go([*taken, False])
                if len(yes) != len(no):
                    raise LeavesContract(
                        "a function of cells gives more in one case than in another"
                    ) from None
                return [_arithmetic("where", fork.condition, a, b) for a, b in zip(yes, no)]

        try:
            return go([])
        finally:
            self.taken, self.used = before


_branches = _Branches()


# ---- Sizes ----


class Length:
    """A number of rows or columns that grows with the document: `times` its tokens, plus `plus`."""

    __slots__ = ("plus", "times")

    def __init__(self, times: int, plus: int) -> None:
        self.times, self.plus = times, plus

    def __repr__(self) -> str:
        return f"{self.times}T{self.plus:+}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Length):
            return (self.times, self.plus) == (other.times, other.plus)
        if isinstance(other, int):
            raise _Looked
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self.times, self.plus))

    def _affine(self, other: Any, sign: int, op: str, swapped: bool = False) -> Any:
        if isinstance(other, bool) or not isinstance(other, int | Length):
            return _arithmetic(op, *((other, self) if swapped else (self, other)))
        times, plus = (other.times, other.plus) if isinstance(other, Length) else (0, other)
        if swapped:
            return _size(times + sign * self.times, plus + sign * self.plus)
        return _size(self.times + sign * times, self.plus + sign * plus)

    def __add__(self, other: Any) -> Any:
        return self._affine(other, 1, "add")

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._affine(other, -1, "sub")

    def __rsub__(self, other: Any) -> Any:
        return self._affine(other, -1, "sub", swapped=True)

    def __mul__(self, other: Any) -> Any:
        if type(other) is int:
            return _size(self.times * other, self.plus * other)
        return _arithmetic("mul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return _arithmetic("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _arithmetic("div", other, self)

    def __pow__(self, other: Any) -> Any:
        return _arithmetic("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return _arithmetic("pow", other, self)

    def __neg__(self) -> Any:
        return _size(-self.times, -self.plus)

    def _look(self, *_: Any) -> Any:
        raise _Looked

    __lt__ = __le__ = __gt__ = __ge__ = __index__ = __int__ = __float__ = __bool__ = _look
    __mod__ = __floordiv__ = __rmod__ = __rfloordiv__ = _look


Size = int | Length


def _size(times: int, plus: int) -> Size:
    return Length(times, plus) if times else plus


def at(size: Size, tokens: int) -> int:
    """A size, in a document of that many tokens."""
    return size.times * tokens + size.plus if isinstance(size, Length) else size


def same(a: Size, b: Size) -> bool:
    if isinstance(a, Length) != isinstance(b, Length):
        return False
    return a == b


# ---- The tape ----

Matrix = list[list[float]]


@dataclass
class Node:
    """One operation: what it does, to which nodes before it, and the shape that comes of it.

    | op | detail |
    |---|---|
    | `weight` | its number, in the order of `leaves` |
    | `constant` | (a function of the number of tokens that gives its matrix, whether a longer one only adds
    to it) |
    | `targets` | None: one row a token, 1 where its column is the next token |
    | `cells` | (the value, a slope for each parent), expressions of the parents' cells |
    | `product` | None: rows times columns |
    | `rows` | (first, end) of a slice |
    | `tokens` | which tokens choose the rows, a function of their number; None: all, in order |
    | `sum`, `max` | None: along each row |
    | `triu` | how far right of the diagonal it begins |
    | `transpose` | None |
    """

    op: str
    parents: tuple[int, ...]
    rows: Size
    columns: Size
    detail: Any = None
    line: int = 0


@dataclass
class Tape:
    """The operations of one function of the model, in the order in which they were done.

    `result` is the node of its value. `longest` is the most tokens that it holds for.
    """

    nodes: list[Node] = field(default_factory=list)
    result: int = -1
    longest: int = 0


class _Token:
    """A token of the document, not known yet; it can only choose a row."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place

    def _refuse(self, *_: Any) -> Any:
        raise LeavesContract("it computes with the number of a token")

    __add__ = __radd__ = __sub__ = __mul__ = __mod__ = __floordiv__ = __lt__ = __gt__ = _refuse
    __index__ = __int__ = __float__ = __eq__ = __bool__ = _refuse  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


class _Tokens:
    """All tokens of the document, in order, when their number is not known."""

    def _look(self, *_: Any) -> Any:
        raise _Looked

    __iter__ = __len__ = __getitem__ = __contains__ = _look


# What moves cells has the file's meaning, which this module and the kernel implement.
FIXED = (
    "flip", "add", "mul", "pick", "matmul", "stretch", "shrink", "backward", "Tensor.__init__",
    "Tensor.cellwise", "Tensor.__matmul__", "Tensor.__getitem__", "Tensor.sum", "Tensor.triu",
    "Tensor.transpose", "Tensor.amax", "Tensor.new_full",
)  # fmt: skip


def _definitions(source: str) -> dict[str, tuple[str, int]]:
    """Every function of a source by its path, as a text that ignores layout, and its line."""
    found: dict[str, tuple[str, int]] = {}

    def walk(body: list[ast.stmt], path: str) -> None:
        for statement in body:
            if isinstance(statement, ast.FunctionDef):
                found[path + statement.name] = (ast.dump(statement), statement.lineno)
            elif isinstance(statement, ast.ClassDef):
                walk(statement.body, f"{path}{statement.name}.")

    walk(ast.parse(source).body, "")
    return found


_ORIGINAL = _definitions(ORIGINAL)


def unedited(source: str, *names: str) -> str | None:
    """The first of these functions that a source has changed, left out or made twice; None when none."""
    try:
        found = _definitions(source)
    except SyntaxError:
        return names[0]
    return next((n for n in names if n not in found or found[n][0] != _ORIGINAL[n][0]), None)


def _math() -> Any:
    """The `math` of a recorded source: its functions also take cells."""

    class Module:
        def __getattr__(self, name: str) -> Any:
            real = getattr(math, name)
            if not callable(real):
                return real

            def call(*args: Any) -> Any:
                if not any(isinstance(a, Expression | Length) for a in args):
                    return real(*args)
                if name == "pow":
                    return _arithmetic("pow", *args)
                if name not in CALLS:
                    raise LeavesContract(f"it gives a cell to math.{name}")
                return _arithmetic(name, *args)

            return call

    return Module()


def refuse(what: str) -> Callable[..., Any]:
    """A function that a recorded source may not call."""

    def call(*_: Any, **__: Any) -> Any:
        raise LeavesContract(f"it {what} as it runs")

    return call


class _NoChance:
    """The `random` of a recorded source: what is drawn when it is recorded would stay so."""

    def __getattr__(self, name: str) -> Any:
        raise LeavesContract("its model draws random numbers")


def _extreme(op: str) -> Callable[..., Any]:
    """`max` or `min`, which also take cells."""
    real = getattr(builtins, op)

    def call(*args: Any, **more: Any) -> Any:
        values = list(args[0]) if len(args) == 1 and not more else args
        if more or not any(isinstance(value, Expression) for value in values):
            return real(values, **more) if len(args) == 1 and not more else real(*args, **more)
        best = values[0]
        for value in values[1:]:
            best = _arithmetic(op, best, value)
        return best

    return call


class Recorder:
    """A source, ready to be recorded.

    Args:
        source: the text of `gpt.py`, or of an edit of it.
        weights: the shape of each weight, in the order of `leaves`.
        params: the tree that the source's `init` made, whose leaves are those weights.

    Raises:
        LeavesContract: the source edits an operation whose meaning is fixed.
    """

    def __init__(self, source: str, params: Any, namespace: dict[str, Any]) -> None:
        edited = unedited(source, *FIXED)
        if edited is not None:
            raise LeavesContract(f"it changes {edited}, which the fast engine has a copy of")
        self._original = namespace
        self.source = source
        with contextlib.redirect_stdout(io.StringIO()):  # it has been executed, and heard, before
            self.space = execute(source)
        self.space.update(math=_math(), max=_extreme("max"), min=_extreme("min"))
        self.space.update(print=refuse("prints"), input=refuse("asks"), open=refuse("opens a file"))
        self.space["random"] = _NoChance()
        self._tensor = self._make(self.space["Tensor"])
        self.space["Tensor"] = self._tensor
        self._cells: dict[Any, list[Expression]] = {}
        self.tape = Tape()
        self._weights = namespace["leaves"](params)
        self._params = params
        self.shapes = [tuple(w.shape) for w in self._weights]

    # ---- Recording ----

    def record(
        self, function: Callable[[dict[str, Any], Any, Any, Any], Any], longest: int, vocab: int
    ) -> Tape:
        """The tape of `function(namespace, params, ids, targets)`, for 1 to `longest` tokens.

        Raises:
            LeavesContract: in words, why it cannot be.
        """
        try:
            tape = self._once(function, None, vocab)
            _hold(tape, longest)
        except _Looked:
            _branches.as_written = True
            try:
                tape = _together([self._once(function, t, vocab) for t in range(1, longest + 1)])
            finally:
                _branches.as_written = False
            for node in tape.nodes:
                if node.op == "cells":
                    node.detail = tuple(map(simplified, node.detail))
        tape.longest = longest
        return tape

    def _once(self, function: Any, tokens: int | None, vocab: int) -> Tape:
        self.tape = Tape()
        length: Size = Length(1, 0) if tokens is None else tokens
        ids: Any = _Tokens() if tokens is None else [_Token(i) for i in range(tokens)]
        try:
            weights = [self._node("weight", (), *shape, i) for i, shape in enumerate(self.shapes)]
            params = _replaced(self._params, {id(w): n for w, n in zip(self._weights, weights)})
            targets = self._node("targets", (), length, vocab)
            result = function(self.space, params, ids, targets)
        except (_Looked, LeavesContract):
            raise
        except _Branches.Fork:
            raise LeavesContract("which way it goes depends on the numbers in a matrix") from None
        except RecursionError:
            raise LeavesContract("it goes too deep") from None
        except Exception as error:
            raise LeavesContract(f"{type(error).__name__}: {error}") from error
        if not isinstance(result, self._tensor):
            raise LeavesContract("its result is not a tensor")
        self.tape.result = result.node
        return self.tape

    def _node(
        self, op: str, parents: tuple[int, ...], rows: Size, columns: Size, detail: Any = None
    ) -> Any:
        if len(self.tape.nodes) >= MOST_NODES:
            raise LeavesContract(f"it does more than {MOST_NODES:,} operations for a document")
        self.tape.nodes.append(Node(op, parents, rows, columns, detail, _line()))
        tensor = object.__new__(self._tensor)
        tensor.node = len(self.tape.nodes) - 1
        tensor.shape = (rows, columns)
        return tensor

    def _make(self, base: type) -> type:
        """The source's own Tensor, with everything that moves cells replaced by a note of it."""
        recorder = self

        def new(tensor: Any, data: Any, *parents: Any) -> None:
            if parents:
                raise LeavesContract("it makes a tensor with a way back of its own")
            rows = [[_plain(x) for x in row] for row in data]
            if len({len(row) for row in rows}) != 1:
                raise LeavesContract("it makes a tensor whose rows are not equally long")
            node = recorder._node("constant", (), len(rows), len(rows[0]), (lambda _: rows, True))
            tensor.node, tensor.shape = node.node, node.shape

        def hidden(tensor: Any) -> Any:
            raise LeavesContract("it reads the numbers of a tensor")

        def unknown(tensor: Any, name: str) -> Any:
            raise LeavesContract(f"tensors of the fast engine have no {name}")

        return type("Tensor", (base,), {
            "__init__": new, "data": property(hidden), "grad": property(hidden), "parents": property(hidden),
            "cellwise": lambda x, f, *others: recorder._cellwise(x, f, *others),
            "__matmul__": lambda x, other: recorder._product(x, other),
            "__getitem__": lambda x, ids: recorder._rows(x, ids),
            "sum": lambda x, dim, keepdim: recorder._node("sum", (x.node,), x.shape[0], 1),
            "amax": lambda x, dim, keepdim: recorder._node("max", (x.node,), x.shape[0], 1),
            "triu": lambda x, k: recorder._triu(x, k),
            "transpose": lambda x, *dims: recorder._node("transpose", (x.node,), x.shape[1], x.shape[0]),
            "new_full": lambda x, shape, value: recorder._full(shape, value),
            "__getattr__": unknown, "__iter__": None,
        })  # fmt: skip

    # ---- The contract's operations ----

    def _cellwise(self, tensor: Any, f: Any, *others: Any) -> Any:
        values = (tensor, *others)
        tensors = [v for v in values if isinstance(v, self._tensor)]
        nodes = list(dict.fromkeys(t.node for t in tensors))
        inputs = [
            Expression("input", nodes.index(v.node))
            if isinstance(v, self._tensor)
            else expression(v)
            for v in values
        ]
        rows, columns = 1, 1
        for t in tensors:
            rows, columns = _broadcast(rows, t.shape[0]), _broadcast(columns, t.shape[1])
        result = self._traced(f, inputs)
        if len(result) != len(values) + 1:
            raise LeavesContract(
                f"a function of {len(values)} cells gives {len(result) - 1} slopes"
            )
        slopes: list[Expression] = [number(0)] * len(nodes)
        for v, slope in zip(values, result[1:]):
            if isinstance(v, self._tensor):
                k = nodes.index(v.node)
                slopes[k] = _arithmetic("add", slopes[k], slope)
        folded = self._folded(nodes, result[0], rows, columns)
        if folded is not None:
            return folded
        return self._node("cells", tuple(nodes), rows, columns, (result[0], *slopes))

    def _traced(self, f: Any, inputs: list[Expression]) -> list[Expression]:
        closure = tuple(cell.cell_contents for cell in getattr(f, "__closure__", None) or ())
        key: Any = None
        if all(isinstance(x, int | float | Expression) for x in closure) and hasattr(f, "__code__"):
            key = (f.__code__, closure, _branches.as_written, *map(id, inputs))
        if key in self._cells:
            return self._cells[key]
        traced = _branches.explore(lambda: list(f(*inputs)))
        if key is not None:
            self._cells[key] = traced
        return traced

    def _folded(self, nodes: list[int], value: Expression, rows: Size, columns: Size) -> Any:
        """Cells of constants are a constant."""
        parents = [self.tape.nodes[n] for n in nodes]
        if any(p.op != "constant" for p in parents):
            return None

        def compute(tokens: int) -> Any:
            grids = [matrix(p, tokens) for p in parents]
            shape = at(rows, tokens), at(columns, tokens)
            return [
                [_cell(value, [_seen(g, i, j) for g in grids], tokens) for j in range(shape[1])]
                for i in range(shape[0])
            ]

        even = all(p.detail[1] for p in parents) and _even(value)
        return self._node("constant", (), rows, columns, (compute, even))

    def _product(self, a: Any, b: Any) -> Any:
        if not isinstance(b, self._tensor):
            raise LeavesContract(f"it multiplies a tensor by a {type(b).__name__}")
        if not _fits(a.shape[1], b.shape[0]):
            raise LeavesContract(f"{a.shape[1]} columns @ {b.shape[0]} rows do not fit")
        return self._node("product", (a.node, b.node), a.shape[0], b.shape[1])

    def _rows(self, x: Any, ids: Any) -> Any:
        rows = x.shape[0]
        if isinstance(ids, slice):
            if ids.step is not None:
                raise LeavesContract("a slice has a step")
            first, end = (
                _place(place, rows, default)
                for place, default in ((ids.start, 0), (ids.stop, rows))
            )
            if (
                not isinstance(rows, Length)
                and not isinstance(first, Length)
                and not isinstance(end, Length)
            ):
                end = min(end, rows)
            return self._node("rows", (x.node,), end - first, x.shape[1], (first, end))
        if isinstance(ids, _Tokens):
            return self._node("tokens", (x.node,), Length(1, 0), x.shape[1], None)
        if isinstance(ids, int):
            raise LeavesContract("a single row is asked for by a number")
        chosen = list(ids)
        if not chosen:
            raise LeavesContract("no row is asked for")
        if all(isinstance(i, _Token) for i in chosen):
            places = [i.place for i in chosen]
            return self._node("tokens", (x.node,), len(chosen), x.shape[1], lambda _: places)
        if all(type(i) is int for i in chosen) and not isinstance(rows, Length):
            hot = [[float(i % rows == j) for j in range(rows)] for i in chosen]
            if any(not -rows <= i < rows for i in chosen):
                raise LeavesContract("a row is asked for that is not there")
            select = self._node("constant", (), len(chosen), rows, (lambda _: hot, True))
            return self._product(select, x)
        raise LeavesContract(
            "rows are asked for by something other than tokens, numbers or a slice"
        )

    def _triu(self, x: Any, k: Any) -> Any:
        if type(k) is not int or k < 0:
            raise LeavesContract("triu begins left of the diagonal")
        node = self.tape.nodes[x.node]
        if node.op == "constant":
            return self._node("constant", (), *x.shape, (lambda tokens: [
                [v if j >= i + k else 0.0 for j, v in enumerate(row)] for i, row in enumerate(matrix(node, tokens))
            ], node.detail[1]))  # fmt: skip
        return self._node("triu", (x.node,), *x.shape, k)

    def _full(self, shape: Any, value: Any) -> Any:
        rows, columns = shape
        cell = expression(value)
        return self._node("constant", (), rows, columns, (lambda tokens: [
            [evaluate(cell, {}, tokens)] * at(columns, tokens)
        ] * at(rows, tokens), _even(cell)))  # fmt: skip


def _line() -> int:
    """The line of the source that is running, as seen from its model and not from its autograd."""
    frame: Any = sys._getframe(2)
    last = 0
    while frame is not None:
        if frame.f_code.co_filename == FILENAME:
            last = frame.f_lineno
            if frame.f_code.co_qualname.partition(".")[0] != "Tensor":
                return last
        frame = frame.f_back
    return last


def _plain(x: Any) -> float:
    if isinstance(x, bool | int | float):
        return float(x)
    if isinstance(x, Length):
        raise _Looked
    raise LeavesContract("it makes a tensor of something other than numbers")


def _replaced(tree: Any, by: dict[int, Any]) -> Any:
    """The same tree with other leaves."""
    if id(tree) in by:
        return by[id(tree)]
    if isinstance(tree, dict):
        return {key: _replaced(part, by) for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_replaced(part, by) for part in tree)
    return tree


def _broadcast(a: Size, b: Size) -> Size:
    if type(a) is int and a == 1:
        return b
    if type(b) is int and b == 1:
        return a
    if not _fits(a, b):
        raise LeavesContract(f"shapes of {a} and {b} do not fit")
    return a


def _fits(a: Size, b: Size) -> bool:
    if isinstance(a, Length) != isinstance(b, Length):
        raise _Looked  # they may fit at one length and not at another
    return a == b


def _place(place: Any, rows: Size, default: Size) -> Size:
    if place is None:
        return default
    if isinstance(place, Length):
        return rows + place if place.times < 0 or (place.times == 0 and place.plus < 0) else place
    if type(place) is int:
        return rows + place if place < 0 else place
    raise LeavesContract("a slice is bounded by something other than a whole number")


def matrix(node: Node, tokens: int) -> Matrix:
    """The numbers of a constant, for that many tokens."""
    return list(node.detail[0](tokens))


def _even(e: Expression) -> bool:
    """Whether an expression is the same for all lengths."""
    return not any(part.op in ("length", "each") for part in walk(e))


def _seen(grid: Matrix, i: int, j: int) -> float:
    row = grid[i if len(grid) > 1 else 0]
    return row[j if len(row) > 1 else 0]


def _cell(e: Expression, inputs: list[float], tokens: int) -> float:
    if e.op == "input":
        return inputs[e.args[0]]
    if e.op in ("number", "length", "each"):
        return evaluate(e, {}, tokens)
    return NUMERIC[e.op](*[_cell(a, inputs, tokens) for a in e.args])


def _hold(tape: Tape, longest: int) -> None:
    """Look at each length when a size or slice is not in bounds for all of them."""
    for node in tape.nodes:
        for tokens in (1, longest):
            if at(node.rows, tokens) < 1 or at(node.columns, tokens) < 1:
                raise _Looked
            if node.op == "rows":
                first, end = (at(place, tokens) for place in node.detail)
                if not 0 <= first < end <= at(tape.nodes[node.parents[0]].rows, tokens):
                    raise _Looked


# ---- One tape from one for each length ----


def _together(tapes: list[Tape]) -> Tape:
    """The tape that holds for all lengths, from the tapes of each, the first of one token.

    Raises:
        LeavesContract: the program does other things for other lengths.
    """
    for column in zip(*[t.nodes for t in tapes]):
        if len({(n.op, n.parents) for n in column}) > 1:
            raise LeavesContract("it does other things for short documents than for long ones")
    if len({(len(t.nodes), t.result) for t in tapes}) > 1:
        raise LeavesContract("it does other things for short documents than for long ones")
    nodes = [_one(list(column)) for column in zip(*[t.nodes for t in tapes])]
    return Tape(nodes, tapes[0].result)


def _one(column: list[Node]) -> Node:
    rows, columns = _fit([n.rows for n in column]), _fit([n.columns for n in column])
    first = column[0]
    detail: Any
    if first.op == "constant":
        data = [matrix(n, t) for t, n in enumerate(column, 1)]
        detail = (lambda tokens: data[tokens - 1], _only_adds(data))
    elif first.op == "tokens":
        places = [n.detail(t) for t, n in enumerate(column, 1)]
        detail = lambda tokens: places[tokens - 1]
        if all(p == list(range(t)) for t, p in enumerate(places, 1)):
            detail = None
    elif first.op == "cells":
        detail = tuple(_alike(list(es)) for es in zip(*[n.detail for n in column]))
    elif first.op == "rows":
        detail = tuple(_fit([n.detail[i] for n in column]) for i in (0, 1))
    else:
        if len({n.detail for n in column}) > 1:
            raise LeavesContract("it does other things for short documents than for long ones")
        detail = first.detail
    return Node(first.op, first.parents, rows, columns, detail, first.line)


def _only_adds(grids: list[Matrix]) -> bool:
    """Whether each matrix is the upper left part of the next."""
    return all(
        row == longer[: len(row)]
        for grid, more in zip(grids, grids[1:])
        for row, longer in zip(grid, more)
    )


def _fit(sizes: list[Any]) -> Size:
    """a T + b through sizes at T = 1, 2, ...; each must lie on it."""
    times = sizes[1] - sizes[0] if len(sizes) > 1 else 0
    fitted = _size(times, sizes[0] - times)
    if any(at(fitted, t) != size for t, size in enumerate(sizes, 1)):
        raise LeavesContract("a shape does not grow evenly with the document")
    return fitted


def _alike(es: list[Expression]) -> Expression:
    first = es[0]
    if all(e is first for e in es):
        return first
    if all(e.op == "number" for e in es):
        return Expression("each", tuple(e.args[0] for e in es))
    if any(e.op != first.op or len(e.args) != len(first.args) for e in es) or not all(
        isinstance(a, Expression) for e in es for a in e.args
    ):
        raise LeavesContract("it does other things for short documents than for long ones")
    return Expression(first.op, *[_alike(list(args)) for args in zip(*[e.args for e in es])])


# ---- The optimiser ----


@dataclass
class Update:
    """What is done to each cell of a weight in a step: expressions of the inputs
    w, gradient, first and second moment (0 to 3) and of symbols, numbers that each step sets anew."""

    weight: Expression
    first: Expression
    second: Expression


def record_update(
    recorder: Recorder, name: str, arguments: Sequence[tuple[str | None, str]]
) -> Update:
    """Run the function that moves a weight on two rows of two symbols each.

    Args:
        name: that function's, such as `adam`.
        arguments: what it is given: `w`, `m`, `v`, or `number`, each with its keyword or None. The numbers are
            the symbols `0`, `1`, ... in the update.

    Raises:
        LeavesContract: a cell's update depends on other cells, or cannot be followed.
    """
    function = recorder.space.get(name)
    if not callable(function):
        raise LeavesContract(f"it has no {name}")
    names = ("w", "g", "m", "v")
    cells = {
        n: [[Expression("symbol", f"{n}{i}{j}") for j in (0, 1)] for i in (0, 1)] for n in names
    }

    class Weight:
        def __init__(self) -> None:
            self.data = [row[:] for row in cells["w"]]
            self.grad = [row[:] for row in cells["g"]]
            self.shape = (2, 2)

    def run() -> list[Any]:
        weight = Weight()
        m, v = ([row[:] for row in cells[n]] for n in ("m", "v"))
        given: dict[str, Any] = {"w": weight, "m": m, "v": v}
        values, count = [], 0
        for keyword, what in arguments:
            values.append(
                (keyword, given[what] if what in given else Expression("symbol", str(count)))
            )
            count += what == "number"
        function(*[x for k, x in values if k is None], **{k: x for k, x in values if k is not None})
        if weight.grad:
            raise LeavesContract(f"{name} keeps the gradient for the next step")
        return [weight.data[i][j] for i in (0, 1) for j in (0, 1)] + [
            grid[i][j] for grid in (m, v) for i in (0, 1) for j in (0, 1)
        ]

    try:
        flat = _branches.explore(run)
    except LeavesContract:
        raise
    except Exception as error:
        raise LeavesContract(f"{type(error).__name__} in {name}: {error}") from error
    results = []
    for k in range(3):
        four = [_renamed(flat[4 * k + 2 * i + j], f"{i}{j}") for i in (0, 1) for j in (0, 1)]
        if any(e is not four[0] for e in four):
            raise LeavesContract(f"{name} does not treat every cell alike")
        results.append(four[0])
    return Update(*results)


def _renamed(e: Expression, place: str) -> Expression:
    """An update in terms of inputs 0 to 3, if it looks at no cell but its own."""
    if e.op == "symbol":
        name = e.args[0]
        if name.isdigit():
            return e
        if name[1:] != place:
            raise LeavesContract("it moves a weight by what is in another")
        return Expression("input", "wgmv".index(name[0]))
    if not e.args or not isinstance(e.args[0], Expression):
        return e
    return Expression(e.op, *[_renamed(a, place) for a in e.args])


def walk(e: Expression) -> Iterator[Expression]:
    """An expression and all its parts."""
    yield e
    for a in e.args:
        if isinstance(a, Expression):
            yield from walk(a)

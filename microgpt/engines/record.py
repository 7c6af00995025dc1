"""Record a program: run the model of a source once, on tensors that only note what is done to them.

The file's model functions are written in a contract of about a dozen operations. A `Recorder` runs
them on tensors that hold no numbers: each operation adds a `Node` to a list, the *tape*, with the
shape of its result, the nodes that it was made from, and what it does. How many tokens a document
has is not known then; it is a `Length`, and the tape holds for every length. A program that asks
for the number itself is recorded once for each length, and the tapes must fit into one.

What an operation does to each cell (`+`, `relu`, ...) is not known here either: it is read from the
source, whose functions of cells are run on symbols and give an `Expression` for the value and one
for each slope. So an edit of them, or a new one, is recorded like the rest. Only the operations
that move cells (`@`, `transpose`, `sum`, ...) have a meaning of their own here, the file's. A
source that edits those, or that does something symbols cannot follow, is refused with
`LeavesContract`: it never gets numbers that the file itself would not give.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import itertools
import math
import operator
import random
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from types import FunctionType, TracebackType
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from microgpt.errors import LeavesContract
from microgpt.source import AUTOGRAD, FILENAME, ORIGINAL, execute, explain, sections

MOST_NODES = 20_000  # a tape longer than this is not worth recording
MOST_WAYS = 32  # through one function of cells, by its comparisons
MOST_PARTS = 200  # operations of one function of cells
MOST_NUMBERS = 10_000_000  # in tensors that a program makes of numbers, for all lengths
NO_NUMBER = "a number in it cannot be computed, {}"
UNLIKE = "it does other things for short documents than for long ones"

Matrix = list[list[float]]


class _Looked(BaseException):
    """The program asked how many tokens there are, as a number: it must be recorded for each."""


class _Fork(BaseException):
    """The program goes one way or another by this comparison of cells."""

    def __init__(self, condition: Expression) -> None:
        self.condition = condition


class _Watch(threading.local):
    """Whether code of the source is running, and which way it is to go. Each thread has its own."""

    def __init__(self) -> None:
        self.on = False  # the source's own comparisons are asked about, ours are not
        self.taken: list[bool] | None = None  # what each comparison of cells shall say, in order
        self.used = 0
        self.as_written = False  # for one of several lengths: a 1 here may be a 2 there

    def decide(self, condition: Expression) -> bool:
        """Which way to go."""
        if condition.op == "number":
            return bool(condition.args[0])
        if self.taken is None:
            _look(condition)
            raise LeavesContract("which way it goes depends on the numbers in a matrix")
        if self.used == len(self.taken):
            raise _Fork(condition)
        self.used += 1
        return self.taken[self.used - 1]

    def explore(self, run: Callable[[], Sequence[Any]]) -> list[Expression]:
        """What `run` gives, whichever way it goes: each way is taken, and the results are put
        together, one by one, as the comparisons come out."""
        before, count = (self.on, self.taken, self.used), 0

        def go(taken: list[bool]) -> list[Expression]:
            nonlocal count
            count += 1
            if count > MOST_WAYS:
                raise LeavesContract("a function of cells has too many ways through it")
            self.on, self.taken, self.used = True, taken, 0
            try:
                return [expression(value) for value in run()]
            except _Fork as fork:
                condition = fork.condition
            yes, no = go([*taken, True]), go([*taken, False])
            if len(yes) != len(no):
                raise LeavesContract("a function of cells gives more in one case than in another")
            return [arithmetic("where", condition, a, b) for a, b in zip(yes, no)]

        try:
            return go([])
        finally:
            self.on, self.taken, self.used = before


_watch = _Watch()


# ---- Expressions: what is done to a cell ----


class Expression:
    """Arithmetic on symbols: `op` and its arguments. Equal ones are one and the same object.

    The leaves are `input` (the cell of the k-th matrix), `number`, `length` (the number of tokens,
    times a, plus b), `each` (a number for each length, from the first) and `symbol` (a name).
    """

    __slots__ = ("__weakref__", "args", "op")
    op: str
    args: tuple[Any, ...]
    _made: ClassVar[WeakValueDictionary[tuple[Any, ...], Expression]] = WeakValueDictionary()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __new__(cls, op: str, *args: Any) -> Expression:
        key = (op, *[id(a) if isinstance(a, Expression) else (type(a), a) for a in args])
        with cls._lock:
            made = cls._made.get(key)
            if made is None:
                made = super().__new__(cls)
                made.op, made.args = op, args
                cls._made[key] = made
        return made

    @property
    def leaf(self) -> bool:
        """Whether it is not made of others."""
        return not (self.args and isinstance(self.args[0], Expression))

    def __repr__(self) -> str:
        return f"{self.op}({', '.join(map(repr, self.args))})"

    def __add__(self, other: Any) -> Any:
        return arithmetic("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return arithmetic("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return arithmetic("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return arithmetic("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return arithmetic("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return arithmetic("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return arithmetic("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return arithmetic("div", other, self)

    def __pow__(self, other: Any) -> Any:
        return arithmetic("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return arithmetic("pow", other, self)

    def __neg__(self) -> Any:
        return arithmetic("mul", self, -1)

    def __pos__(self) -> Expression:
        return self

    def __abs__(self) -> Any:
        return arithmetic("max", self, arithmetic("mul", self, -1))

    def __gt__(self, other: Any) -> Any:
        return arithmetic("gt", self, other)

    def __lt__(self, other: Any) -> Any:
        return arithmetic("gt", other, self)

    def __ge__(self, other: Any) -> Any:
        return arithmetic("ge", self, other)

    def __le__(self, other: Any) -> Any:
        return arithmetic("ge", other, self)

    def __eq__(self, other: object) -> Any:
        if not _watch.on or not isinstance(other, Expression | Length | int | float):
            return self is other
        return arithmetic("mul", arithmetic("ge", self, other), arithmetic("ge", other, self))

    def __ne__(self, other: object) -> Any:
        same = self == other
        return arithmetic("sub", 1.0, same) if isinstance(same, Expression) else not same

    def __hash__(self) -> int:
        if _watch.on:  # equal cells of two matrices would be two things
            raise LeavesContract("it looks up a cell in a set or a dictionary")
        return object.__hash__(self)

    def __bool__(self) -> bool:
        return _watch.decide(self)

    def __float__(self) -> float:
        if self.op == "number":
            return float(self.args[0])
        _look(self)
        raise LeavesContract("it turns a cell into a plain number")

    def _whole(self, *_: Any) -> Any:
        _look(self)
        raise LeavesContract("it turns a cell into a whole number")

    __int__ = __index__ = __round__ = __trunc__ = __floor__ = __ceil__ = _whole
    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __divmod__ = __rdivmod__ = _whole


def _look(e: Expression) -> None:
    """Where an expression depends on nothing but the number of tokens, ask for that."""
    if not any(part.op in ("input", "symbol") for part in parts(e)):
        raise _Looked


def number(value: float) -> Expression:
    """The expression of a number."""
    return Expression("number", float(value))


def expression(value: Any) -> Expression:
    """A number, a length or an expression, as an expression.

    Raises:
        LeavesContract: it is something else.
    """
    if isinstance(value, Expression):
        return value
    if isinstance(value, Length):
        return Expression("length", value.times, value.plus)
    if isinstance(value, int | float):
        return number(value)
    raise LeavesContract(f"it computes with a {type(value).__name__} where a number is expected")


def parts(*es: Expression) -> list[Expression]:
    """All that expressions are made of, each once, what is needed first; they are among it."""
    seen: dict[int, Expression] = {}
    todo = [(e, False) for e in reversed(es)]
    while todo:
        e, ready = todo.pop()
        if ready or e.leaf:
            seen.setdefault(id(e), e)
        elif id(e) not in seen:
            todo.append((e, True))
            todo += [(a, False) for a in reversed(e.args)]
    return list(seen.values())


def rebuilt(e: Expression, leaf: Callable[[Expression], Expression]) -> Expression:
    """The same arithmetic on other leaves; what then changes nothing is left out."""
    made: dict[Expression, Expression] = {}
    for part in parts(e):
        made[part] = leaf(part) if part.leaf else arithmetic(part.op, *[made[a] for a in part.args])
    return made[e]


# What each operation does to numbers; the kernel does the same.
NUMERIC: dict[str, Callable[..., float]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
    "pow": math.pow, "max": max, "min": min, "gt": lambda a, b: float(a > b),
    "ge": lambda a, b: float(a >= b), "where": lambda c, a, b: a if c else b,
    "exp": math.exp, "log": math.log, "sqrt": math.sqrt, "tanh": math.tanh,
}  # fmt: skip
CALLS = ("exp", "log", "sqrt", "tanh")  # functions of `math` that a cell may be given to


def computed(
    e: Expression,
    inputs: Sequence[list[float]],
    count: int,
    tokens: int = 0,
    symbols: Mapping[str, list[float]] | None = None,
) -> list[float]:
    """The numbers that an expression stands for in so many cells.

    Args:
        inputs: for each input its number in every cell.
        tokens: how many tokens the document has.
        symbols: for each name its number in every cell.

    Raises:
        ArithmeticError, ValueError, TypeError: there is no such number.
    """
    made: dict[Expression, list[float]] = {}
    for part in parts(e):
        if part.op == "input":
            made[part] = inputs[part.args[0]]
        elif part.op == "symbol":
            made[part] = (symbols or {})[part.args[0]]
        elif part.leaf:
            made[part] = [_leaf(part, tokens)] * count
        else:
            made[part] = list(map(NUMERIC[part.op], *[made[a] for a in part.args]))
    return made[e]


def _leaf(e: Expression, tokens: int) -> float:
    if e.op == "length":
        return float(e.args[0] * tokens + e.args[1])
    if e.op == "each":
        return float(e.args[0][tokens - 1])
    return float(e.args[0])


def evaluate(e: Expression, symbols: Mapping[str, float], tokens: int = 0) -> float:
    """The number that an expression without inputs stands for, given that of each symbol; the
    errors are those of `computed`."""
    return computed(e, [], 1, tokens, {name: [x] for name, x in symbols.items()})[0]


def arithmetic(op: str, *values: Any) -> Any:
    """An operation on cells, as an expression.

    What is done to numbers only is done at once, and what changes nothing is left out. Gives
    `NotImplemented`, as Python's operators do, when a value is neither number, length nor
    expression.

    Raises:
        LeavesContract: an operation on numbers has no result.
    """
    if not all(isinstance(value, Expression | Length | int | float) for value in values):
        return NotImplemented
    args = [expression(value) for value in values]
    if all(arg.op == "number" for arg in args):
        try:
            return number(NUMERIC[op](*[arg.args[0] for arg in args]))
        except (ArithmeticError, ValueError, TypeError) as error:
            raise LeavesContract(NO_NUMBER.format(error)) from error
    if _watch.as_written:
        return Expression(op, *args)
    known = [arg.args[0] if arg.op == "number" else None for arg in args]
    if op == "add":
        return _sum(args, known)
    if op == "mul":
        if known[0] == 1:
            return args[1]
        return args[0] if known[1] == 1 else Expression(op, *_number_last(args, known))
    if (op == "sub" and known[1] == 0) or (op == "div" and known[1] == 1):
        return args[0]
    if op == "pow" and known[1] is not None:
        return _power(args[0], known[1])
    if op == "where" and args[1] is args[2]:
        return args[1]
    return Expression(op, *args)


def _number_last(args: list[Expression], known: list[float | None]) -> list[Expression]:
    return args[::-1] if known[0] is not None else args


def _sum(args: list[Expression], known: list[float | None]) -> Any:
    if 0 in known:
        return args[1 - known.index(0)]
    args = _number_last(args, known)
    for one, other in (args, args[::-1]):
        if other.op == "mul" and other.args[1] is number(-1):
            return arithmetic("sub", one, other.args[0])
    return Expression("add", *args)


def _power(x: Expression, power: float) -> Any:
    """x to a power that is known, by multiplying, dividing and roots where it is a simple one."""
    if power < 0 and -power in (0.5, 1, 1.5, 2, 3, 4):
        return arithmetic("div", 1.0, _power(x, -power))
    if power in (0, 1):
        return x if power else number(1)
    if power in (0.5, 1.5):
        root = Expression("sqrt", x)
        return root if power == 0.5 else arithmetic("mul", x, root)
    if power in (2, 3, 4):
        return arithmetic("mul", _power(x, power - 1), x)
    return Expression("pow", x, number(power))


# ---- Sizes ----


class Length:
    """A number of rows or columns that grows with the document: `times` its tokens, plus `plus`."""

    __slots__ = ("plus", "times")

    def __init__(self, times: int, plus: int) -> None:
        self.times, self.plus = times, plus

    def __repr__(self) -> str:
        return f"{self.times if self.times != 1 else ''}T{f'{self.plus:+}' if self.plus else ''}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Length):
            if self.times != other.times and _watch.on:
                raise _Looked  # they are equal at some length
            return (self.times, self.plus) == (other.times, other.plus)
        if isinstance(other, int | float | Expression) and _watch.on:
            raise _Looked
        return NotImplemented

    def __hash__(self) -> int:
        if _watch.on:
            raise _Looked
        return hash((self.times, self.plus))

    def _affine(self, other: Any, sign: int, op: str, swapped: bool = False) -> Any:
        if isinstance(other, bool) or not isinstance(other, int | Length):
            return arithmetic(op, *((other, self) if swapped else (self, other)))
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
        return arithmetic("mul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return arithmetic("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return arithmetic("div", other, self)

    def __pow__(self, other: Any) -> Any:
        return arithmetic("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return arithmetic("pow", other, self)

    def __neg__(self) -> Size:
        return _size(-self.times, -self.plus)

    def _asked(self, *_: Any) -> Any:
        raise _Looked

    __lt__ = __le__ = __gt__ = __ge__ = __index__ = __int__ = __float__ = __bool__ = _asked
    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __divmod__ = __rdivmod__ = _asked
    __abs__ = __round__ = __trunc__ = __floor__ = __ceil__ = __pos__ = _asked
    __format__ = __str__ = _asked


Size = int | Length


def _size(times: int, plus: int) -> Size:
    return Length(times, plus) if times else plus


def at(size: Size, tokens: int) -> int:
    """A size, in a document of that many tokens."""
    return size.times * tokens + size.plus if isinstance(size, Length) else size


def same(a: Size, b: Size) -> bool:
    """Whether two sizes are equal in every document."""
    return (at(a, 0), at(a, 1)) == (at(b, 0), at(b, 1))


def whole(size: Size, line: int = 0) -> int:
    """A size that does not grow with the document.

    Raises:
        LeavesContract: it does.
    """
    if isinstance(size, Length):
        raise refusal("a matrix in it grows with the document where none can", line)
    return size


# ---- The tape ----


@dataclass(frozen=True, eq=False)
class Constant:
    """A matrix that no weight stands behind.

    Attributes:
        compute: gives it for a number of tokens.
        nested: whether those for different numbers of tokens are equal where both have a cell, so
            that the smaller is the upper left part of the larger.
    """

    compute: Callable[[int], Matrix]
    nested: bool

    def at(self, tokens: int) -> Matrix:
        """The matrix for that many tokens.

        Raises:
            LeavesContract: a number in it cannot be computed.
        """
        try:
            return self.compute(tokens)
        except (ArithmeticError, ValueError, TypeError) as error:
            raise LeavesContract(NO_NUMBER.format(error)) from error


@dataclass(eq=False)
class Node:
    """One operation: what it does, to which nodes before it, and the shape that comes of it.

    | op | detail |
    |---|---|
    | `weight` | its number, in the order of `leaves` |
    | `constant` | a `Constant` |
    | `targets` | None: one row a token, 1 where its column is the next token |
    | `cells` | (the value, a slope for each parent), expressions of the parents' cells |
    | `product` | None: rows times columns |
    | `rows` | (first, end) of a slice |
    | `tokens` | which tokens choose the rows, a function of their number; None: all, in order |
    | `sum`, `max` | None: along each row |
    | `triu` | how far right of the diagonal it begins |
    | `transpose` | None |

    `line` is the line of the source that did it, 0 when none did.
    """

    op: str
    parents: tuple[int, ...]
    rows: Size
    columns: Size
    detail: Any = None
    line: int = 0


@dataclass(eq=False)
class Tape:
    """The operations of one function of the model, in the order in which they were done.

    `result` is the node of its value, `longest` the most tokens that it holds for.
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

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _refuse
    __rtruediv__ = __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __pow__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __abs__ = __bool__ = _refuse
    __index__ = __int__ = __float__ = __format__ = __str__ = _refuse
    __hash__ = __eq__ = _refuse


class _Tokens:
    """All tokens of the document, in order, when their number is not known."""

    def _asked(self, *_: Any) -> Any:
        raise _Looked

    __iter__ = __len__ = __getitem__ = __contains__ = __reversed__ = __add__ = __radd__ = _asked
    __mul__ = __rmul__ = __getattr__ = _asked
    __eq__ = __hash__ = _asked


# ---- What a source may not change ----

# What moves cells has the file's meaning, which this module and the kernel have a copy of.
FIXED = (
    "flip", "add", "mul", "pick", "dot", "matmul", "stretch", "shrink", "backward",
    "Tensor.__init__", "Tensor.cellwise", "Tensor.__matmul__", "Tensor.__getitem__",
    "Tensor.sum", "Tensor.triu", "Tensor.transpose", "Tensor.amax", "Tensor.new_full",
)  # fmt: skip


@lru_cache(maxsize=16)
def _definitions(source: str) -> dict[str, tuple[str, int]]:
    """Every function of a source by its path, and every name that it assigns at its top, as a text
    that ignores layout, and its line."""
    found: dict[str, tuple[str, int]] = {}

    def read(body: list[ast.stmt], path: str) -> None:
        for statement in body:
            if isinstance(statement, ast.FunctionDef):
                found[path + statement.name] = ast.dump(statement), statement.lineno
            elif isinstance(statement, ast.ClassDef):
                read(statement.body, f"{path}{statement.name}.")
            elif isinstance(statement, ast.Assign):
                for target in statement.targets:
                    for name in ast.walk(target):
                        if isinstance(name, ast.Name):
                            found[path + name.id] = ast.dump(statement), statement.lineno

    read(ast.parse(source).body, "")
    return found


_ORIGINAL = _definitions(ORIGINAL)
_ORIGINAL_LINES = frozenset(ORIGINAL.splitlines())


def unedited(source: str, *names: str) -> str | None:
    """The first of these functions, such as `train` or `Tensor.sum`, that a source has changed or
    left out; None when none."""
    try:
        found = _definitions(source)
    except (SyntaxError, ValueError, RecursionError):
        return names[0]
    return next((n for n in names if n not in found or found[n][0] != _ORIGINAL[n][0]), None)


def _refuse_edits(source: str, space: dict[str, Any]) -> None:
    """Refuse a source in which a fixed function is not the file's, be it that its text is another,
    that something else was put in its place, or that what it calls was."""
    found = _definitions(source)
    changed = unedited(source, *FIXED)
    for name in FIXED:
        owner, _, method = name.rpartition(".")
        made = vars(space[owner]).get(method) if owner else space.get(name)
        code = getattr(made, "__code__", None)
        if changed is None and name != "dot" and (
            code is None or (code.co_filename, code.co_firstlineno) != (FILENAME, found[name][1])
        ):  # fmt: skip
            changed = name
    if changed is not None:
        line = found[changed][1] if changed in found else None
        raise refusal(f"it changes {changed}, which the fast engine has a copy of", line)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Try | ast.TryStar):  # it might catch a refusal
            raise refusal("it catches exceptions", node.lineno)
        if isinstance(node, ast.Match):  # it might match the type of a stand-in
            raise refusal("it matches patterns", node.lineno)
    for name in _called() & set(space):
        raise refusal(f"it has a {name} of its own", found.get(name, ("", None))[1])


@cache
def _called() -> set[str]:
    """Python's own functions that the fixed ones call."""
    tree = ast.parse(ORIGINAL).body
    names = {n.id for part in tree for n in ast.walk(part) if isinstance(n, ast.Name)}
    return {name for name in names if hasattr(builtins, name) and name[0] != "_"}


class _Math:
    """The `math` of a recorded source: its functions also take cells and lengths."""

    def __getattr__(self, name: str) -> Any:
        real = getattr(math, name)

        def call(*args: Any) -> Any:
            if not any(isinstance(a, Expression | Length) for a in args):
                return real(*args)
            if name == "pow" and len(args) == 2:
                return arithmetic("pow", *args)
            if name == "log" and len(args) == 2:
                return arithmetic("div", *[arithmetic("log", a) for a in args])
            if name in CALLS and len(args) == 1:
                return arithmetic(name, *args)
            for a in args:
                _look(expression(a))
            raise LeavesContract(f"it gives a cell to math.{name}")

        return call if callable(real) else real


def refuse(what: str) -> Callable[..., Any]:
    """A function that a recorded source may not call; `what` it would do, such as `prints`."""

    def call(*_: Any, **__: Any) -> Any:
        raise LeavesContract(f"it {what} as it runs")

    return call


class _NoChance:
    """The random numbers of a recorded source: what is drawn when it is recorded would stay so."""

    def __getattr__(self, name: str) -> Any:
        raise LeavesContract("its model draws random numbers")

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise LeavesContract("its model draws random numbers")


def _draws(value: Any) -> bool:
    return value is random or isinstance(getattr(value, "__self__", value), random.Random)


def _extreme(op: str) -> Callable[..., Any]:
    """`max` or `min`, which also take cells."""
    real = getattr(builtins, op)

    def call(*args: Any, **more: Any) -> Any:
        values = list(args[0]) if len(args) == 1 and not more else args
        if more or not any(isinstance(value, Expression) for value in values):
            return real(values, **more) if len(args) == 1 and not more else real(*args, **more)
        best = values[0]
        for value in values[1:]:
            best = arithmetic(op, best, value)
        return best

    return call


def _asking(real: Callable[..., Any]) -> Callable[..., Any]:
    """`isinstance` or `type`, which must not be told that something is only a stand-in."""

    def call(value: Any, *kinds: Any) -> Any:
        if isinstance(value, Length | _Tokens):
            raise _Looked
        if isinstance(value, Expression | _Token):
            raise LeavesContract("it asks of what type a cell or a token is")
        return real(value, *kinds)

    return call


class Recorder:
    """A source, ready to be recorded.

    Args:
        source: the text of `gpt.py`, or of an edit of it.
        params: the tree of weights that the source's `init` made; only their shapes matter.
        namespace: what that source defines.

    Attributes:
        source: as given.
        space: what the source defines, its Tensor replaced by one that records.
        shapes: (rows, columns) of each weight, in the order of `leaves`.

    Raises:
        LeavesContract: the source changes an operation whose meaning is fixed.
    """

    def __init__(self, source: str, params: Any, namespace: dict[str, Any]) -> None:
        _refuse_edits(source, namespace)
        self.source = source
        with contextlib.redirect_stdout(io.StringIO()):  # it has been executed, and heard, before
            self.space = execute(source)
        for name, value in list(self.space.items()):
            if _draws(value):
                self.space[name] = _NoChance()
        ours = {"max": _extreme("max"), "min": _extreme("min"), "print": refuse("prints")}
        ours |= {"input": refuse("asks a question"), "open": refuse("opens a file")}
        ours |= {"isinstance": _asking(isinstance), "type": _asking(type)}
        for name, value in ours.items():
            self.space.setdefault(name, value)
        if self.space.get("math") is math:
            self.space["math"] = _Math()
        self._theirs = namespace["Tensor"]  # what the given weights are
        self._tensor: Any = self._make(self.space["Tensor"])
        self.space["Tensor"] = self._tensor
        self._traces: dict[Any, tuple[list[Expression], Any]] = {}
        self._tape = Tape()
        self._numbers = self._vocab = 0
        self._weights = namespace["leaves"](params)
        self._params = params
        weights = set(map(id, self._weights))
        for name, value in namespace.items():  # tensors that are there before all
            if isinstance(value, self._theirs) and not value.parents and id(value) not in weights:
                self.space[name] = self._made(value.data)
        self.shapes = [tuple(w.shape) for w in self._weights]

    # ---- Recording ----

    def record(
        self,
        function: Callable[[dict[str, Any], Any, Any, Any], Any],
        longest: int,
        vocab: int,
        twice: bool = True,
    ) -> Tape:
        """The tape of `function(space, params, ids, targets)`, for 1 to `longest` tokens.

        Args:
            function: what is recorded; it gives a tensor.
            longest: the most tokens of a document.
            vocab: the tokens there are: columns of the targets.
            twice: whether it is tried a second time, which must give the same; not needed where
                all of it was recorded before.

        Raises:
            LeavesContract: in words, why it cannot be.
        """
        self._numbers, self._vocab = 0, vocab
        try:
            tape = self._once(function, None)
            _hold(tape, longest)
            if twice:
                _repeats(tape, self._once(function, None), longest)
        except _Looked:
            tape = self._each(function, longest, twice)
        tape.longest = longest
        return tape

    def _each(self, function: Any, longest: int, twice: bool) -> Tape:
        """The tape from one for each length."""
        _watch.as_written = True
        try:
            tapes = [self._once(function, tokens) for tokens in range(1, longest + 1)]
            if twice:
                _repeats(tapes[-1], self._once(function, longest), longest)
        except _Looked:
            raise LeavesContract("it asks how many tokens there are in a way of its own") from None
        finally:
            _watch.as_written = False
        return _together(tapes)

    def _once(self, function: Any, tokens: int | None) -> Tape:
        self._tape = Tape()
        length: Size = Length(1, 0) if tokens is None else tokens
        ids: Any = _Tokens() if tokens is None else [_Token(i) for i in range(tokens)]
        _watch.on = True
        try:
            weights = [
                self._node("weight", (), rows, columns, i)
                for i, (rows, columns) in enumerate(self.shapes)
            ]
            params = self._replaced(
                self._params, {id(w): n for w, n in zip(self._weights, weights)}
            )
            targets = self._node("targets", (), length, self._vocab)
            result = function(self.space, params, ids, targets)
        except Exception as error:
            raise explained(error, self.source) from error
        finally:
            _watch.on = False
        if not isinstance(result, self._tensor):
            raise LeavesContract("what it computes is not a tensor")
        self._tape.result = self._number(result)
        return _needed(self._tape)

    def _replaced(self, tree: Any, by: dict[int, Any]) -> Any:
        """The same tree with other leaves."""
        if id(tree) in by:
            return by[id(tree)]
        if isinstance(tree, dict):
            return {key: self._replaced(part, by) for key, part in tree.items()}
        if isinstance(tree, list | tuple):
            return type(tree)([self._replaced(part, by) for part in tree])
        if isinstance(tree, self._theirs):
            raise LeavesContract("its leaves leave out a weight, which then is never trained")
        return tree

    def _node(
        self, op: str, parents: tuple[int, ...], rows: Size, columns: Size, detail: Any = None
    ) -> Any:
        """A new tensor, and the node that notes how it was made."""
        nodes = self._tape.nodes
        if len(nodes) >= MOST_NODES:
            raise LeavesContract(f"it does more than {MOST_NODES:,} operations for one document")
        nodes.append(Node(op, parents, rows, columns, detail, _line()))
        tensor = object.__new__(self._tensor)
        tensor.node, tensor.shape = (self._tape, len(nodes) - 1), (rows, columns)
        return tensor

    def _number(self, tensor: Any) -> int:
        """Which node of the tape a tensor is. A constant may be kept from one tape to the next."""
        tape, n = tensor.node
        if tape is not self._tape:
            kept = tape.nodes[n]
            if kept.op != "constant":
                raise LeavesContract("it keeps a tensor of one document for the next")
            again = self._node("constant", (), kept.rows, kept.columns, kept.detail)
            tensor.node = again.node
        return int(tensor.node[1])

    def _make(self, base: type) -> type:
        """The source's own Tensor, with everything that moves cells replaced by a note of it."""
        recorder = self

        class Tensor(base):  # type: ignore[misc]
            __iter__ = None

            def __init__(self, data: Any, *parents: Any) -> None:
                if parents:
                    raise LeavesContract("it makes a tensor with a way back of its own")
                made = recorder._made(data)
                self.node, self.shape = made.node, made.shape

            def _hidden(self) -> Any:
                raise LeavesContract("it reads the numbers of a tensor")

            data = grad = parents = depth = property(_hidden)

            def __getattr__(self, name: str) -> Any:
                raise LeavesContract(f"it asks a tensor for its {name}")

            def cellwise(self, f: Any, *others: Any) -> Any:
                return recorder._cellwise(f, (self, *others))

            def __matmul__(self, other: Any) -> Any:
                return recorder._product(self, other)

            def __getitem__(self, ids: Any) -> Any:
                return recorder._rows(self, ids)

            def sum(self, dim: Any, keepdim: Any) -> Any:
                return recorder._along("sum", self)

            def amax(self, dim: Any, keepdim: Any) -> Any:
                return recorder._along("max", self)

            def triu(self, k: Any) -> Any:
                return recorder._triu(self, k)

            def transpose(self, *dims: Any) -> Any:
                rows, columns = self.shape
                return recorder._node("transpose", (recorder._number(self),), columns, rows)

            def new_full(self, shape: Any, x: Any) -> Any:
                return recorder._full(shape, x)

        return Tensor

    # ---- The contract's operations ----

    def _made(self, data: Any) -> Any:
        rows = [[_plain(x) for x in row] for row in data]
        if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
            raise LeavesContract("it makes a tensor whose rows are empty or not equally long")
        self._numbers += len(rows) * len(rows[0])
        if self._numbers > MOST_NUMBERS:
            raise LeavesContract(f"it makes tensors of more than {MOST_NUMBERS:,} numbers")
        return self._node(
            "constant", (), len(rows), len(rows[0]), Constant(lambda _: rows, nested=True)
        )

    def _along(self, op: str, x: Any) -> Any:
        return self._node(op, (self._number(x),), x.shape[0], 1)

    def _cellwise(self, f: Any, values: tuple[Any, ...]) -> Any:
        tensors = [v for v in values if isinstance(v, self._tensor)]
        nodes = list(dict.fromkeys(map(self._number, tensors)))
        inputs = [
            Expression("input", nodes.index(self._number(v)))
            if isinstance(v, self._tensor)
            else expression(v)
            for v in values
        ]
        rows: Size = 1
        columns: Size = 1
        for t in tensors:
            rows, columns = _broadcast(rows, t.shape[0]), _broadcast(columns, t.shape[1])
        value, *each = self._traced(f, inputs)
        if len(each) != len(values):
            raise LeavesContract("it has a function of cells without a slope for each of them")
        slopes: list[Any] = [number(0)] * len(nodes)
        for v, slope in zip(inputs, each):
            if v.op == "input":
                slopes[v.args[0]] = arithmetic("add", slopes[v.args[0]], slope)
        if all(self._tape.nodes[n].op == "constant" for n in nodes):
            return self._folded(nodes, value, rows, columns)
        return self._node("cells", tuple(nodes), rows, columns, (value, *slopes))

    def _traced(self, f: Any, inputs: list[Expression]) -> list[Expression]:
        """What a function of cells gives; the same function is not traced twice."""
        key, closure = None, []
        if isinstance(f, FunctionType) and not f.__defaults__ and not f.__kwdefaults__:
            closure = [cell.cell_contents for cell in f.__closure__ or ()]
            if all(type(x) in (int, float, Expression) for x in closure):
                ids = tuple(id(x) if isinstance(x, Expression) else x for x in closure)
                key = (f.__code__, ids, tuple(map(id, inputs)), _watch.as_written)
        if key not in self._traces:
            traced = _watch.explore(lambda: list(f(*inputs)))
            if len(parts(*traced)) > MOST_PARTS:
                raise LeavesContract(f"a function of cells takes more than {MOST_PARTS} operations")
            if key is None:
                return traced
            self._traces[key] = traced, (inputs, closure)  # kept, so that their ids stay theirs
        return self._traces[key][0]

    def _folded(self, nodes: list[int], value: Expression, rows: Size, columns: Size) -> Any:
        """Cells of constants are a constant."""
        constants = [self._tape.nodes[n].detail for n in nodes]

        def compute(tokens: int) -> Matrix:
            height, width = at(rows, tokens), at(columns, tokens)
            grids = [_stretched(c.at(tokens), height, width) for c in constants]
            cells = computed(value, grids, height * width, tokens)
            return [cells[i : i + width] for i in range(0, len(cells), width)]

        nested = all(c.nested for c in constants) and even(value)
        return self._node("constant", (), rows, columns, Constant(compute, nested))

    def _product(self, a: Any, b: Any) -> Any:
        if not isinstance(b, self._tensor):
            raise LeavesContract(f"it multiplies a tensor by a {type(b).__name__}, with @")
        if a.shape[1] != b.shape[0]:
            raise LeavesContract(
                f"it multiplies a matrix of {a.shape[1]!r} columns by one of {b.shape[0]!r} rows"
            )
        nodes = (self._number(a), self._number(b))
        return self._node("product", nodes, a.shape[0], b.shape[1])

    def _rows(self, x: Any, ids: Any) -> Any:
        rows, columns = x.shape
        if isinstance(ids, slice):
            first, end = _bounds(ids, rows)
            return self._node("rows", (self._number(x),), end - first, columns, (first, end))
        if isinstance(ids, _Tokens):
            self._looks_up(rows)
            return self._node("tokens", (self._number(x),), Length(1, 0), columns)
        chosen = list(ids) if isinstance(ids, list | tuple | range) else [ids]
        if not chosen:
            raise LeavesContract("it chooses no row of a tensor")
        if all(isinstance(i, _Token) for i in chosen):
            self._looks_up(rows)
            places = [i.place for i in chosen]
            return self._node(
                "tokens", (self._number(x),), len(chosen), columns, lambda tokens: places
            )
        if chosen[0] is ids or not all(type(i) is int for i in chosen):
            raise LeavesContract("it chooses rows by something other than tokens or numbers")
        if isinstance(rows, Length):
            raise _Looked
        if not all(0 <= i < rows for i in chosen):  # the file's gradient has no rows below zero
            raise LeavesContract(f"it chooses a row that is not there, of a tensor of {rows}")
        hot = [[float(i == j) for j in range(rows)] for i in chosen]
        return self._product(self._made(hot), x)

    def _looks_up(self, rows: Size) -> None:
        """Refuse a table that has no row for some token."""
        if isinstance(rows, Length) or rows < self._vocab:
            raise LeavesContract("it looks up tokens in a table with fewer rows than tokens")

    def _triu(self, x: Any, k: Any) -> Any:
        if isinstance(k, Length):
            raise _Looked
        if type(k) is not int or k < 0:
            raise LeavesContract("it takes a triangle that begins left of the diagonal")
        n = self._number(x)
        node = self._tape.nodes[n]
        if node.op != "constant":
            return self._node("triu", (n,), node.rows, node.columns, k)

        def compute(tokens: int) -> Matrix:
            return [
                [v if j >= i + k else 0.0 for j, v in enumerate(row)]
                for i, row in enumerate(node.detail.at(tokens))
            ]

        made = Constant(compute, node.detail.nested)
        return self._node("constant", (), node.rows, node.columns, made)

    def _full(self, shape: Any, value: Any) -> Any:
        rows, columns = shape
        for n in (rows, columns):
            if not isinstance(n, Length) and (type(n) is not int or n < 1):
                raise LeavesContract("it makes a tensor without rows or columns")
        cell = expression(value)

        def compute(tokens: int) -> Matrix:
            return [[evaluate(cell, {}, tokens)] * at(columns, tokens)] * at(rows, tokens)

        return self._node("constant", (), rows, columns, Constant(compute, even(cell)))


# ---- Lines ----


def _line() -> int:
    """The line of the source's model that is running, not of its autograd; 0 where none is."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename == FILENAME and code.co_qualname.partition(".")[0] != "Tensor":
            return int(frame.f_lineno)
        frame = frame.f_back
    return 0


def _blamed(trace: TracebackType | None, source: str) -> int | None:
    """The line of a source that an exception is about: the innermost one that was edited, or else
    the innermost one outside the autograd."""
    lines = source.splitlines()
    autograd = next((s for s in sections(source) if s.name == AUTOGRAD), None)
    found = []
    while trace is not None:
        n = trace.tb_lineno
        if trace.tb_frame.f_code.co_filename == FILENAME and 0 < n <= len(lines):
            edited = lines[n - 1] not in _ORIGINAL_LINES
            inside = autograd is not None and autograd.first <= n <= autograd.last
            found.append((2 * edited + (not inside), n))
        trace = trace.tb_next
    best = max((rank for rank, _ in found), default=0)
    return next((n for rank, n in reversed(found) if rank == best), None)


def refusal(reason: str, line: int | None) -> LeavesContract:
    """The exception for a reason, which names the line of the source where it is known."""
    return LeavesContract(f"{reason} (line {line})" if line else reason, line=line)


def explained(error: Exception, source: str) -> LeavesContract:
    """What an exception means that came when a source ran on symbols, with the line to look at."""
    if isinstance(error, LeavesContract):
        reason = error.message
        if error.line is not None:
            return error
    else:
        said = explain(error, source).message.rstrip(".")
        reason = f"it cannot be recorded; {said[:1].lower()}{said[1:]}"
    return refusal(reason, _blamed(error.__traceback__, source))


# ---- Shapes and constants ----


def _plain(x: Any) -> float:
    if isinstance(x, bool | int | float):
        return float(x)
    if isinstance(x, Length):
        raise _Looked
    if isinstance(x, Expression):
        return float(x)
    raise LeavesContract("it makes a tensor of something other than numbers")


def _broadcast(a: Size, b: Size) -> Size:
    if type(a) is int and a == 1:
        return b
    if type(b) is int and b == 1:
        return a
    if a != b:
        raise LeavesContract(f"matrices of {a!r} and {b!r} rows or columns do not fit together")
    return a


def _bounds(ids: slice, rows: Size) -> tuple[Size, Size]:
    """Where a slice of so many rows begins and ends."""
    if ids.step is not None:
        raise LeavesContract("it takes a slice of a tensor with a step")
    if not all(type(place) in (int, Length, type(None)) for place in (ids.start, ids.stop)):
        raise LeavesContract("it takes a slice between places that are not whole numbers")
    if not any(isinstance(place, Length) for place in (rows, ids.start, ids.stop)):
        chosen = range(rows)[ids]
        if not chosen:
            raise LeavesContract("it chooses no row of a tensor")
        return chosen.start, chosen.stop

    def bound(place: Any, default: Size) -> Size:
        if place is None:
            return default
        negative = place.times < 0 if isinstance(place, Length) else place < 0
        found: Size = rows + place if negative else place
        return found

    return bound(ids.start, 0), bound(ids.stop, rows)  # `_hold` sees to it that they are inside


def _stretched(grid: Matrix, height: int, width: int) -> list[float]:
    """The cells of a matrix whose single row or column is repeated, row after row."""
    rows = [row * width if len(row) == 1 else row for row in grid]
    return list(itertools.chain.from_iterable(rows * height if len(rows) == 1 else rows))


def even(e: Expression) -> bool:
    """Whether an expression is the same for all lengths."""
    return not any(part.op in ("length", "each") for part in parts(e))


def _needed(tape: Tape) -> Tape:
    """The tape without what its result does not need, in the order in which that needs it; every
    weight stays."""
    place: dict[int, int] = {}
    nodes: list[Node] = []
    weights = [n for n, node in enumerate(tape.nodes) if node.op == "weight"]
    todo = [(n, False) for n in (tape.result, *reversed(weights))]
    while todo:
        n, ready = todo.pop()
        node = tape.nodes[n]
        if ready:
            place[n] = len(nodes)
            nodes.append(replace(node, parents=tuple(place[p] for p in node.parents)))
        elif n not in place:
            todo.append((n, True))
            todo += [(p, False) for p in reversed(node.parents)]
    return Tape(nodes, place[tape.result])


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


def _repeats(tape: Tape, again: Tape, longest: int) -> None:
    """Refuse a program that does something else when it runs again: by chance, or because it
    remembers how often it ran."""

    def seen(node: Node) -> tuple[Any, ...]:
        shape = [(at(n, 0), at(n, 1)) for n in (node.rows, node.columns)]
        detail = node.detail
        if node.op == "constant":
            detail = detail.at(longest)
        elif node.op == "tokens" and detail is not None:
            detail = detail(longest)
        return node.op, node.parents, shape, detail

    pairs = itertools.zip_longest(tape.nodes, again.nodes)
    for a, b in pairs:
        if a is None or b is None or seen(a) != seen(b):
            line = (a or b).line
            raise refusal("it does something else each time it runs", line)


# ---- One tape from one for each length ----


def _together(tapes: list[Tape]) -> Tape:
    """The tape that holds for all lengths, from the tapes of each, the first of one token.

    Raises:
        LeavesContract: the program does other things for other lengths.
    """
    columns = list(zip(*[tape.nodes for tape in tapes]))
    for column in columns:
        if len({(node.op, node.parents) for node in column}) > 1:
            raise refusal(UNLIKE, column[0].line)
    if len({(len(tape.nodes), tape.result) for tape in tapes}) > 1:
        raise LeavesContract(UNLIKE)
    return Tape([_one(column) for column in columns], tapes[0].result)


def _one(column: Sequence[Node]) -> Node:
    """The node that is each of these in a document of 1, 2, ... tokens."""
    first = column[0]
    rows, columns = (
        _fit([node.rows for node in column], first.line),
        _fit([node.columns for node in column], first.line),
    )
    details = [node.detail for node in column]
    detail: Any = details[0]
    if first.op == "constant":
        detail = Constant(lambda tokens: details[tokens - 1].at(tokens), _nested(details))
    elif first.op == "tokens":
        places = [choose(tokens) for tokens, choose in enumerate(details, 1)]
        in_order = all(p == list(range(tokens)) for tokens, p in enumerate(places, 1))
        detail = None if in_order else lambda tokens: places[tokens - 1]
    elif first.op == "cells":
        detail = tuple(
            rebuilt(_alike(es, first.line, {}), lambda leaf: leaf) for es in zip(*details)
        )
    elif first.op == "rows":
        detail = tuple(_fit(list(places), first.line) for places in zip(*details))
    elif len(set(details)) > 1:
        raise refusal(UNLIKE, first.line)
    return Node(first.op, first.parents, rows, columns, detail, first.line)


def _nested(constants: list[Constant]) -> bool:
    """Whether the matrices for 1, 2, ... tokens are equal where both of two have a cell."""
    grids = (constant.at(tokens) for tokens, constant in enumerate(constants, 1))
    return all(
        row[: len(other)] == other[: len(row)]
        for grid, next_grid in itertools.pairwise(grids)
        for row, other in zip(grid, next_grid)
    )


def _fit(sizes: list[Any], line: int) -> Size:
    """a T + b through sizes at T = 1, 2, ...; each must lie on it."""
    times = sizes[1] - sizes[0] if len(sizes) > 1 else 0
    fitted = _size(times, sizes[0] - times)
    if any(at(fitted, tokens) != found for tokens, found in enumerate(sizes, 1)):
        raise refusal("a matrix in it does not grow evenly with the document", line)
    return fitted


def _alike(es: tuple[Expression, ...], line: int, made: dict[Any, Expression]) -> Expression:
    """The expression that is each of these in a document of 1, 2, ... tokens."""
    first = es[0]
    if es in made:
        return made[es]
    if all(e is first for e in es):
        return first
    if all(e.op == "number" for e in es):
        return Expression("each", tuple(e.args[0] for e in es))
    if any(e.leaf or e.op != first.op or len(e.args) != len(first.args) for e in es):
        raise refusal(UNLIKE, line)
    args = [_alike(column, line, made) for column in zip(*[e.args for e in es])]
    made[es] = Expression(first.op, *args)
    return made[es]


# ---- The optimiser ----


@dataclass(frozen=True)
class Update:
    """What is done to each cell of a weight in a step.

    Expressions of the inputs 0 to 3: the weight, its gradient, its first and second moment; and of
    the symbols `0`, `1`, ...: numbers that each step sets anew.
    """

    weight: Expression
    first: Expression
    second: Expression


def record_update(
    recorder: Recorder, name: str, arguments: Sequence[tuple[str | None, str]]
) -> Update:
    """What the function that moves a weight does to each of its cells.

    Args:
        name: that function's, such as `adam`.
        arguments: what it is given: `w`, `m`, `v`, or `number`, each with its keyword or None. The
            numbers are the symbols `0`, `1`, ... in the update.

    Raises:
        LeavesContract: a cell's update depends on other cells, or cannot be followed.
    """
    function = recorder.space.get(name)
    if not callable(function):
        raise LeavesContract(f"it has no function {name}")
    found = [
        _moved(recorder, name, function, arguments, *shape) for shape in ((1, 1), (1, 2), (2, 1))
    ]
    if found[1:] != found[:-1]:
        raise LeavesContract(f"its {name} treats a cell by the size of its matrix, or by chance")
    return found[0]


class _Moved:
    """A weight whose cells are symbols."""

    def __init__(self, data: list[list[Any]], grad: list[list[Any]]) -> None:
        self.data, self.grad = data, grad
        self.shape = len(data), len(data[0])


def _moved(
    recorder: Recorder,
    name: str,
    function: Callable[..., Any],
    arguments: Sequence[tuple[str | None, str]],
    rows: int,
    columns: int,
) -> Update:
    """The update, from a weight of this shape."""
    places = [(i, j) for i in range(rows) for j in range(columns)]

    def run() -> list[Any]:
        w, g, m, v = (
            [[Expression("symbol", k, i, j) for j in range(columns)] for i in range(rows)]
            for k in range(4)
        )
        weight = _Moved(w, g)
        given: dict[str, Any] = {"w": weight, "m": m, "v": v}
        numbers = map(str, itertools.count())
        values = [
            (keyword, given[what] if what in given else Expression("symbol", next(numbers)))
            for keyword, what in arguments
        ]
        function(*[x for k, x in values if k is None], **{k: x for k, x in values if k is not None})
        if weight.grad:
            raise LeavesContract(f"its {name} leaves a gradient to the next step")
        return [grid[i][j] for grid in (weight.data, m, v) for i, j in places]

    try:
        flat = _watch.explore(run)
    except Exception as error:
        raise explained(error, recorder.source) from error

    def renamed(leaf: Expression, place: tuple[int, int]) -> Expression:
        if leaf.op != "symbol" or len(leaf.args) == 1:
            return leaf
        if leaf.args[1:] != place:
            raise LeavesContract(f"its {name} moves a cell by what is in others")
        return Expression("input", leaf.args[0])

    cells = [
        rebuilt(e, lambda leaf, place=place: renamed(leaf, place))  # type: ignore[misc]
        for e, place in zip(flat, places * 3)
    ]
    count = len(places)
    results = [cells[k * count : (k + 1) * count] for k in range(3)]
    if any(e is not cell[0] for cell in results for e in cell):
        raise LeavesContract(f"its {name} does not treat every cell alike")
    return Update(*[cell[0] for cell in results])

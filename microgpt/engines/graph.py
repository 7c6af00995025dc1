"""Simplify a tape: leave out what is not needed, and see larger operations in small ones.

The file writes a softmax in six operations and attention in a dozen, each a matrix of its own. Here
they are found again by their form, never by their names, so that an edited program that still has
them gets the fast way, and one that has not gets the plain way with the same numbers:

- cells of cells become one function of cells;
- `x / sqrt(mean square + e)` is a `norm`, `exp(x - max) / sum` a `softmax`, and a softmax of
  `q k^T`, scaled and masked, times `v` is an `attend`;
- products of one matrix with several weights are done as one `wide` product, and a sum of products
  as one `long` product, when the weights lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from microgpt.engines.record import (
    Constant,
    Expression,
    Length,
    Matrix,
    Size,
    Tape,
    arithmetic,
    computed,
    even,
    number,
    parts,
    rebuilt,
    same,
    whole,
)

ZERO, ONE, MINUS = number(0), number(1), number(-1)
INPUT = [Expression("input", i) for i in range(16)]
MOST_INPUTS = 6  # matrices that one function of cells may read
MOST_PARTS = 40  # operations that it may have

# The form of an expression: itself, a name for any number, or an operation and the forms in it.
Form = Expression | str | tuple[Any, ...]


@dataclass(eq=False)
class Op:
    """A node of the simplified tape. `detail` is as in a tape's node; of the new ones:

    | op | parents | detail |
    |---|---|---|
    | `product` | a, b | (a is transposed, b is transposed) |
    | `norm` | x | (what the sum of squares is multiplied by, what is added to it) |
    | `softmax` | x | None |
    | `attend` | q, k, v, then what is added to the scores, if anything | scale |
    | `wide` | x, weights | None; its `slab`s are the products |
    | `slab` | a `wide` | its number |
    | `long` | x, then factors, then weights | how many factors |
    """

    op: str
    parents: list[Op]
    rows: Size
    columns: Size
    detail: Any = None
    line: int = 0
    learns: bool = False  # whether a weight stands behind it, so that it needs a gradient
    users: list[Op] = field(default_factory=list, repr=False)

    @property
    def factors(self) -> list[Op]:
        """What a `long` product multiplies with its weights."""
        return self.parents[1 : 1 + self.detail]

    @property
    def weights(self) -> list[Op]:
        """The weights of a `wide` or a `long` product."""
        return self.parents[1 + (self.detail if self.op == "long" else 0) :]


def graph(tape: Tape) -> list[Op]:
    """The operations that the tape's result needs, simplified, parents first, the result last."""
    ops = _read(tape)
    for simplify in (
        _transposes, _sums, _plain_cells, _norms, _softmaxes, _cells, _masks, _attention, _wide
    ):  # fmt: skip
        ops = _ordered(simplify(ops))
    for op in ops:
        op.learns = op.op == "weight" or (
            op.op not in ("max", "constant", "targets") and any(p.learns for p in op.parents)
        )
    return ops


def _read(tape: Tape) -> list[Op]:
    made: list[Op] = []
    for node in tape.nodes:
        detail = (False, False) if node.op == "product" else node.detail
        parents = [made[p] for p in node.parents]
        made.append(Op(node.op, parents, node.rows, node.columns, detail, node.line))
    return _ordered([*made, made[tape.result]])


def _ordered(ops: list[Op]) -> list[Op]:
    """What the last operation needs, and every weight, parents first; who uses whom is counted
    again."""
    seen: dict[Op, None] = {}
    todo = [(op, False) for op in reversed(ops) if op.op == "weight" or op is ops[-1]]
    while todo:
        op, ready = todo.pop()
        if ready:
            seen.setdefault(op)
        elif op not in seen:
            todo.append((op, True))
            todo += [(parent, False) for parent in reversed(op.parents)]
    if ops[-1].op == "weight":
        del seen[ops[-1]]
        seen[ops[-1]] = None
    for op in seen:
        op.users = []
    for op in seen:
        for parent in dict.fromkeys(op.parents):
            parent.users.append(op)
    return list(seen)


def _replace(ops: list[Op], by: dict[Op, Op]) -> list[Op]:
    """The operations, each that is in `by` replaced, wherever it is a parent."""

    def new(op: Op) -> Op:
        while op in by:
            op = by[op]
        return op

    todo, seen = [*ops, *by.values()], set()
    while todo:
        op = todo.pop()
        if op not in seen:
            seen.add(op)
            op.parents = [new(p) for p in op.parents]
            todo += op.parents
    return [new(op) for op in ops]


def _alone(op: Op, user: Op) -> bool:
    return op.users == [user]


def _same_shape(a: Op, b: Op) -> bool:
    return same(a.rows, b.rows) and same(a.columns, b.columns)


def _transposes(ops: list[Op]) -> list[Op]:
    """A product reads a transposed matrix as it lies."""
    for op in ops:
        if op.op == "product":
            flags = list(op.detail)
            for i in (0, 1):
                while op.parents[i].op == "transpose":
                    op.parents[i] = op.parents[i].parents[0]
                    flags[i] = not flags[i]
            op.detail = tuple(flags)
    return ops


def grows(ops: Sequence[Op], longest: int) -> bool:
    """Whether one token more leaves all rows as they are and adds the last one alone, so that a
    text that grows by a token need not be done anew: every operation makes each row from rows up
    to its own.

    Args:
        ops: as `graph` gives them.
        longest: the most tokens.
    """
    changing: set[Op] = set()  # matrices of so many rows, that change with every token
    for op in ops:
        in_rows = isinstance(op.rows, Length)
        numbers = op.detail if op.op in ("cells", "norm") else [op.detail] * (op.op == "attend")
        if not all(map(even, numbers)):
            return False
        if op.op == "constant":
            only_mask = all(user.op == "attend" for user in op.users)
            if not op.detail.nested or (isinstance(op.columns, Length) and not only_mask):
                return False
            continue
        if isinstance(op.columns, Length):
            return False
        before = any(parent in changing for parent in op.parents)
        match op.op:
            case "weight" | "cells" | "wide" | "slab" | "long" | "norm" | "softmax" | "sum" | "max":
                fits = True
            case "product":
                fits = not op.detail[0] and not isinstance(op.parents[1].rows, Length)
            case "attend":
                fits = in_rows and causal(op, longest)
            case "rows":
                first = op.detail[0]
                fits = not (isinstance(first, Length) and in_rows)
                before = before or isinstance(first, Length)
            case "tokens":
                places = op.detail and [op.detail(n) for n in range(1, longest + 1)]
                fits = not places or (in_rows and all(p == places[-1][: len(p)] for p in places))
                fits = fits and not isinstance(op.parents[0].rows, Length)
            case _:
                fits = False
        if not fits or (before and in_rows):
            return False
        if before:
            changing.add(op)
    return True


def causal(attend: Op, longest: int) -> bool:
    """Whether what is added to the scores makes the future weigh nothing."""
    return len(attend.parents) > 3 and all(
        x == float("-inf") for i, row in mask_rows(attend, longest) for x in row[i + 1 :]
    )


def mask_rows(attend: Op, longest: int) -> list[tuple[int, list[float]]]:
    """The rows of what is added to the scores, for every length, each with its number."""
    mask = attend.parents[3].detail
    lengths = [longest] if mask.nested else range(1, longest + 1)
    return [row for tokens in lengths for row in enumerate(mask.at(tokens))]


# ---- Cells ----


def _substituted(e: Expression, inputs: Sequence[Expression]) -> Expression:
    """An expression with its inputs replaced."""
    return rebuilt(e, lambda leaf: inputs[leaf.args[0]] if leaf.op == "input" else leaf)


def _size(*es: Expression) -> int:
    """How many operations expressions take, each done once."""
    return sum(not part.leaf for part in parts(*es))


def _plain_cells(ops: list[Op]) -> list[Op]:
    """As `_cells`, but a row that is scaled by a number of its own stays: larger operations end
    so."""
    return _cells(ops, scaled=False)


def _cells(ops: list[Op], scaled: bool = True) -> list[Op]:
    """A function of cells that only another reads becomes part of it."""
    by: dict[Op, Op] = {}
    for op in ops:
        changes_nothing = op.op == "cells" and op.detail == (INPUT[0], ONE)
        if changes_nothing and op is not ops[-1] and _same_shape(op, op.parents[0]):
            by[op] = op.parents[0]
    ops = _ordered(_replace(ops, by))
    for op in ops:
        if op.op == "cells" and len(set(op.parents)) < len(op.parents):
            _read_once(op)
        changed = op.op == "cells"
        while changed:
            changed = any(
                parent.op == "cells" and _alone(parent, op) and _same_shape(parent, op)
                and (scaled or not _scales(parent)) and _inline(op, parent)
                for parent in op.parents
            )  # fmt: skip
    return ops


def _read_once(op: Op) -> None:
    """Cells that read a matrix twice, since two became one, read it once."""
    parents = list(dict.fromkeys(op.parents))
    places = [INPUT[parents.index(p)] for p in op.parents]
    value, *each = (_substituted(e, places) for e in op.detail)
    slopes = dict.fromkeys(parents, ZERO)
    for p, slope in zip(op.parents, each):
        slopes[p] = arithmetic("add", slopes[p], slope)
    op.parents, op.detail = parents, (value, *slopes.values())


def _scales(op: Op) -> bool:
    return len(op.parents) == 2 and op.detail[0].op == "mul" and any(
        type(p.columns) is int and p.columns == 1 for p in op.parents
    )  # fmt: skip


def _inline(op: Op, inner: Op) -> bool:
    """Make a function of cells part of the one that reads it, if it does not become too large."""
    k = op.parents.index(inner)
    before, after = op.parents[:k], op.parents[k + 1 :]
    parents = list(dict.fromkeys([*before, *inner.parents, *after]))
    if len(parents) > MOST_INPUTS:
        return False
    places = {p: INPUT[i] for i, p in enumerate(parents)}
    value, *inside = (_substituted(e, [places[p] for p in inner.parents]) for e in inner.detail)
    inputs = [value if p is inner else places[p] for p in op.parents]
    result, *outside = (_substituted(e, inputs) for e in op.detail)
    slopes = dict.fromkeys(parents, ZERO)
    for p, slope in zip(op.parents, outside):
        if p is not inner:
            slopes[p] = arithmetic("add", slopes[p], slope)
    for p, slope in zip(inner.parents, inside):
        slopes[p] = arithmetic("add", slopes[p], arithmetic("mul", slope, outside[k]))
    if _size(result, *slopes.values()) > MOST_PARTS:
        return False
    op.parents, op.detail = parents, (result, *slopes.values())
    op.line = op.line or inner.line
    for p in inner.parents:
        p.users = list(dict.fromkeys(op if u is inner else u for u in p.users))
    return True


# ---- Larger operations, by their form ----


def match(e: Expression, form: Form, found: dict[str, Expression]) -> bool:
    """Whether an expression has a form; the numbers that it names are then in `found`."""
    if isinstance(form, Expression):
        return e is form
    if isinstance(form, str):
        found[form] = e
        return not any(part.op == "input" for part in parts(e))
    return e.op == form[0] and all(match(a, f, found) for a, f in zip(e.args, form[1:]))


def _is_cells(op: Op, count: int) -> bool:
    return op.op == "cells" and len(op.parents) == count


def _times(y: Op) -> list[tuple[Op, Op]]:
    """The factors of a product of two cells, both ways round; none of anything else."""
    if not _is_cells(y, 2):
        return []
    e, (a, b) = y.detail[0], y.parents
    both = e.op == "mul" and set(e.args) == {INPUT[0], INPUT[1]}
    return [(a, b), (b, a)] if both else []


def _norms(ops: list[Op]) -> list[Op]:
    by: dict[Op, Op] = {}
    form = ("div", ONE, ("sqrt", ("add", ("mul", INPUT[0], "scale"), "more")))
    for y in ops:
        for x, root in _times(y):
            found: dict[str, Expression] = {}
            if not (
                _is_cells(root, 1) and _alone(root, y) and match(root.detail[0], form, found)
                and found["scale"].op == found["more"].op == "number"
            ):  # fmt: skip
                continue
            total = root.parents[0]
            if not (total.op == "sum" and _alone(total, root)):
                continue
            squares = total.parents[0]
            if (
                _is_cells(squares, 1) and _alone(squares, total) and squares.parents[0] is x
                and squares.detail[0] is Expression("mul", INPUT[0], INPUT[0])
                and all(map(_honest, (y, root, squares)))
            ):  # fmt: skip
                detail = (found["scale"], found["more"])
                by[y] = Op("norm", [x], y.rows, y.columns, detail, y.line)
    return _replace(ops, by)


def _softmaxes(ops: list[Op]) -> list[Op]:
    by: dict[Op, Op] = {}
    for y in ops:
        for e, inverse in _times(y):
            if not (_is_cells(e, 2) and _is_cells(inverse, 1)):
                continue
            total = inverse.parents[0]
            if (
                total.op == "sum" and _alone(total, inverse) and total.parents[0] is e
                and inverse.detail[0] is Expression("div", ONE, INPUT[0]) and _alone(inverse, y)
                and set(e.users) == {total, y} and _is_shifted(e)
                and all(map(_honest, (y, inverse, e)))
            ):  # fmt: skip
                by[y] = Op("softmax", [e.parents[0]], y.rows, y.columns, None, y.line)
    return _replace(ops, by)


def _is_shifted(e: Op) -> bool:
    """Whether cells are exp(x - max), where the largest of each row of x is made negative first, or
    taken away at once."""
    x, low = e.parents
    largest, value = low, Expression("exp", Expression("sub", INPUT[0], INPUT[1]))
    if _is_cells(low, 1) and low.detail[0] is Expression("mul", INPUT[0], MINUS):
        largest, value = low.parents[0], Expression("exp", Expression("add", INPUT[0], INPUT[1]))
    return largest.op == "max" and largest.parents[0] is x and e.detail[0] is value


def _honest(op: Op) -> bool:
    """Whether the slopes of a function of cells are those of its value: they come from the source,
    which may have them wrong, and a larger operation has its own way back."""
    return all(_close(slope, _slope(op.detail[0], k)) for k, slope in enumerate(op.detail[1:]))


def _slope(e: Expression, k: int) -> Expression | None:
    """The derivative of an expression in input k, by the rules of calculus; None where this does
    not know it."""
    made: dict[Expression, Any] = {}
    for part in parts(e):
        if part.leaf:
            made[part] = ONE if part is INPUT[k] else ZERO
            continue
        a, *more = part.args
        b = more[0] if more else a
        da, db = made[a], made[b]
        if da is None or db is None:
            made[part] = None
        elif part.op in ("add", "sub"):
            made[part] = arithmetic(part.op, da, db)
        elif part.op == "mul":
            made[part] = da * b + db * a
        elif part.op == "div":
            made[part] = (da * b - db * a) / (b * b)
        elif part.op == "exp":
            made[part] = da * part
        elif part.op == "log":
            made[part] = da / a
        else:
            made[part] = da * 0.5 / part if part.op == "sqrt" else None
    result: Expression | None = made[e]
    return result


_POINTS = (
    (0.37, 1.21, 0.83, 2.3, 0.59, 1.7),
    (1.9, 0.41, 1.3, 0.77, 2.1, 0.23),
    (0.7, 0.9, 2.7, 1.1, 0.3, 1.3),
)  # that nothing is special about


def _close(a: Expression, b: Expression | None) -> bool:
    """Whether two expressions are equal, at three points."""
    if b is None or a is b:
        return a is b
    inputs = [list(column) for column in zip(*_POINTS)]
    try:
        pairs = list(zip(*[computed(e, inputs, len(_POINTS), tokens=7) for e in (a, b)]))
    except (ArithmeticError, ValueError, LookupError):
        return False
    return all(abs(x - y) <= 1e-9 * (1 + abs(y)) for x, y in pairs)


def _masks(ops: list[Op]) -> list[Op]:
    """Constants that are added one after another are one constant."""
    for op in ops:
        if op.op != "cells" or sum(p.op == "constant" for p in op.parents) < 2:
            continue
        addends, todo = [], [op.detail[0]]
        while todo:
            e = todo.pop()
            if e.op == "add":
                todo += e.args
            else:
                addends.append(e)
        inputs = dict(zip(INPUT, op.parents))
        read = [part for e in addends for part in parts(e) if part.op == "input"]
        fixed = {
            e: p for e, p in inputs.items()
            if p.op == "constant" and _same_shape(p, op) and e in addends and read.count(e) == 1
        }  # fmt: skip
        if len(fixed) < 2:
            continue
        one = Op("constant", [], op.rows, op.columns, _added(list(fixed.values())), op.line)
        kept = [p for e, p in inputs.items() if e not in fixed]
        places = [INPUT[kept.index(p)] if p in kept else ZERO for p in op.parents]
        value = INPUT[len(kept)]
        for e in addends:
            if e not in fixed:
                value = Expression("add", _substituted(e, places), value)
        slopes = [_substituted(e, places) for p, e in zip(op.parents, op.detail[1:]) if p in kept]
        op.parents, op.detail = [*kept, one], (value, *slopes, ONE)
    return ops


def _added(constants: list[Op]) -> Constant:
    def compute(tokens: int) -> Matrix:
        grids = [op.detail.at(tokens) for op in constants]
        return [[sum(cells) for cells in zip(*rows)] for rows in zip(*grids)]

    return Constant(compute, all(op.detail.nested for op in constants))


def _attention(ops: list[Op]) -> list[Op]:
    by: dict[Op, Op] = {}
    for out in ops:
        if out.op != "product" or out.detail != (False, False):
            continue
        weights, v = out.parents
        if weights.op != "softmax" or not _alone(weights, out):
            continue
        found = _scores(weights.parents[0], weights)
        if found is None:
            continue
        scores, scale, mask = found
        if scores.op != "product" or scores.detail != (False, True):
            continue
        parents = [*scores.parents, v]
        if all(same(o.rows, Length(1, 0)) and type(o.columns) is int for o in parents):
            by[out] = Op("attend", [*parents, *mask], out.rows, out.columns, scale, out.line)
    return _replace(ops, by)


def _scores(z: Op, softmax: Op) -> tuple[Op, Expression, list[Op]] | None:
    """What is scaled and masked before a softmax, by what number, and the mask, if there is one."""
    if not _alone(z, softmax):
        return None
    if z.op != "cells":
        return z, ONE, []
    scaled, found = ("mul", INPUT[0], "scale"), {"scale": ONE}
    forms: list[Form] = [scaled]
    if _is_cells(z, 2):
        forms = [("add", scaled, INPUT[1]), ("add", INPUT[1], scaled), ("add", INPUT[0], INPUT[1])]
        forms.append(("add", INPUT[1], INPUT[0]))
    scores, *mask = z.parents
    fits = (
        len(mask) < 2
        and any(match(z.detail[0], form, found) for form in forms)
        and z.detail[1] is found["scale"]
        and _alone(scores, z)
        and all(m.op == "constant" and _same_shape(m, z) for m in mask)
    )
    return (scores, found["scale"], mask) if fits else None


# ---- Products side by side ----


def _is_product(op: Op) -> bool:
    return op.op == "product" and op.detail == (False, False)


def _sums(ops: list[Op]) -> list[Op]:
    """x + a @ wo + b @ wp: one product, which begins from x."""
    by: dict[Op, Op] = {}
    added = (Expression("add", INPUT[0], INPUT[1]), ONE, ONE)
    for op in ops:
        if not (op.op == "cells" and op.detail == added):
            continue
        if not all(_same_shape(p, op) for p in op.parents):
            continue
        first, last = op.parents
        if not (_is_product(last) and _alone(last, op)):
            first, last = last, first
        if not (_is_product(last) and _alone(last, op)):
            continue
        a, w = last.parents
        before = by.get(first)
        if before is not None and _alone(first, op):
            parents = [before.parents[0], *before.factors, a, *before.weights, w]
            by[op] = Op("long", parents, op.rows, op.columns, before.detail + 1, op.line)
        else:
            by[op] = Op("long", [first, a, w], op.rows, op.columns, 1, op.line)
    return _replace(ops, by)


def _wide(ops: list[Op]) -> list[Op]:
    """Several products of one matrix, each with a weight of its own: one product with all of
    them."""
    groups: dict[Op, list[Op]] = {}
    for op in ops:
        if _is_product(op):
            x, w = op.parents
            if w.op == "weight" and _alone(w, op) and same(x.rows, Length(1, 0)):
                groups.setdefault(x, []).append(op)
    by: dict[Op, Op] = {}
    for x, members in groups.items():
        if len(members) < 2:
            continue
        columns = sum(whole(m.columns, m.line) for m in members)
        weights = [m.parents[1] for m in members]
        wide = Op("wide", [x, *weights], x.rows, columns, None, members[0].line)
        for i, m in enumerate(members):
            by[m] = Op("slab", [wide], m.rows, m.columns, i, m.line)
    return _replace(ops, by)

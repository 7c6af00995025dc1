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

from dataclasses import dataclass, field
from typing import Any

from microgpt.engines.record import (
    Expression, Length, Node, Size, Tape, _arithmetic, matrix, number, same,
)  # fmt: skip

ZERO, ONE, MINUS = number(0), number(1), number(-1)
INPUT = [Expression("input", i) for i in range(16)]
MOST_INPUTS = 6  # matrices that one function of cells may read
MOST_PARTS = 40  # operations that it may have


@dataclass(eq=False)
class Op:
    """A node of the simplified tape. `detail` is as in a tape's node; of the new ones:

    | op | parents | detail |
    |---|---|---|
    | `product` | a, b, then what is added to it, if anything | (a is transposed, b is transposed) |
    | `norm` | x | (what the sum of squares is multiplied by, what is added to it) |
    | `softmax` | x | None |
    | `attend` | q, k, v, then what is added to the scores, if anything | scale |
    | `wide` | x, weights | None; its `slab`s are the products |
    | `slab` | a `wide` | its number |
    | `long` | x or nothing, then factors, then weights | how many factors |
    """

    op: str
    parents: list[Op]
    rows: Size
    columns: Size
    detail: Any = None
    line: int = 0
    learns: bool = False  # whether a weight stands behind it, so that it needs a gradient
    users: list[Op] = field(default_factory=list)
    value: Any = None  # where its numbers are, and its gradient's: views, set by the layout
    grad: Any = None


def graph(tape: Tape) -> list[Op]:
    """The operations that the tape's result needs, simplified, parents first; the last is the result."""
    ops = _read(tape)
    for simplify in (
        _transposes, _sums, lambda ops: _cells(ops, scaled=False), _norms, _softmaxes, _cells, _masks, _attention, _wide
    ):  # fmt: skip
        ops = _ordered(simplify(ops))
    for op in ops:
        op.learns = op.op == "weight" or (
            op.op not in ("max", "constant", "targets") and any(p.learns for p in op.parents)
        )
    return ops


def _read(tape: Tape) -> list[Op]:
    needed, todo = set(), [tape.result]
    while todo:
        n = todo.pop()
        if n not in needed:
            needed.add(n)
            todo += tape.nodes[n].parents
    made: dict[int, Op] = {}
    for n, node in enumerate(tape.nodes):
        if n in needed or node.op == "weight":
            made[n] = _op(node, [made[p] for p in node.parents])
    result = made.pop(tape.result)
    return _ordered([*made.values(), result])


def _op(node: Node, parents: list[Op]) -> Op:
    detail = (False, False) if node.op == "product" else node.detail
    if node.op == "constant":
        detail = (lambda tokens: matrix(node, tokens), node.detail[1])
    return Op(node.op, parents, node.rows, node.columns, detail, node.line)


def _ordered(ops: list[Op]) -> list[Op]:
    """What the last operation needs, and every weight, parents first; who uses whom is counted again."""
    seen: dict[int, Op] = {}

    def visit(op: Op) -> None:
        stack = [(op, iter(op.parents))]
        while stack:
            top, rest = stack[-1]
            parent = next((p for p in rest if id(p) not in seen), None)
            if parent is None:
                stack.pop()
                seen.setdefault(id(top), top)
            else:
                stack.append((parent, iter(parent.parents)))

    for op in ops[:-1]:
        if op.op == "weight":
            visit(op)
    visit(ops[-1])
    ordered = list(seen.values())
    for op in ordered:
        op.users = []
    for op in ordered:
        for parent in dict.fromkeys(op.parents):
            parent.users.append(op)
    return ordered


def _replace(ops: list[Op], by: dict[int, Op]) -> list[Op]:
    """The operations, each that is in `by` replaced."""

    def new(op: Op) -> Op:
        while id(op) in by:
            op = by[id(op)]
        return op

    for op in [*ops, *by.values()]:
        op.parents = [new(p) for p in op.parents]
    return [new(op) for op in ops]


def _alone(op: Op, user: Op) -> bool:
    return op.users == [user]


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


# ---- Cells ----


def substituted(e: Expression, inputs: list[Expression]) -> Expression:
    """An expression with its inputs replaced."""
    if e.op == "input":
        return inputs[e.args[0]]
    if not e.args or not isinstance(e.args[0], Expression):
        return e
    args = [substituted(a, inputs) for a in e.args]
    if all(a is b for a, b in zip(args, e.args)):
        return e
    result: Expression = _arithmetic(e.op, *args)
    return result


def parts(*es: Expression) -> int:
    """How many operations expressions take, each done once."""
    seen: set[int] = set()

    def count(e: Expression) -> None:
        if id(e) not in seen and e.args and isinstance(e.args[0], Expression):
            seen.add(id(e))
            for a in e.args:
                count(a)

    for e in es:
        count(e)
    return len(seen)


def _cells(ops: list[Op], scaled: bool = True) -> list[Op]:
    """A function of cells that only another reads becomes part of it; rows scaled by a number each only
    when the larger operations that end so have been found."""
    by: dict[int, Op] = {}
    for op in ops:
        if op.op != "cells":
            continue
        if (
            op.detail[0] is INPUT[0]
            and len(op.parents) == 1
            and op is not ops[-1]
            and op.detail[1] is ONE
        ):
            parent = op.parents[0]
            if same(parent.rows, op.rows) and same(parent.columns, op.columns):
                by[id(op)] = parent
    ops = _ordered(_replace(ops, by))
    for op in ops:
        changed = op.op == "cells"
        while changed:
            changed = False
            for k, parent in enumerate(op.parents):
                if (
                    parent.op == "cells" and _alone(parent, op)
                    and same(parent.rows, op.rows) and same(parent.columns, op.columns)
                    and (scaled or not _scales(parent)) and _inline(op, k)
                ):  # fmt: skip
                    changed = True
                    break
    return ops


def _scales(op: Op) -> bool:
    return len(op.parents) == 2 and op.detail[0].op == "mul" and any(
        type(p.columns) is int and p.columns == 1 for p in op.parents
    )  # fmt: skip


def _inline(op: Op, k: int) -> bool:
    inner = op.parents[k]
    parents = list(dict.fromkeys([*op.parents[:k], *inner.parents, *op.parents[k + 1 :]]))
    if len(parents) > MOST_INPUTS:
        return False
    inside = [
        substituted(e, [INPUT[parents.index(p)] for p in inner.parents]) for e in inner.detail
    ]
    places = [inside[0] if p is inner else INPUT[parents.index(p)] for p in op.parents]
    value, *outer = [substituted(e, places) for e in op.detail]
    slopes = [ZERO] * len(parents)
    for i, p in enumerate(op.parents):
        if i != k:
            j = parents.index(p)
            slopes[j] = _arithmetic("add", slopes[j], outer[i])
    for p, slope in zip(inner.parents, inside[1:]):
        j = parents.index(p)
        slopes[j] = _arithmetic("add", slopes[j], _arithmetic("mul", slope, outer[k]))
    if parts(value, *slopes) > MOST_PARTS:
        return False
    op.parents, op.detail = parents, (value, *slopes)
    for p in inner.parents:
        p.users = [op if u is inner else u for u in p.users]
        p.users = list(dict.fromkeys(p.users))
    return True


# ---- Larger operations, by their form ----


def _match(e: Expression, form: Any, found: dict[str, Any]) -> bool:
    """Whether an expression has a form: ("op", form, ...), a name for any number, or an expression."""
    if isinstance(form, Expression):
        return e is form
    if isinstance(form, str):
        found[form] = e
        return e.op in ("number", "length", "each") or not any(
            a.op == "input" for a in _parts_of(e)
        )
    return e.op == form[0] and all(_match(a, f, found) for a, f in zip(e.args, form[1:]))


def _parts_of(e: Expression) -> list[Expression]:
    return [e] + [p for a in e.args if isinstance(a, Expression) for p in _parts_of(a)]


def _is_cells(op: Op, count: int) -> bool:
    return op.op == "cells" and len(op.parents) == count


def _norms(ops: list[Op]) -> list[Op]:
    by: dict[int, Op] = {}
    for y in ops:
        if not _is_cells(y, 2):
            continue
        x, root = y.parents
        if y.detail[0] is not Expression("mul", INPUT[0], INPUT[1]) or not _is_cells(root, 1):
            x, root = root, x
            if y.detail[0] is not Expression("mul", INPUT[1], INPUT[0]) or not _is_cells(root, 1):
                continue
        found: dict[str, Any] = {}
        form = ("div", ONE, ("sqrt", ("add", ("mul", INPUT[0], "scale"), "more")))
        if not _match(root.detail[0], form, found) or not _alone(root, y):
            continue
        total = root.parents[0]
        if total.op != "sum" or not _alone(total, root):
            continue
        squares = total.parents[0]
        if (
            _is_cells(squares, 1) and _alone(squares, total) and squares.parents[0] is x
            and squares.detail[0] is Expression("mul", INPUT[0], INPUT[0])
            and squares.detail[1] is Expression("add", INPUT[0], INPUT[0])
            and found["scale"].op == "number" and found["more"].op == "number"
            and _honest(y) and _honest(root)
        ):  # fmt: skip
            detail = (found["scale"], found["more"])
            by[id(y)] = Op("norm", [x], y.rows, y.columns, detail, y.line)
    return _replace(ops, by)


def _honest(op: Op) -> bool:
    """Whether the slopes of a function of cells are those of its value: they come from the source, which
    may have them wrong, and a larger operation has its own way back."""
    return all(
        slope is _slope(op.detail[0], k) or _close(slope, _slope(op.detail[0], k))
        for k, slope in enumerate(op.detail[1:])
    )


def _slope(e: Expression, k: int) -> Expression:
    """The derivative of an expression in input k, by the rules of calculus."""
    d = lambda i: _slope(e.args[i], k)
    if e.op == "input":
        return ONE if e.args[0] == k else ZERO
    if not e.args or not isinstance(e.args[0], Expression):
        return ZERO
    a = e.args
    m = lambda x, y: ZERO if x is ZERO or y is ZERO else _arithmetic("mul", x, y)
    result: Expression
    if e.op in ("add", "sub"):
        result = _arithmetic(e.op, d(0), d(1))
    elif e.op == "mul":
        result = _arithmetic("add", m(d(0), a[1]), m(d(1), a[0]))
    elif e.op == "div":
        top = _arithmetic("sub", m(d(0), a[1]), m(d(1), a[0]))
        result = ZERO if top is ZERO else _arithmetic("div", top, _arithmetic("mul", a[1], a[1]))
    elif e.op == "exp":
        result = m(d(0), e)
    elif e.op == "log":
        result = m(d(0), _arithmetic("div", 1.0, a[0]))
    elif e.op == "sqrt":
        result = m(d(0), _arithmetic("div", 0.5, e))
    else:
        result = Expression("unknown")
    return result


_POINTS = (
    (0.37, 1.21, 0.83, 2.3, 0.59, 1.7),
    (1.9, 0.41, 1.3, 0.77, 2.1, 0.23),
    (0.7, 0.9, 2.7, 1.1, 0.3, 1.3),
)


def _close(a: Expression, b: Expression) -> bool:
    """Whether two expressions are equal, at three points that nothing is special about."""
    from microgpt.engines.record import _cell

    if b.op == "unknown" or any(p.op == "unknown" for p in _parts_of(b)):
        return False
    try:
        return all(
            abs(_cell(a, list(p), 7) - _cell(b, list(p), 7))
            <= 1e-9 * (1 + abs(_cell(b, list(p), 7)))
            for p in _POINTS
        )
    except (ArithmeticError, ValueError):
        return False


def _softmaxes(ops: list[Op]) -> list[Op]:
    by: dict[int, Op] = {}
    for y in ops:
        if not _is_cells(y, 2) or y.detail[0].op != "mul":
            continue
        e, inverse = y.parents
        if not _is_cells(inverse, 1):
            e, inverse = inverse, e
        if not _is_cells(inverse, 1) or not _is_cells(e, 2):
            continue
        total = inverse.parents[0]
        if (
            y.detail[0] not in (Expression("mul", INPUT[0], INPUT[1]), Expression("mul", INPUT[1], INPUT[0]))
            or inverse.detail[0] is not Expression("div", ONE, INPUT[0]) or not _alone(inverse, y)
            or total.op != "sum" or not _alone(total, inverse) or total.parents[0] is not e
            or set(e.users) != {total, y}
        ):  # fmt: skip
            continue
        x, low = e.parents
        value = e.detail[0]
        if low.op == "cells" and low.parents[0].op == "max":
            largest, scaled = low.parents[0], low.detail[0] is Expression("mul", INPUT[0], MINUS)
            shifted = value is Expression("exp", Expression("add", INPUT[0], INPUT[1])) and scaled
        else:
            largest = low
            shifted = value is Expression("exp", Expression("sub", INPUT[0], INPUT[1]))
        if (
            shifted
            and largest.op == "max"
            and largest.parents[0] is x
            and all(map(_honest, (y, inverse, e)))
        ):
            by[id(y)] = Op("softmax", [x], y.rows, y.columns, None, y.line)
    return _replace(ops, by)


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
        fixed = [
            p for k, p in enumerate(op.parents)
            if p.op == "constant" and same(p.rows, op.rows) and same(p.columns, op.columns)
            and addends.count(INPUT[k]) == 1 and not any(INPUT[k] in _parts_of(e) for e in addends if e is not INPUT[k])
        ]  # fmt: skip
        if len(fixed) < 2:
            continue
        one = Op("constant", [], op.rows, op.columns, _added(fixed), op.line)
        kept = [p for p in op.parents if p not in fixed]
        rest = [e for e in addends if not (e.op == "input" and op.parents[e.args[0]] in fixed)]
        places = [INPUT[kept.index(p)] if p in kept else ZERO for p in op.parents]
        value: Any = INPUT[len(kept)]
        for e in rest:
            value = Expression("add", substituted(e, places), value)
        slopes = [substituted(e, places) for p, e in zip(op.parents, op.detail[1:]) if p in kept]
        op.parents, op.detail = [*kept, one], (value, *slopes, ONE)
    return ops


def _added(constants: list[Op]) -> Any:
    def compute(tokens: int) -> Any:
        grids = [op.detail[0](tokens) for op in constants]
        return [[sum(cells) for cells in zip(*rows)] for rows in zip(*grids)]

    return compute, all(op.detail[1] for op in constants)


def _attention(ops: list[Op]) -> list[Op]:
    by: dict[int, Op] = {}
    for out in ops:
        if out.op != "product" or out.detail != (False, False) or len(out.parents) != 2:
            continue
        weights, v = out.parents
        if weights.op != "softmax" or not _alone(weights, out):
            continue
        z, mask, scale = weights.parents[0], None, ONE
        if not _alone(z, weights):
            continue
        if z.op == "cells" and len(z.parents) in (1, 2):
            found: dict[str, Any] = {}
            if len(z.parents) == 1 and _match(z.detail[0], ("mul", INPUT[0], "scale"), found):
                scores = z.parents[0]
            elif len(z.parents) == 2 and any(
                _match(z.detail[0], form, found) for form in (
                    ("add", ("mul", INPUT[0], "scale"), INPUT[1]), ("add", INPUT[1], ("mul", INPUT[0], "scale")),
                    ("add", INPUT[0], INPUT[1]), ("add", INPUT[1], INPUT[0]),
                )
            ) and z.parents[1].op == "constant":  # fmt: skip
                scores, mask = z.parents
                if not (same(mask.rows, z.rows) and same(mask.columns, z.columns)):
                    continue
            else:
                continue
            scale = found.get("scale", ONE)
            if z.detail[1] is not scale or not _alone(scores, z):
                continue
        else:
            scores = z
        if scores.op != "product" or scores.detail != (False, True) or len(scores.parents) != 2:
            continue
        q, k = scores.parents
        if all(same(o.rows, Length(1, 0)) for o in (q, k, v)) and not any(
            isinstance(o.columns, Length) for o in (q, k, v)
        ):
            parents = [q, k, v] + ([] if mask is None else [mask])
            by[id(out)] = Op("attend", parents, out.rows, out.columns, scale, out.line)
    return _replace(ops, by)


# ---- Products side by side ----


def _sums(ops: list[Op]) -> list[Op]:
    """x + a @ wo + b @ wp: one product, which begins from x."""
    by: dict[int, Op] = {}
    add = Expression("add", INPUT[0], INPUT[1])

    def plain(op: Op) -> bool:
        return op.op == "product" and op.detail == (False, False) and len(op.parents) == 2

    for op in ops:
        if not (_is_cells(op, 2) and op.detail == (add, ONE, ONE)):
            continue
        first, second = op.parents
        if not all(same(p.rows, op.rows) and same(p.columns, op.columns) for p in op.parents):
            continue
        if not (plain(second) and _alone(second, op)):
            first, second = second, first
        if not (plain(second) and _alone(second, op)):
            continue
        a, w = second.parents
        before = by.get(id(first))
        if before is not None and _alone(first, op) and before.op == "long":
            n = before.detail
            x, factors, weights = (
                before.parents[0],
                before.parents[1 : 1 + n],
                before.parents[1 + n :],
            )
            parents = [x, *factors, a, *weights, w]
            by[id(op)] = Op("long", parents, op.rows, op.columns, n + 1, op.line)
        else:
            by[id(op)] = Op("long", [first, a, w], op.rows, op.columns, 1, op.line)
    return _replace(ops, by)


def _wide(ops: list[Op]) -> list[Op]:
    """Several products of one matrix, each with a weight of its own: one product with all of them."""
    groups: dict[int, list[Op]] = {}
    for op in ops:
        if op.op == "product" and op.detail == (False, False) and len(op.parents) == 2:
            x, w = op.parents
            if w.op == "weight" and _alone(w, op) and same(x.rows, Length(1, 0)):
                groups.setdefault(id(x), []).append(op)
    by: dict[int, Op] = {}
    for members in groups.values():
        if len(members) < 2:
            continue
        x = members[0].parents[0]
        columns = sum(int(m.columns) for m in members)  # type: ignore[arg-type]
        wide = Op(
            "wide", [x, *[m.parents[1] for m in members]], x.rows, columns, None, members[0].line
        )
        for i, m in enumerate(members):
            by[id(m)] = Op("slab", [wide], m.rows, m.columns, i, m.line)
    return _replace(ops, by)

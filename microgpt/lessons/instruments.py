"""The instruments of the walk: each asks the running file one question, and answers in plain data.

An instrument is a function of two runs of the same file, one before training and one after it. The
build asks it and stores the answer; in the reader's browser the page asks it again, with other
arguments. So it needs the standard library alone, and it computes nothing of the model by itself:
what it answers are values that `gpt.py` has made.
"""

from __future__ import annotations

import ast
import functools
import inspect
import math
import random
import re
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from microgpt import source as file
from microgpt.errors import MicrogptError
from microgpt.run import Run
from microgpt.xray import SYMBOLS, check_characters, xray

Plain = dict[str, Any]
Rows = list[list[float]]

MOST, SIBLINGS = 16, 4  # how much of each call an x-ray keeps: as the page's recording has it
LONGEST = 200  # characters of a text or an expression
KEPT = 12  # recordings that are kept, for figures that ask about the same text
MOST_SAMPLES, MOST_STEPS, MOST_SCORES = 1_000, 200, 64
SNAPSHOTS = 10  # moments of training at which more than the loss is kept
EXAMPLES = 8  # samples that are shown for each temperature


@dataclass
class Models:
    """What the instruments look at: the file's run before training, and one after it.

    Attributes:
        first: a run of which no step has been done.
        trained: a run that is finished; None while there is none.
    """

    first: Run
    trained: Run | None = None
    records: dict[tuple[str, str], Plain] = field(default_factory=dict, repr=False)
    early: _Early | None = field(default=None, repr=False)

    def run(self, model: str) -> Run:
        """The run that is called `first` or `trained`.

        Raises:
            MicrogptError: there is no such run.
        """
        if model == "first":
            return self.first
        if model != "trained":
            raise MicrogptError(f"There is no model called {model!r}: it is first or trained.")
        if self.trained is None:
            raise MicrogptError("There is no trained model here yet.")
        return self.trained

    def record(self, text: str, model: str) -> Plain:
        """One training step on a text, as the x-ray records it; the last few are kept."""
        run = self.run(model)
        _readable(text, run)
        key = (text, model)
        if key not in self.records:
            while len(self.records) >= KEPT:
                del self.records[next(iter(self.records))]
            self.records[key] = xray(
                run.source, text, vocab=run.vocab, params=run.params,
                start=min(run.step, (run.steps or 1) - 1), steps=run.steps, moments=run.moments,
                most=MOST, siblings=SIBLINGS,
            )  # fmt: skip
        return self.records[key]


def answer(models: Models, name: str, arguments: Plain) -> Plain:
    """What an instrument answers; its numbers in full.

    Raises:
        MicrogptError: there is no such instrument, or it does not take these arguments.
    """
    if name not in INSTRUMENTS:
        known = ", ".join(INSTRUMENTS)
        raise MicrogptError(f"There is no instrument called {name!r}; there are: {known}.")
    takes = parameters(name)
    for key, value in arguments.items():
        if key not in takes:
            names = ", ".join(takes) or "no arguments"
            raise MicrogptError(f"The instrument {name} takes no {key!r}; it takes: {names}.")
        _fits(key, value, takes[key])
    return INSTRUMENTS[name](models, **arguments)


def parameters(name: str) -> dict[str, str]:
    """What an instrument takes: the kind of each argument by its name."""
    taken = list(inspect.signature(INSTRUMENTS[name]).parameters.values())[1:]
    return {one.name: str(one.annotation).removesuffix(" | None") for one in taken}


def default(name: str, argument: str) -> Any:
    """What an argument of an instrument is when it is left out."""
    value = inspect.signature(INSTRUMENTS[name]).parameters[argument].default
    return _DEFAULTS[name, argument] if value is None else value


_DEFAULTS: dict[tuple[str, str], Any] = {
    ("expression", "values"): {"a": 2.0, "b": 3.0, "c": -4.0},
    ("softmax", "scores"): [1.0, 0.0, -1.0, 0.5],
    ("temperatures", "temperatures"): [0.2, 0.5, 1.0, 1.5],
}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("a text", lambda value: isinstance(value, str)),
    "int": ("a whole number", lambda value: type(value) is int),
    "float": ("a number", _number),
    "list[float]": (
        "a list of numbers", lambda value: isinstance(value, list) and all(map(_number, value)),
    ),
    "list[Any]": ("a list", lambda value: isinstance(value, list)),
    "dict[str, float]": (
        "numbers by name",
        lambda value: isinstance(value, dict)
        and all(isinstance(key, str) and _number(number) for key, number in value.items()),
    ),
}  # fmt: skip


def _fits(name: str, value: Any, kind: str) -> None:
    words, fits = _KINDS[kind]
    if not fits(value):
        raise MicrogptError(f"{name} must be {words}, not {_short(value)}.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise MicrogptError(f"{name} must be from {low:,} to {high:,}, not {value:,}.")


def _readable(text: str, run: Run) -> None:
    check_characters(text, run.vocab)
    if run.context is not None and len(text) > run.context:
        raise MicrogptError(
            f"The text has {len(text)} characters, and this model reads at most {run.context}."
        )


# ---- Tokens ----


def tokens(models: Models, text: str = "anna") -> Plain:
    """What the file's vocabulary and encode make of a text; a strange character is an answer."""
    run = models.first
    if len(text) > LONGEST:
        raise MicrogptError(f"The text has {len(text):,} characters; {LONGEST} are enough.")
    strange = next((c for c in text if c not in run.vocab or c == run.vocab[0]), None)
    ids = [] if strange is not None else run.namespace["encode"](text, run.vocab)
    return {
        "text": text, "tokens": [run.vocab[i] for i in ids], "ids": ids, "vocab": run.vocab,
        "strange": strange,
    }  # fmt: skip


# ---- One value of a run ----

TOKENS, POSITIONS, VOCABULARY = "tokens", "positions", "vocabulary"
CHANNELS, HEAD, HIDDEN, ONE = "channels", "channels of a head", "hidden channels", "one number"

_OF_NAME = {
    "wte": (VOCABULARY, CHANNELS), "wpe": (POSITIONS, CHANNELS), "lm_head": (CHANNELS, VOCABULARY),
    "wq": (CHANNELS, HEAD), "wk": (CHANNELS, HEAD), "wv": (CHANNELS, HEAD), "wo": (HEAD, CHANNELS),
    "fc": (CHANNELS, HIDDEN), "proj": (HIDDEN, CHANNELS),
    "q": (TOKENS, HEAD), "k": (TOKENS, HEAD), "v": (TOKENS, HEAD),
    "scores": (TOKENS, TOKENS), "future": (TOKENS, TOKENS), "weights": (TOKENS, TOKENS),
    "tokens": (TOKENS, CHANNELS), "x": (TOKENS, CHANNELS), "h": (TOKENS, CHANNELS),
    "mean_square": (TOKENS, ONE), "hidden": (TOKENS, HIDDEN),
    "logits": (TOKENS, VOCABULARY), "probs": (TOKENS, VOCABULARY), "targets": (TOKENS, VOCABULARY),
    "surprise": (TOKENS, ONE), "loss": (ONE, ONE),
}  # fmt: skip
_OF_RETURN = {
    "attention": (TOKENS, CHANNELS), "mlp": (TOKENS, CHANNELS), "norm": (TOKENS, CHANNELS),
    "gpt": (TOKENS, VOCABULARY), "cross_entropy": (ONE, ONE),
}  # fmt: skip


def matrix(
    models: Models, text: str = "anna", model: str = "trained", value: str = "attention.weights"
) -> Plain:
    """One named value of a run: `attention.weights 2` is the second of that name, `wte` a
    weight.
    """
    record = models.record(text, model)
    found = find(record, value)
    tensors = record["tensors"]
    tensor = None if found["tensor"] is None else tensors[found["tensor"]]
    rows = found["rows"]
    words = _dimensions(found, record)
    labels = {
        TOKENS: record["tokens"], VOCABULARY: record["vocab"],
        POSITIONS: [str(i) for i in range(len(rows))],
    }  # fmt: skip
    fits = [labels.get(word) for word in words]
    line = found["line"]
    return {
        "text": text, "model": model, "value": value, "name": found["name"],
        "function": found["function"], "line": line, "code": _code(line),
        "shape": [len(rows), len(rows[0])], "rows": rows, "grad": tensor and tensor["grad"],
        "rowLabels": fits[0] and fits[0][: len(rows)],
        "columnLabels": fits[1] and fits[1][: len(rows[0])],
        "dimensions": list(words), "tensor": found["tensor"],
    }  # fmt: skip


def find(record: Plain, value: str) -> Plain:
    """The recorded value that a name such as `attention.weights 2`, `gpt.x 3` or `wte` means.

    Returns:
        `name`, `function`, `line`, `call`, `tensor` (its id or None) and `rows`.

    Raises:
        MicrogptError: there is no such value, or it is no matrix.
    """
    path, _, number = value.strip().partition(" ")
    place = 1 if not number else int(number) if number.isdecimal() and len(number) < 6 else 0
    for tensor in record["tensors"]:
        if tensor["weight"] == path and not number:
            line = _made(tensor["name"])
            return {"name": path, "function": "init", "line": line, "call": None,
                    "tensor": tensor["id"], "rows": tensor["data"]}  # fmt: skip
    function, _, name = path.rpartition(".")
    hits = [v for v in record["values"] if (v["function"], v["name"]) == (function, name)]
    if not 1 <= place <= len(hits):
        raise MicrogptError(_nothing(record, function, name, value, len(hits)))
    hit = hits[place - 1]
    if hit["tensor"] is not None:
        rows = record["tensors"][hit["tensor"]]["data"]
    elif hit["kind"] == "matrix":
        rows = hit["data"]
    elif hit["kind"] == "number":
        rows = [[float(hit["data"])]]
    elif hit["kind"] == "list" and all(isinstance(x, int | float) for x in hit["data"]):
        rows = [[float(x) for x in hit["data"]]]
    else:
        raise MicrogptError(f"{value} is no matrix of numbers in this run.")
    keys = ("name", "function", "line", "call", "tensor")
    return {key: hit[key] for key in keys} | {"rows": rows}


def _nothing(record: Plain, function: str, name: str, value: str, hits: int) -> str:
    if hits:
        return f"There is no {_short(value)}: this run has {hits} of {function}.{name}."
    names = {v["name"] for v in record["values"] if v["function"] == function}
    if not names:
        return f"There is no value called {_short(value)} in this run."
    return f"There is no {name!r} in {function}; it has: {', '.join(sorted(names))}."


def _code(line: int) -> str:
    lines = file.ORIGINAL.splitlines()
    return lines[line - 1].strip() if 1 <= line <= len(lines) else ""


@functools.lru_cache
def _made(name: str) -> int:
    """The line of `init` that makes a weight."""
    init = next((f for f in file.functions(file.ORIGINAL) if f.name == "init"), None)
    lines = file.ORIGINAL.splitlines()
    for number in range(init.first + 1, init.last + 1) if init else ():
        if re.search(rf"\b{re.escape(name)}\b", lines[number - 1]):
            return number
    return 0


def _dimensions(found: Plain, record: Plain) -> tuple[str, str]:
    """The two dimensions of a value in words; those of softmax are its caller's."""
    name, function = found["name"].rsplit(".", 1)[-1], found["function"]
    if function == "softmax":
        parent = record["calls"][found["call"]]["parent"]
        caller = record["calls"][parent]["function"] if parent is not None else ""
        return (TOKENS, TOKENS) if caller == "attention" else (TOKENS, VOCABULARY)
    if name == "return":
        return _OF_RETURN.get(function, ("rows", "columns"))
    if function == "adam":
        return ("rows", "columns")
    return _OF_NAME.get(name, ("rows", "columns"))


# ---- A small expression ----

_OPERATIONS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.MatMult)
_METHODS = ("exp", "log", "relu")
_GRAMMAR = "An expression has + - * / ** @, .exp(), .log() and .relu()."


def expression(
    models: Models, text: str = "a * b + c", values: dict[str, float] | None = None
) -> Plain:
    """An expression of the file's Tensor over single cells, forward and backward.

    What is wrong with an expression is part of the answer, because a reader is typing it.
    """
    given = dict(default("expression", "values") if values is None else values)
    empty: Plain = {"text": text, "values": given, "nodes": [], "backward": []}
    try:
        code = _compiled(text, given)
        nodes, order = _run_expression(code, given)
    except MicrogptError as error:
        return empty | {"error": error.message}
    return empty | {"nodes": nodes, "backward": order, "error": None}


def _compiled(text: str, values: dict[str, float]) -> Any:
    if len(text) > LONGEST:
        raise MicrogptError(f"The expression is longer than {LONGEST} characters.")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise MicrogptError("Python cannot read this expression.") from None
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in called:
            raise MicrogptError(_GRAMMAR)
        _allowed(node, values)
    if not any(isinstance(node, ast.Name) for node in ast.walk(tree)):
        raise MicrogptError(f"Use at least one of the values: {', '.join(values) or 'none'}.")
    return compile(tree, "expression", "eval")


def _allowed(node: ast.AST, values: dict[str, float]) -> None:
    match node:
        case ast.Name(id=name) if name not in values:
            known = ", ".join(values) or "none"
            raise MicrogptError(f"There is no value called {name}; there are: {known}.")
        case ast.Constant(value=value) if type(value) in (int, float):
            node.value = float(value)  # type: ignore[arg-type]
        case ast.BinOp(left=ast.Constant(), right=ast.Constant()):
            raise MicrogptError("Give the result of two plain numbers as one number.")
        case ast.BinOp(op=ast.Pow(), right=right) if not _plain_number(right):
            raise MicrogptError("A power must be a plain number.")
        case ast.BinOp(left=left, op=ast.Sub() | ast.Div() | ast.Pow() | ast.MatMult()) if (
            _plain_number(left)
        ):
            raise MicrogptError(
                "The file's Tensor lets a plain number stand on the left of + and * only."
            )
        case ast.BinOp(op=ast.MatMult(), right=right) if _plain_number(right):
            raise MicrogptError("Only a tensor can stand on either side of @.")
        case ast.UnaryOp() if not _plain_number(node):
            raise MicrogptError("The file's Tensor knows no sign in front: write a * -1.")
        case ast.Call(func=ast.Attribute(attr=name), args=[], keywords=[]) if name in _METHODS:
            pass
        case ast.Attribute(attr=name) if name in _METHODS:
            pass
        case ast.Constant() | ast.Call() | ast.Attribute():
            raise MicrogptError(_GRAMMAR)
        case ast.Expression() | ast.BinOp() | ast.UnaryOp() | ast.Name() | ast.Load():
            pass
        case ast.USub() | ast.UAdd():
            pass
        case _ if not isinstance(node, _OPERATIONS):
            raise MicrogptError(_GRAMMAR)


def _plain_number(node: ast.AST) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        node = node.operand
    return isinstance(node, ast.Constant)


def _run_expression(code: Any, values: dict[str, float]) -> tuple[list[Plain], list[Plain]]:
    namespace = file.execute(file.ORIGINAL)
    made: list[tuple[Any, str]] = []

    class Tensor(namespace["Tensor"]):  # type: ignore[misc, valid-type]
        """The file's Tensor, and a note of each one that is made and by which operation."""

        def __init__(self, data: Any, *parents: Any) -> None:
            super().__init__(data, *parents)
            made.append((self, _operation(sys._getframe(1), bool(parents))))

    namespace["Tensor"] = Tensor
    leaves = {name: Tensor([[float(value)]]) for name, value in values.items()}
    try:
        result = eval(code, {"__builtins__": {}}, dict(leaves))
        if any(isinstance(tensor.data[0][0], complex) for tensor, _ in made):
            raise MicrogptError("A negative number has no such power.")
        used = _reached(result)
        kept = [(tensor, op) for tensor, op in made if id(tensor) in used]
        numbers = {id(tensor): i for i, (tensor, _) in enumerate(kept)}
        gives: dict[int, list[Plain]] = {}
        for tensor, _ in kept:
            _watch(tensor, numbers, gives)
        namespace["backward"](result)
    except (ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise file.explain(error, file.ORIGINAL) from error
    names = {id(tensor): name for name, tensor in leaves.items()}
    nodes = [
        {
            "id": i, "name": names.get(id(tensor)), "op": op,
            "parents": [numbers[id(parent)] for parent, _ in tensor.parents],
            "value": float(tensor.data[0][0]),
            "grad": float(tensor.grad[0][0]) if tensor.grad else None, "depth": tensor.depth,
        }
        for i, (tensor, op) in enumerate(kept)
    ]  # fmt: skip
    return nodes, [{"node": node, "gives": given} for node, given in gives.items()]


def _operation(frame: Any, has_parents: bool) -> str:
    """What made a tensor: the method of the file nearest to it; "input" where none did."""
    names = []
    while frame is not None and frame.f_code.co_filename == file.FILENAME:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    if not names:
        return "input"
    plain = [name for name in names if not name.startswith("<") and name != "cellwise"]
    name = plain[0] if has_parents and plain else "cellwise"
    return SYMBOLS.get(name, name)


def _reached(tensor: Any) -> set[int]:
    found, todo = {id(tensor)}, [tensor]
    while todo:
        for parent, _ in todo.pop().parents:
            if id(parent) not in found:
                found.add(id(parent))
                todo.append(parent)
    return found


def _watch(tensor: Any, numbers: dict[int, int], gives: dict[int, list[Plain]]) -> None:
    """Have each way back of a tensor say what goes along it, as the file's backward takes it."""

    def watched(parent: Any, back: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def told(g: Any) -> Any:
            amount = back(g)
            before = float(parent.grad[0][0]) if parent.grad else 0.0
            gives.setdefault(numbers[id(tensor)], []).append({
                "parent": numbers[id(parent)], "slope": float(back([[1.0]])[0][0]),
                "amount": float(amount[0][0]), "total": before + float(amount[0][0]),
            })  # fmt: skip
            return amount

        return told

    tensor.parents = tuple((parent, watched(parent, back)) for parent, back in tensor.parents)


# ---- Embeddings ----


def neighbours(models: Models, table: str = "wte") -> Plain:
    """How alike the rows of a table are, before and after training, and a map of them."""
    if table not in ("wte", "wpe"):
        raise MicrogptError(f"There is no table called {table!r}: it is wte or wpe.")
    rows = {
        model: [list(map(float, row)) for row in models.run(model).params[table].data]
        for model in ("first", "trained")
    }
    plane = principal_axes(rows["trained"], [])
    if plane is None:
        raise MicrogptError(f"The rows of {table} do not spread, so there is no map of them.")
    vocab = models.first.vocab
    return {
        "table": table,
        "labels": vocab if table == "wte" else [str(i) for i in range(len(rows["first"]))],
        "first": _cosines(rows["first"]), "trained": _cosines(rows["trained"]),
        "points": plane["points"], "explained": plane["explained"],
    }  # fmt: skip


def _cosines(rows: Rows) -> Rows:
    sizes = [math.sqrt(math.fsum(x * x for x in row)) or 1.0 for row in rows]
    units = [[x / size for x in row] for row, size in zip(rows, sizes)]
    return [[math.fsum(map(_product, a, b)) for b in units] for a in units]


def principal_axes(rows: Rows, before: Rows) -> Plain | None:
    """The two directions in which rows spread most, and the shares of the spread along them.

    Pearson, "On lines and planes of closest fit", 1901; found by power iteration. A direction has
    no sign of its own: it is turned the way that the one `before` points, so that a picture does
    not mirror itself from one moment of training to the next.
    """
    means = [math.fsum(column) / len(rows) for column in zip(*rows)]
    centred = [[x - m for x, m in zip(row, means)] for row in rows]
    columns = list(zip(*centred))
    spread = [[math.fsum(map(_product, a, b)) for b in columns] for a in columns]
    total = math.fsum(row[i] for i, row in enumerate(spread))
    if len(rows) < 3 or len(columns) < 2 or not math.isfinite(total) or total <= 0:
        return None
    axes, shares = [], []
    for number in range(2):
        way = (
            before[number] if len(before) > number else [1.0 / (1 + i) for i in range(len(spread))]
        )
        axis = way
        for _ in range(100):
            axis = [math.fsum(map(_product, row, axis)) for row in spread]
            length = math.sqrt(math.fsum(x * x for x in axis)) or 1.0
            axis = [x / length for x in axis]
        size = math.fsum(x * math.fsum(map(_product, row, axis)) for x, row in zip(axis, spread))
        spread = [[x - size * a * b for x, b in zip(row, axis)] for row, a in zip(spread, axis)]
        turned = -1.0 if math.fsum(map(_product, axis, way)) < 0 else 1.0
        axes.append([turned * x for x in axis])
        shares.append(max(size, 0.0) / total)
    points = [[math.fsum(map(_product, row, axis)) for axis in axes] for row in centred]
    return {"axes": axes, "points": points, "explained": shares}


def _product(a: float, b: float) -> float:
    return a * b


# ---- Inside the model ----


def whole(models: Models, text: str = "anna", model: str = "trained") -> Plain:
    """The whole x-ray of one training step on a text, to walk through its cells."""
    return models.record(text, model)


def attention(models: Models, text: str = "anna", model: str = "trained") -> Plain:
    """Scores before and weights after the softmax, of every head."""
    record = models.record(text, model)
    return {
        "text": text, "model": model, "tokens": record["tokens"],
        "heads": _heads(record, models.run(model)),
    }  # fmt: skip


def _heads(record: Plain, run: Run) -> list[Plain]:
    per_layer = int(run.sizes["n_head"])
    found = {
        name: [
            record["tensors"][v["tensor"]]["data"]
            for v in record["values"]
            if (v["function"], v["name"]) == ("attention", name)
        ]
        for name in ("scores", "weights")
    }
    return [
        {"layer": i // per_layer, "head": i % per_layer, "scores": scores, "weights": weights}
        for i, (scores, weights) in enumerate(zip(found["scores"], found["weights"], strict=True))
    ]


def softmax(models: Models, scores: list[Any] | None = None) -> Plain:
    """The file's own softmax over one row of scores; "-inf" is a score that was erased."""
    given = default("softmax", "scores") if scores is None else scores
    if not 1 <= len(given) <= MOST_SCORES:
        raise MicrogptError(f"There must be 1 to {MOST_SCORES} scores, not {len(given)}.")
    row = [-math.inf if x == "-inf" else x for x in given]
    for x in row:
        if not _number(x) and x != -math.inf:
            raise MicrogptError(f"A score must be a number or -inf, not {_short(x)}.")
    if max(row) == -math.inf:
        raise MicrogptError("At least one score must be left, or there is nothing to share.")
    n = models.first.namespace
    x = n["Tensor"]([[float(x) for x in row]])
    shifted = x - x.amax(-1, keepdim=True)
    return {
        "scores": x.data[0], "shifted": shifted.data[0], "exps": shifted.exp().data[0],
        "weights": n["softmax"](x).data[0],
    }  # fmt: skip


def stream(models: Models, text: str = "anna", model: str = "trained") -> Plain:
    """The residual stream stage by stage, and what the model would say if it ended there."""
    run, record = models.run(model), models.record(text, model)
    values = [
        v for v in record["values"]
        if v["function"] == "gpt" and v["name"] in ("tokens", "x") and v["tensor"] is not None
    ]  # fmt: skip
    stages: list[Plain] = []
    before: Rows = []
    heads = 0
    for value in values:
        rows = record["tensors"][value["tensor"]]["data"]
        code = _code(value["line"])
        heads = heads + 1 if "attention(" in code else heads
        added = [[x - y for x, y in zip(*pair)] for pair in zip(rows, before)] if before else rows
        stages.append({
            "label": _stage(value["name"], code, heads), "line": value["line"], "x": rows,
            "size": _sizes(rows), "added": _sizes(added), "probs": _lens(run, rows),
        })  # fmt: skip
        before = rows
    return {
        "text": text, "model": model, "tokens": record["tokens"], "vocab": record["vocab"],
        "stages": stages,
    }  # fmt: skip


def _stage(name: str, code: str, heads: int) -> str:
    if name == "tokens":
        return "token"
    if "attention(" in code:
        return f"+ head {heads}"
    return "+ feed-forward" if "mlp(" in code else "+ position"


def _sizes(rows: Rows) -> list[float]:
    return [math.sqrt(math.fsum(x * x for x in row) / len(row)) for row in rows]


def _lens(run: Run, rows: Rows) -> Rows:
    """(T, C) -> (T, V): the file's last norm, its lm_head and its softmax, at any stage."""
    n = run.namespace
    logits = n["norm"](n["Tensor"]([row[:] for row in rows])) @ run.params["lm_head"]
    probs: Rows = n["softmax"](logits).data
    return probs


def surprise(models: Models, text: str = "anna", model: str = "trained") -> Plain:
    """What the model made of each next token: its probability, and the surprise in nats."""
    run, record = models.run(model), models.record(text, model)
    probs = find(record, "cross_entropy.probs")["rows"]
    nats = find(record, "cross_entropy.surprise")["rows"]
    ids = run.namespace["encode"](text, run.vocab)[: len(probs) + 1]
    places = [
        {
            "after": text[:i], "next": run.vocab[ids[i + 1]], "probs": row,
            "prob": row[ids[i + 1]], "surprise": nat, "choices": math.exp(nat),
        }
        for i, (row, [nat]) in enumerate(zip(probs, nats))
    ]  # fmt: skip
    return {
        "text": text, "model": model, "vocab": run.vocab, "places": places, "loss": record["loss"],
        "choices": math.exp(record["loss"]), "baseline": run.baseline,
    }  # fmt: skip


# ---- Gradients ----


def backward(models: Models, text: str = "anna", model: str = "trained") -> Plain:
    """The named tensors of one step, in the order in which their gradient is complete."""
    record = models.record(text, model)
    order = []
    learnt: list[bool] = []  # whether a tensor is a weight or made from one: not a constant
    for tensor in record["tensors"]:
        learnt.append(bool(tensor["weight"]) or any(learnt[p] for p in tensor["parents"]))
    for i in completed(record):
        tensor = record["tensors"][i]
        if tensor["grad"] is None or not tensor["name"] or not learnt[i]:
            continue
        weight, flat = tensor["weight"], [x for row in tensor["grad"] for x in row]
        order.append({
            "tensor": i, "name": weight or tensor["name"],
            "function": "init" if weight else tensor["function"],
            "line": _made(tensor["name"]) if weight else tensor["line"], "op": tensor["op"],
            "shape": tensor["shape"], "rows": tensor["data"], "grad": tensor["grad"],
            "size": math.sqrt(math.fsum(x * x for x in flat) / len(flat)),
        })  # fmt: skip
    return {"text": text, "model": model, "loss": record["loss"], "order": order}


def completed(record: Plain) -> list[int]:
    """The tensors that the loss reaches, in the order in which the file's `backward` completes
    their gradients: a result when it is taken up, the deepest first; a leaf with its last share.
    """
    tensors = record["tensors"]
    depth: list[int] = []
    for tensor in tensors:
        depth.append(1 + max([depth[p] for p in tensor["parents"]], default=0))
    loss = find(record, "train.loss")["tensor"]
    todo, order = [loss], []
    while todo:
        *todo, i = sorted(todo, key=lambda i: depth[i])
        order.append(i)
        for parent in tensors[i]["parents"]:
            if not tensors[parent]["parents"]:
                order = [*(other for other in order if other != parent), parent]
            elif parent not in todo:
                todo.append(parent)
    return order


def nudge(
    models: Models,
    text: str = "anna",
    model: str = "trained",
    weight: str = "wte",
    row: int = 1,
    column: int = 0,
    by: float = 1e-4,
) -> Plain:
    """The gradient of one weight by the file's backward, and the loss really recomputed with the
    weight a little larger and a little smaller.
    """
    run = models.run(model)
    _readable(text, run)
    cells = _weight(run, weight, row, column).data
    if not 1e-12 <= abs(by) <= 10:
        raise MicrogptError(f"The nudge must be from 1e-12 to 10 in size, not {by:g}.")
    value, step = cells[row][column], (run.namespace, run.params, run.vocab, text)
    try:
        loss, gradients = one_step(*step)
        cells[row][column] = value + by
        up, _ = one_step(*step)
        cells[row][column] = value - by
        down, _ = one_step(*step)
    finally:
        cells[row][column] = value
    place = list(run.named_weights()).index(weight)
    gradient, measured = gradients[place][row][column], (up - down) / (2 * by)
    return {
        "text": text, "model": model, "weight": weight, "row": row, "column": column, "by": by,
        "weights": _names(run), "value": value, "loss": loss, "up": up, "down": down,
        "gradient": gradient, "measured": measured, "relative": relative(gradient, measured),
    }  # fmt: skip


def relative(gradient: float, measured: float) -> float:
    """How far two numbers are apart, as a share of the larger one."""
    return abs(gradient - measured) / (max(abs(gradient), abs(measured)) or 1.0)


def one_step(
    namespace: Plain, params: Any, vocab: list[str], text: str
) -> tuple[float, list[Rows]]:
    """The loss and all gradients of a program's own training step, its update left out.

    Args:
        namespace: the names of a program, as `source.execute` returns them.
        params, vocab: its weights, which stay as they are, and its tokens.
        text: the document.

    Returns:
        the loss, and the gradient of each weight in the order of the program's `leaves`.
    """
    gradients: list[Rows] = []
    plain = namespace["adam"]

    def adam(w: Any, *rest: Any, **more: Any) -> None:
        rows = w.grad or [[0.0] * w.shape[1]] * w.shape[0]
        gradients.append([[float(x) for x in row] for row in rows])
        w.grad = []

    namespace["adam"] = adam
    try:
        steps = namespace["train"](params, [text], vocab, steps=1)
        loss = float(next(steps))
        steps.close()
    finally:
        namespace["adam"] = plain
    return loss, gradients


def _names(run: Run) -> list[Plain]:
    return [{"name": name, "shape": list(w.shape)} for name, w in run.named_weights().items()]


def _weight(run: Run, weight: str, row: int, column: int) -> Any:
    weights = run.named_weights()
    if weight not in weights:
        known = ", ".join(weights)
        raise MicrogptError(f"There is no weight called {_short(weight)}; there are: {known}.")
    tensor = weights[weight]
    if not (0 <= row < tensor.shape[0] and 0 <= column < tensor.shape[1]):
        rows, columns = tensor.shape
        raise MicrogptError(
            f"{weight} has {rows} rows and {columns} columns, counted from 0, so there is no cell "
            f"({row}, {column})."
        )
    return tensor


# ---- Training ----


def moments(
    models: Models, weight: str = "wte", row: int = 1, column: int = 0, steps: int = 20
) -> Plain:
    """One weight through the first steps of training, with the two means that Adam keeps."""
    _weight(models.first, weight, row, column)
    _between("steps", steps, 1, min(MOST_STEPS, models.first.steps or MOST_STEPS))
    if models.early is None:
        models.early = _Early(models.first)
    early, names = models.early, list(models.first.named_weights())
    early.advance_to(steps)
    place, width = names.index(weight), models.first.named_weights()[weight].shape[1]
    cell = row * width + column
    done: list[Plain] = []
    for step, (doc, loss) in enumerate(early.told[:steps], 1):
        numbers = early.kept[step][place]
        value = numbers.value[cell]
        done.append({
            "step": step, "doc": doc, "loss": loss, "gradient": numbers.gradient[cell],
            "m": numbers.m[cell], "v": numbers.v[cell],
            "move": value - early.kept[step - 1][place].value[cell], "value": value,
        })  # fmt: skip
    return {
        "weight": weight, "row": row, "column": column, "weights": _names(models.first),
        "steps": done,
    }  # fmt: skip


@dataclass(frozen=True)
class _Numbers:
    """One weight matrix after a step, cell after cell: what moved it, and where it came to."""

    value: array[float]
    gradient: array[float]
    m: array[float]
    v: array[float]


class _Early:
    """The first steps of training, with everything that Adam had in hand; kept, so that the next
    weight that is asked for is there at once.
    """

    def __init__(self, first: Run) -> None:
        self.run = Run(first.source, first.corpus, seed=first.seed)
        self.weights = list(self.run.named_weights().values())
        self.told: list[tuple[str, float]] = []  # the document and the loss of each step
        self.gradients: list[array[float]] = []  # of the step under way, in the order of weights
        self.kept = [[_Numbers(_flat(w.data), array("d"), array("d"), array("d"))
                      for w in self.weights]]  # fmt: skip
        plain = self.run.namespace["adam"]

        def adam(w: Any, *rest: Any) -> None:
            self.gradients.append(_flat(w.grad or [[0.0] * w.shape[1]] * w.shape[0]))
            plain(w, *rest)

        self.run.namespace["adam"] = adam

    def advance_to(self, steps: int) -> None:
        """Train on until so many steps have been done."""
        run = self.run
        while run.step < steps:
            doc = run.train_docs[run.step * (run.batch or 1) % len(run.train_docs)]
            self.gradients = []
            self.told.append((doc, run.advance()))
            parts = zip(self.weights, self.gradients, run.moments or [], strict=True)
            self.kept.append([_Numbers(_flat(w.data), g, _flat(m), _flat(v))
                              for w, g, (m, v) in parts])  # fmt: skip


def _flat(rows: Any) -> array[float]:
    return array("d", [x for row in rows for x in row])


def training(models: Models, text: str = "anna") -> Plain:
    """A whole training of the file, from nothing: its losses, and what it could do on the way.

    It takes as long as training takes. The map of the embeddings is in one plane at all moments,
    the one in which they spread most at the end, so that a point that moves has really moved.
    """
    _readable(text, models.first)
    first = models.first
    run = Run(first.source, first.corpus, seed=first.seed)
    steps = run.steps or 1
    at = {round(steps * (i / (SNAPSHOTS - 1)) ** 2) for i in range(SNAPSHOTS)}
    kept: list[Plain] = []
    names: list[str] = []
    for moment in sorted({0, 1, *at}):
        while run.step < moment:
            run.advance()
        record = Models(run, run).record(text, "trained")
        texts = run.sample(6, seed=moment)
        names = record["tokens"]
        kept.append({
            "step": moment, "heldOut": run.held_out_loss(50),
            "samples": [{"text": t, "known": run.knows(t)} for t in texts],
            "attention": [
                {key: head[key] for key in ("layer", "head", "weights")}
                for head in _heads(record, run)
            ],
            "labels": run.vocab, "points": [], "wte": [row[:] for row in run.params["wte"].data],
        })  # fmt: skip
    plane = principal_axes(kept[-1]["wte"], [])
    for moment_kept in kept:
        moment_kept["points"] = _projected(moment_kept["wte"], plane["axes"]) if plane else []
    return {
        "text": text, "tokens": names, "losses": run.losses, "baseline": run.baseline,
        "steps": steps, "moments": kept,
    }  # fmt: skip


def _projected(rows: Rows, axes: Rows) -> Rows:
    means = [math.fsum(column) / len(rows) for column in zip(*rows)]
    centred = [[x - m for x, m in zip(row, means)] for row in rows]
    return [[math.fsum(map(_product, row, axis)) for axis in axes] for row in centred]


# ---- Sampling ----


def temperatures(
    models: Models, temperatures: list[float] | None = None, n: int = 200, seed: int = 3
) -> Plain:
    """Samples at several temperatures, and how many of them stand in the training data.

    `read` counts those that training has come to, for there may be more data than steps.
    """
    asked = default("temperatures", "temperatures") if temperatures is None else temperatures
    _between("n", n, 1, MOST_SAMPLES)
    if not 1 <= len(asked) <= 8:
        raise MicrogptError(f"There must be 1 to 8 temperatures, not {len(asked)}.")
    run = models.run("trained")
    learnt, held_out = set(run.train_docs), set(run.held_out_docs)
    read = set(run.train_docs[: run.step * (run.batch or 1)])
    rows = []
    for temperature in asked:
        _between("A temperature", temperature, 0, 100)
        texts = run.sample(n, temperature=temperature, seed=seed)
        rows.append({
            "temperature": temperature, "known": sum(text in learnt for text in texts),
            "read": sum(text in read for text in texts),
            "distinct": len(set(texts)), "heldOut": sum(text in held_out for text in texts),
            "examples": [{"text": t, "known": t in learnt} for t in texts[:EXAMPLES]],
        })  # fmt: skip
    return {"n": n, "trainDocs": len(run.train_docs), "rows": rows}


def writing(
    models: Models,
    prefix: str = "",
    temperature: float = 1.0,
    seed: int = 7,
    model: str = "trained",
) -> Plain:
    """One text token by token: the probabilities that were drawn from, and those at temperature
    one.
    """
    run = models.run(model)
    _between("The temperature", temperature, 0, 100)
    steps, before = [], prefix
    for text, probs in run.sample_steps(prefix, temperature, random.Random(seed)):
        steps.append({
            "text": text, "char": text[len(before) :], "probs": probs, "plain": _next(run, before),
        })  # fmt: skip
        before = text
    return {
        "prefix": prefix, "temperature": temperature, "seed": seed, "vocab": run.vocab,
        "steps": steps, "known": run.knows(before.removesuffix("\n")),
    }  # fmt: skip


def _next(run: Run, prefix: str) -> list[float]:
    """The V probabilities of what follows a prefix, at temperature one."""
    n = run.namespace
    logits = n["gpt"](n["encode"](prefix, run.vocab)[:-1], **run.params)[-1:]
    return list(n["softmax"](logits).data[0])


def next_probabilities(models: Models, prefix: str, model: str = "trained") -> dict[str, float]:
    """The probability of each token after a prefix.

    Raises:
        MicrogptError: the prefix cannot be read by this model.
    """
    run = models.run(model)
    _readable(prefix, run)
    return dict(zip(run.vocab, _next(run, prefix)))


# ---- Scale ----


_PUBLISHED = (
    # name, year, reference, n_layer, n_head, n_embd, block_size, vocab_size, as the papers state
    ("GPT", "2018", "radford2018", 12, 12, 768, 512, 40_478),
    ("GPT-2, small", "2019", "radford2019", 12, 12, 768, 1_024, 50_257),
    ("GPT-2, XL", "2019", "radford2019", 48, 25, 1_600, 1_024, 50_257),
    ("GPT-3", "2020", "brown2020", 96, 96, 12_288, 2_048, 50_257),
)


def scale(models: Models) -> Plain:
    """Sizes of this model and of published ones that are built of the same parts.

    `parameters` is the number of weights: of this model, those that it has; of a published one,
    12 C² a layer, and C for each token and each position. The published ones use one table for
    reading and for writing tokens, this file two. Biases and the scales of norms, less than one
    part in a hundred, are left out.
    """
    run = models.first
    keys = ("n_layer", "n_head", "n_embd", "block_size")
    here: Plain = {"name": "This file", "year": "", "reference": ""}
    here |= {key: int(run.sizes[key]) for key in keys}
    rows = [here | {"vocab_size": len(run.vocab), "parameters": run.parameters, "computed": True}]
    for name, year, reference, layers, heads, channels, block, vocab in _PUBLISHED:
        rows.append({
            "name": name, "year": year, "reference": reference, "n_layer": layers, "n_head": heads,
            "n_embd": channels, "block_size": block, "vocab_size": vocab,
            "parameters": count_parameters(layers, channels, block, vocab, tables=1),
            "computed": True,
        })  # fmt: skip
    return {"models": rows}


def count_parameters(
    n_layer: int, n_embd: int, block_size: int, vocab_size: int, tables: int = 2
) -> int:
    """The weights of a model of the file's kind: `tables` is 1 where reading and writing tokens
    share one.
    """
    return (tables * vocab_size + block_size) * n_embd + n_layer * 12 * n_embd**2


INSTRUMENTS: dict[str, Callable[..., Plain]] = {
    function.__name__: function
    for function in (
        tokens, matrix, expression, neighbours, attention, softmax, stream, surprise, backward,
        nudge, moments, training, temperatures, writing, scale,
    )
} | {"xray": whole}  # fmt: skip

EXACT = ("nudge",)
"""Instruments whose numbers travel in full: a small difference of large numbers is their point."""

PICTURES = {"model": ("text", "model")}
"""Figures that the page draws from the x-ray and that ask no instrument, with their arguments."""


def names_shown(name: str, plain: Plain) -> Iterator[str]:
    """The names of the file that a figure with this answer shows, and so brushes with."""
    yield from _SHOWN.get(name, ())
    if name == "matrix":
        yield plain["name"].rsplit(".", 1)[-1]
    if name == "backward":
        yield from (step["name"].rsplit(".", 1)[-1] for step in plain["order"])
    if name == "expression":
        yield from plain["values"]
    if name == "neighbours":
        yield plain["table"]


_SHOWN = {
    "tokens": ("ids", "vocab"), "attention": ("scores", "weights", "q", "k", "v"),
    "softmax": ("scores", "weights"), "stream": ("x", "tokens", "probs"),
    "surprise": ("probs", "targets", "loss"), "backward": ("grad", "loss"),
    "nudge": ("grad", "loss"), "moments": ("grad", "adam.m", "adam.v", "adam.w"),
    "training": ("loss", "weights", "wte"), "temperatures": ("temperature",),
    "writing": ("probs", "text"), "expression": ("grad",),
}  # fmt: skip

"""Run a source and record every value, gradient and graph node, as plain data.

The source is run as it is: one step of its own `train` on one document. Its syntax tree gets a note
after each assignment, so that the values arrive in the order of execution with their lines; and its
`Tensor.__init__` is watched, so that the graph of tensors is the one that the run built. Nothing
here knows what a transformer is: another operation, another layer or no residual is recorded as it
comes.
"""

from __future__ import annotations

import ast
import functools
import inspect
import math
import random
import sys
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any, TypeVar

from microgpt import source as file
from microgpt.errors import MicrogptError

SYMBOLS = {
    "__add__": "+", "__radd__": "+", "__sub__": "-", "__neg__": "-", "__mul__": "*",
    "__rmul__": "*", "__truediv__": "/", "__pow__": "**", "__matmul__": "@",
    "__getitem__": "[]", "cellwise": "number",
}  # fmt: skip
ENTER, LEAVE, CALL = "_xray_enter", "_xray_leave", "_xray_call"
NOTE, GIVEN, BACK = (
    "_xray_note",
    "_xray_given",
    "_xray_return",
)  # assigned, given as argument, returned
Plain = dict[str, Any]
Value = TypeVar("Value")


def xray(
    source: str,
    doc: str,
    *,
    vocab: list[str],
    params: Any = None,
    seed: int = 42,
    start: int = 0,
    steps: int | None = None,
    moments: Any = None,
    autograd: bool = False,
    most: int | None = None,
    siblings: int | None = None,
) -> Plain:
    """One training step of `source` on `doc`, recorded.

    Args:
        source: the file, or an edit of it.
        doc: the document; cut to the context as training cuts it.
        vocab: the tokens, as the source's `vocabulary` returns them.
        params: weights to start from: a nested dict or list of tensors, which stay as they are.
            Without them the source's own `init` makes them from `seed`.
        start, steps, moments: where in training this step stands, as the source's `train` takes
        them.
        autograd: record the inside of the autograd section as well (many thousands of values).
        most: of one function call, keep at most this many values that are no tensors of the graph
            (Adam's rows are many); tensors are always kept.
        siblings: keep such values only of the first so many calls that one line of one call makes
            (Adam is called for every weight). A call's `dropped` says how many were left out.

    Returns:
        plain data. `tensors`: the graph in order of creation; each has `id`, `shape` (rows,
        columns), `data` and `grad` (rows of numbers; the gradient of the loss, same shape, None
        where none came), `op`, `parents` (ids), and the `line`, `function` and `call` that made it.
        `values`: every assigned value in order of execution, with `line`, `call`, `function`,
        `name`, `kind`, and a `tensor` id or its own `shape` and `data`. `calls`: the function calls
        they belong to. Also `doc`, `tokens`, `ids`, `vocab`, `loss`, `step`, and `error` ({message,
        line, kind} or None): when the program fails half-way, all up to there is still here.

    Raises:
        MicrogptError: the source does not run at all, or a character of `doc` is not in `vocab`.
    """
    check_characters(doc, vocab)
    recorder = _Recorder(source, autograd, most, siblings)
    namespace = recorder.execute()
    if params is None:
        params = _call(namespace["init"], source, random.Random(seed), len(vocab))
    else:
        params = _copy(params, namespace["Tensor"])
    recorder.watch(params)
    loss, error = None, None
    options = {"steps": steps, "batch": 1, "start": start, "moments": _copy_moments(moments)}
    try:
        accepted = inspect.signature(namespace["train"]).parameters
        options = {k: v for k, v in options.items() if k in accepted and v is not None}
        steps_of_training = namespace["train"](params, [doc], vocab, **options)
        loss = next(steps_of_training)
        steps_of_training.close()
    except (
        Exception,
        SystemExit,
    ) as failure:  # the reader's program: whatever it raises is data here
        told = file.explain(failure, source)
        error = {"message": told.message, "line": told.line, "kind": "run"}
    recorder.stop(namespace)
    record = recorder.plain()
    ids = _ids(namespace, doc, vocab, params)
    record |= {
        "doc": doc, "ids": ids, "tokens": [vocab[i] for i in ids], "vocab": list(vocab),
        "loss": loss, "step": start, "error": error or _first_nan(record["tensors"]),
    }  # fmt: skip
    return record


def check_characters(doc: str, vocab: list[str]) -> None:
    """Refuse a document that this vocabulary cannot write.

    Raises:
        MicrogptError: a character is not in it, or is the mark at both ends.
    """
    for char in doc:
        if char not in vocab or char == vocab[0]:
            known = "".join(vocab[1:])
            raise MicrogptError(
                f"The character {char!r} is not in the vocabulary, which is: {known}"
            )


def _call(function: Any, source: str, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise file.explain(error, source) from error


def _ids(namespace: dict[str, Any], doc: str, vocab: list[str], params: Any) -> list[int]:
    """The token ids that the model reads: all but the last, cut to the context."""
    try:
        return list(namespace["encode"](doc, vocab)[: params["wpe"].shape[-2] + 1][:-1])
    except (
        Exception
    ):  # an edited tokenizer or position table: the rest of the record stands without
        return []


def _first_nan(tensors: list[Plain]) -> Plain | None:
    for tensor in tensors:
        made = tensor["parents"] or tensor["weight"]  # a constant is the reader's own word
        if made and any(math.isnan(x) for row in tensor["data"] for x in row):
            name = tensor["name"] or f"a result of {tensor['op']}"
            message = f"The first nan, which is not a number, appears in {name}."
            return {"message": message, "line": tensor["line"], "kind": "run"}
    return None


def _copy(tree: Any, tensor_class: Any) -> Any:
    """The same nested weights as tensors of another namespace, sharing no row list."""
    if isinstance(tree, dict):
        return {name: _copy(branch, tensor_class) for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return [_copy(branch, tensor_class) for branch in tree]
    return tensor_class([list(row) for row in tree.data])


def _copy_moments(moments: Any) -> Any:
    return moments and [tuple([list(row) for row in rows] for rows in pair) for pair in moments]


# ---- Instrumenting the syntax tree ----


class _Instrument(ast.NodeTransformer):
    """Adds a note after each assignment, and one where a function is entered, left and returns."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last  # lines to leave alone: the autograd section, or none
        self.inside = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if self.first <= node.lineno <= self.last:
            return node
        outer, self.inside = self.inside, True
        node.body = [line for statement in node.body for line in _listed(self.visit(statement))]
        self.inside = outer
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        enter = _assign(CALL, _invoke(ENTER, ast.Constant(node.name)))
        given = [_note(node, ast.Name(name, ast.Load()), name, GIVEN) for name in names]
        leave = ast.Expr(_invoke(LEAVE, ast.Name(CALL, ast.Load())))
        docstring = node.body[:1] if ast.get_docstring(node) is not None else []
        guarded = ast.Try(node.body[len(docstring) :] or [ast.Pass()], [], [], [leave])
        node.body = [*docstring, enter, *given, guarded]
        for added in (enter, *given, guarded):
            ast.copy_location(added, node)
            ast.fix_missing_locations(added)
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        outer, self.inside = self.inside, False
        result = self.generic_visit(node)
        self.inside = outer
        return result

    def visit_Assign(self, node: ast.Assign) -> Any:
        return [node, *self._notes(node, node.targets)]

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        return [node, *self._notes(node, [node.target])]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        return [node, *self._notes(node, [node.target] if node.value else [])]

    def visit_For(self, node: ast.For) -> Any:
        self.generic_visit(node)
        node.body = [*self._notes(node, [node.target]), *node.body]
        return node

    def visit_Return(self, node: ast.Return) -> Any:
        if not self.inside or node.value is None:
            return node
        call = ast.Name(CALL, ast.Load())
        node.value = _invoke(BACK, call, ast.Constant(node.lineno), node.value)
        return ast.fix_missing_locations(ast.copy_location(node, node))

    def _notes(self, node: ast.stmt, targets: Iterable[ast.expr]) -> list[ast.stmt]:
        return (
            [_note(node, leaf, ast.unparse(leaf)) for leaf in _leaves(targets)]
            if self.inside
            else []
        )


def _listed(result: Any) -> list[Any]:
    return result if isinstance(result, list) else [result]


def _leaves(targets: Iterable[ast.expr]) -> Iterable[ast.expr]:
    for target in targets:
        if isinstance(target, ast.Tuple | ast.List):
            yield from _leaves(target.elts)
        elif isinstance(target, ast.Starred):
            yield from _leaves([target.value])
        else:
            yield target


def _invoke(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _assign(name: str, value: ast.expr) -> ast.Assign:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _note(place: ast.stmt, target: ast.expr, name: str, hook: str = NOTE) -> ast.stmt:
    value = ast.parse(ast.unparse(target), mode="eval").body
    noted = _invoke(
        hook, ast.Name(CALL, ast.Load()), ast.Constant(place.lineno), ast.Constant(name), value
    )
    return ast.fix_missing_locations(ast.copy_location(ast.Expr(noted), place))


# ---- Recording ----


class _Recorder:
    """What an instrumented run leaves behind: calls, values and tensors, as they came."""

    def __init__(self, source: str, autograd: bool, most: int | None, siblings: int | None) -> None:
        self.source, self.autograd = source, autograd
        self.most = sys.maxsize if most is None else most
        self.siblings = sys.maxsize if siblings is None else siblings
        self.first, self.last = _machinery(source)
        self.calls: list[Plain] = []
        self.count: list[int] = []  # values of each call that are no tensors
        self.groups: dict[tuple[int | None, int | None, str], int] = {}
        self.stack: list[int] = []
        self.values: list[tuple[int, int, str, str, Any]] = []
        self.tensors: list[Any] = []
        self.nodes: list[Plain] = []
        self.grads: dict[int, Any] = {}
        self.found: dict[int, int] = {}  # id() of a tensor or of its rows -> its place in `tensors`

    def execute(self) -> dict[str, Any]:
        namespace = file.run_code(_instrumented(self.source, self.autograd), self.source)
        namespace |= {
            ENTER: self.enter,
            LEAVE: self.leave,
            NOTE: self.note,
            GIVEN: self.given,
            BACK: self.back,
        }
        plain_init = namespace["Tensor"].__init__

        def __init__(tensor: Any, *arguments: Any, **options: Any) -> None:
            plain_init(tensor, *arguments, **options)
            if self.stack:
                self.tensor(tensor, sys._getframe(1))

        namespace["Tensor"].__init__ = __init__
        plain_backward = namespace["backward"]

        def backward(loss: Any, *arguments: Any, **options: Any) -> Any:
            result = plain_backward(loss, *arguments, **options)
            self.grads |= {i: tensor.grad for i, tensor in enumerate(self.tensors)}
            return result

        namespace["backward"] = backward
        return namespace

    def stop(self, namespace: dict[str, Any]) -> None:
        """Record no more, whatever of the program is still called."""
        namespace |= {ENTER: lambda function: 0, LEAVE: lambda call: None}
        namespace |= {
            NOTE: lambda *note: None,
            GIVEN: lambda *note: None,
            BACK: lambda call, line, value: value,
        }
        self.stack.clear()

    def watch(self, params: Any, path: str = "") -> None:
        """Name the weights by their paths; those that `init` did not make here enter the graph
        first.
        """
        if isinstance(params, dict | list):
            pairs = params.items() if isinstance(params, dict) else enumerate(params)
            for key, branch in pairs:
                self.watch(branch, f"{path}.{key}" if path else str(key))
        else:
            if id(params) not in self.found:
                self.add(params, line=0, function="", call=None)
            name = path.rsplit(".", 1)[-1]
            self.nodes[self.found[id(params)]] |= {
                "op": "weight",
                "via": "weight",
                "name": name,
                "weight": path,
            }

    def add(self, tensor: Any, **node: Any) -> None:
        self.found[id(tensor)] = len(self.tensors)
        self.tensors.append(tensor)
        self.nodes.append({"name": None, "weight": None, "snapshot": list(tensor.data), **node})

    def enter(self, function: str) -> int:
        parent = self.stack[-1] if self.stack else None
        caller = sys._getframe(2)
        line = caller.f_lineno if caller.f_code.co_filename == file.FILENAME else None
        call = len(self.calls)
        group = (parent, line, function)
        number = self.groups[group] = self.groups.get(group, 0) + 1
        self.calls.append(
            {"id": call, "function": function, "parent": parent, "line": line, "number": number}
        )
        self.count.append(0)
        self.stack.append(call)
        return call

    def leave(self, call: int) -> None:
        if call in self.stack:
            del self.stack[self.stack.index(call) :]

    def note(self, call: int, line: int, name: str, value: Any) -> None:
        index = self.given(call, line, name, value)
        if index is not None and self.nodes[index]["name"] is None:
            self.nodes[index]["name"] = name

    def given(self, call: int, line: int, name: str, value: Any) -> int | None:
        index = self.found.get(id(value))
        if index is not None and self.tensors[index] is not value:
            index = None
        if index is not None:
            self.values.append((line, call, name, "tensor", index))
            return index
        self.count[call] += 1
        if self.count[call] <= self.most and self.calls[call]["number"] <= self.siblings:
            self.values.append((line, call, name, *_plain(value)))
        return None

    def back(self, call: int, line: int, value: Any) -> Any:
        self.given(call, line, "return", value)
        return value

    def tensor(self, tensor: Any, frame: FrameType) -> None:
        """Note a new tensor: the operation nearest to it, and the line outside the machinery."""
        chain = []
        place: FrameType | None = frame
        while place is not None and self.machinery(place):
            chain.append(place.f_code.co_name)
            place = place.f_back
        while place is not None and place.f_code.co_name.startswith("<"):
            place = place.f_back
        line, function = (place.f_lineno, place.f_code.co_name) if place else (0, "")
        names = [name for name in chain if not name.startswith("<")]
        inner = next((n for n in names if n != "cellwise"), None) if tensor.parents else None
        op = "data" if not names else inner or names[0]
        via = names[-1] if names else op
        self.add(
            tensor,
            op=_symbol(op),
            via=_symbol(via),
            line=line,
            function=function,
            call=self.stack[-1],
        )

    def machinery(self, frame: FrameType) -> bool:
        code = frame.f_code
        inside = self.first <= code.co_firstlineno <= self.last
        return code.co_filename == file.FILENAME and (
            inside or code.co_qualname.startswith("Tensor.")
        )

    def plain(self) -> Plain:
        """All of it as lists, dicts, numbers and strings."""
        graph, places = self._graph()
        values: list[Plain] = []
        kept = [0] * len(self.calls)
        for line, call, name, kind, data in self.values:
            value = {
                "i": len(values),
                "line": line,
                "call": call,
                "function": self.calls[call]["function"],
            }
            data = places[data] if kind == "tensor" else data
            values.append(value | {"name": name, "kind": kind} | _contents(kind, data, graph))
            kept[call] += kind != "tensor"
        for record, total, here in zip(self.calls, self.count, kept):
            record["dropped"] = total - here
        return {"calls": self._labelled(), "values": values, "tensors": graph}

    def _labelled(self) -> list[Plain]:
        """Calls with a label: `attention 2` where one line of one call made several of them."""
        for call in self.calls:
            several = self.groups[call["parent"], call["line"], call["function"]] > 1
            call["label"] = f"{call['function']} {call['number']}" if several else call["function"]
        return self.calls

    def _graph(self) -> tuple[list[Plain], dict[int, int]]:
        """The tensors that led somewhere or have a name; and where each of them came to stand."""
        parents = [
            [self.found[id(p)] for p, _ in t.parents if id(p) in self.found] for t in self.tensors
        ]
        keep = {index for index, node in enumerate(self.nodes) if node["name"] is not None}
        keep |= {data for _, _, _, kind, data in self.values if kind == "tensor"}
        todo = list(keep)
        while todo:
            for parent in parents[todo.pop()]:
                if parent not in keep:
                    keep.add(parent)
                    todo.append(parent)
        places = {index: place for place, index in enumerate(sorted(keep))}
        graph = []
        for index, place in places.items():
            node, grad = self.nodes[index], self.grads.get(index)
            rows = [[float(x) for x in row] for row in node["snapshot"]]
            graph.append({
                "id": place, "shape": [len(rows), len(rows[0])], "data": rows,
                "grad": [[float(x) for x in row] for row in grad] if grad else None,
                "op": node["op"], "via": node["via"],
                "parents": [places[p] for p in parents[index]],
                "line": node["line"], "function": node["function"], "call": node["call"],
                "name": node["name"], "weight": node["weight"],
            })  # fmt: skip
        return graph, places


@functools.lru_cache(maxsize=8)
def _instrumented(source: str, autograd: bool) -> CodeType:
    """The compiled source with its notes; the autograd section has them only when asked for."""
    if found := file.problems(source):
        raise MicrogptError(found[0].message, line=found[0].line)
    quiet = (1, 0) if autograd else _machinery(source)
    tree = _Instrument(*quiet).visit(ast.parse(source))
    return compile(ast.fix_missing_locations(tree), file.FILENAME, "exec")


def _machinery(source: str) -> tuple[int, int]:
    """The first and last line of the autograd section; an empty span where the header is gone."""
    part = next((s for s in file.sections(source) if s.name == file.AUTOGRAD), None)
    return (part.first, part.last) if part else (1, 0)


def _symbol(name: str) -> str:
    return SYMBOLS.get(name, name)


def _plain(value: Any) -> tuple[str, Any]:
    """A value that is no tensor of the graph, as (kind, a copy that later changes cannot reach)."""
    if isinstance(value, list | tuple) and value:
        first = value[0]
        if isinstance(first, float | int | str):
            return "list", list(value)
        if isinstance(first, list | tuple) and first and isinstance(first[0], float | int):
            return "matrix", [list(row) for row in value]
        return "text", f"a list of {len(value)}"
    if isinstance(value, float | int):
        return "number", value
    if isinstance(value, str):
        return "text", value
    if value is None:
        return "none", None
    if isinstance(value, dict):
        return "text", "a dict of " + ", ".join(str(key) for key in list(value)[:12])
    return "text", f"a {type(value).__name__}"


def _contents(kind: str, data: Any, graph: list[Plain]) -> Plain:
    if kind == "tensor":
        return {"tensor": data, "shape": graph[data]["shape"], "data": None}
    shape = [len(data), len(data[0])] if kind == "matrix" else None
    return {"tensor": None, "shape": shape, "data": data}


def finite(value: Any) -> Any:
    """The same plain data with "nan", "inf" and "-inf" where JSON has no number for them."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def thin(value: Value, digits: int) -> Value:
    """The same plain data with every number cut to a few significant digits."""
    thinned: Value = _cut(value, digits)
    return thinned


def _cut(value: Any, digits: int) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else value
    if isinstance(value, dict):
        return {key: _cut(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item, digits) for item in value]
    return value

"""The file as data: its sections, functions, knobs and anchors, its edits and their problems.

Everything that the page and the lab derive from `gpt.py` starts here. Lines are counted from 1, as
an editor shows them. Nothing in this module runs the source, except `execute`.
"""

from __future__ import annotations

import ast
import base64
import binascii
import difflib
import functools
import hashlib
import json
import math
import re
import traceback
import urllib.parse
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from microgpt.errors import MicrogptError

PATH = Path(__file__).with_name("gpt.py")
ORIGINAL = PATH.read_text(encoding="utf-8")
FILENAME = "gpt.py"  # the name that edited sources are compiled under, whatever they are
NEEDED = ("Tensor", "backward", "vocabulary", "encode", "init", "leaves", "gpt", "train", "sample")
LARGEST = 200_000  # characters: an edit of a file of 150 lines is never larger than this
AUTOGRAD = "Autograd"

Edits = list[tuple[int, int, list[str]]]


@dataclass(frozen=True)
class Section:
    """A part of the file, from its `# ---- Name: title ----` line to the line before the next."""

    name: str
    title: str
    first: int
    last: int


@dataclass(frozen=True)
class Function:
    """A function, method or class: `name` is its path, such as `attention` or `Tensor.sum`."""

    name: str
    first: int
    last: int
    section: str


@dataclass(frozen=True)
class Knob:
    """A number in the signature of a function of the file; turning it is an edit of that place."""

    name: str
    function: str
    value: float
    line: int
    column: int
    end_column: int


@dataclass(frozen=True)
class Problem:
    """What is wrong with a source, before anything of it has run. Line and column count from 1."""

    line: int
    column: int
    message: str


_HEADER = re.compile(r"# -{2,} ?(?P<name>[^:\-]+?)(?:: (?P<title>.*?))? -{2,}\s*$")
_MAIN = re.compile(r"if __name__ ==")


def sections(source: str) -> list[Section]:
    """The sections of a source in order; `Head` is all above the first, `Main` starts at `if
    __name__`.
    """
    lines = source.splitlines()
    starts: list[tuple[int, str, str]] = [(1, "Head", "what it is")]
    for number, line in enumerate(lines, 1):
        if found := _HEADER.match(line):
            starts.append((number, found["name"].strip(), found["title"] or ""))
        elif _MAIN.match(line):
            starts.append((number, "Main", "train, then invent names"))
    ends = [start - 1 for start, _, _ in starts[1:]] + [max(len(lines), 1)]
    return [Section(name, title, first, last) for (first, name, title), last in zip(starts, ends)]


def functions(source: str) -> list[Function]:
    """Every function, class and method of a source that parses, in order; none of one that does
    not.
    """
    return list(_functions(source))


@functools.lru_cache(maxsize=64)  # every edit asks for them again
def _functions(source: str) -> tuple[Function, ...]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ()
    parts = sections(source)
    found: list[Function] = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                name = prefix + child.name
                last = child.end_lineno or child.lineno
                part = next(p.name for p in reversed(parts) if p.first <= child.lineno)
                found.append(Function(name, child.lineno, last, part))
                visit(child, name + ".")

    visit(tree, "")
    return tuple(found)


def knobs(source: str) -> list[Knob]:
    """The numeric defaults in the signatures of a source's top-level functions, in order."""
    return list(_knobs(source))


@functools.lru_cache(maxsize=64)
def _knobs(source: str) -> tuple[Knob, ...]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ()
    found = []
    for function in tree.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        names = function.args.args[len(function.args.args) - len(function.args.defaults) :]
        for name, default in zip(names, function.args.defaults):
            value = _number(default)
            if value is not None and default.end_col_offset is not None:
                place = (default.lineno, default.col_offset + 1, default.end_col_offset + 1)
                found.append(Knob(name.arg, function.name, value, *place))
    return tuple(found)


def _number(node: ast.expr) -> float | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    return None


def set_knob(source: str, name: str, value: float) -> str:
    """The source with the default of knob `name` (`lr`, or `train.lr`) set to `value`.

    Raises:
        MicrogptError: there is no such knob, or the value cannot be (a size that is not whole).
    """
    found = knobs(source)
    knob = next((k for k in found if name in (k.name, f"{k.function}.{k.name}")), None)
    if knob is None:
        names = ", ".join(k.name for k in found) or "none"
        raise MicrogptError(f"This source has no number called {name}; it has: {names}.")
    if isinstance(value, bool) or not math.isfinite(value):
        raise MicrogptError(f"{name} must be a number, not {value}.", line=knob.line)
    if isinstance(knob.value, int) and isinstance(value, float):
        if not value.is_integer():
            raise MicrogptError(f"{name} must be a whole number, not {value:g}.", line=knob.line)
        value = int(value)
    lines = source.split("\n")
    row = lines[knob.line - 1].encode()
    new = row[: knob.column - 1] + repr(value).encode() + row[knob.end_column - 1 :]
    lines[knob.line - 1] = new.decode()
    return "\n".join(lines)


def anchor(source: str, scope: str, text: str) -> int:
    """The line that `text` (its exact words, indentation apart) stands on, within function `scope`.

    An empty scope means the whole file. This is how prose points at code: never by a line number.

    Raises:
        MicrogptError: the scope or the line is not there, or the line is there more than once.
    """
    lines = source.splitlines()
    first, last = 1, len(lines)
    if scope:
        place = next((f for f in functions(source) if f.name == scope), None)
        if place is None:
            raise MicrogptError(f"There is no {scope} in this source.")
        first, last = place.first, place.last
    hits = [n for n in range(first, last + 1) if lines[n - 1].strip() == text.strip()]
    if len(hits) != 1:
        where = f"in {scope}" if scope else "in the file"
        count = "no line" if not hits else f"{len(hits)} lines"
        raise MicrogptError(f"There is {count} {where} that reads: {text.strip()}")
    return hits[0]


def digest(source: str) -> str:
    """The first eight hexadecimal digits of the SHA-256 of a source: enough to tell two apart."""
    return hashlib.sha256(source.encode()).hexdigest()[:8]


# ---- What is wrong with a source ----


def problems(source: str) -> list[Problem]:
    """What is wrong with a source, found without running it; empty when it may be run."""
    if len(source) > LARGEST:
        return [
            Problem(
                1, 1, f"This is longer than {LARGEST:,} characters: it is not an edit of the file."
            )
        ]
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return [_syntax(error)]
    except (ValueError, RecursionError, MemoryError):
        return [
            Problem(1, 1, "Python cannot read this: it is nested too deeply or holds a null byte.")
        ]
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    assigned = {
        t.id
        for n in tree.body
        if isinstance(n, ast.Assign)
        for t in n.targets
        if isinstance(t, ast.Name)
    }
    missing = [name for name in NEEDED if name not in defined | assigned]
    found = [Problem(1, 1, f"The program needs something called {name}.") for name in missing]
    found += [problem for node in ast.walk(tree) for problem in _outside_contract(node)]
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def _syntax(error: SyntaxError) -> Problem:
    said = (error.msg or "this is not Python").rstrip(".")
    plain = {
        "invalid syntax": "Python cannot read this line",
        "unexpected EOF while parsing": "the file ends in the middle of something",
        "unexpected indent": "this line is indented more than the one above it allows",
        "unindent does not match any outer indentation level": (
            "this indentation matches no line above"
        ),
    }.get(said, said)
    plain = f"Python {plain} here" if plain.startswith("expected") else plain
    sentence = plain[0].upper() + plain[1:] + "."
    return Problem(error.lineno or 1, error.offset or 1, sentence)


_ARGUMENTS = {
    "sum": "(-1, keepdim=True)",
    "amax": "(-1, keepdim=True)",
    "transpose": "(-2, -1)",
    "triu": "(1)",
}


def _outside_contract(node: ast.AST) -> list[Problem]:
    """Calls that PyTorch would understand and the file's Tensor would quietly take for another."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return []
    name = node.func.attr
    if name not in _ARGUMENTS:
        return []
    given = (
        "("
        + ", ".join([ast.unparse(a) for a in node.args] + [ast.unparse(k) for k in node.keywords])
        + ")"
    )
    same = {"transpose": "(-1, -2)", "triu": "(0)"}.get(name)
    if given in (_ARGUMENTS[name], _ARGUMENTS[name].replace("keepdim=", ""), same):
        return []
    known = f".{name}{_ARGUMENTS[name]}"
    message = f"The file's Tensor knows {known} and no other {name}, so not .{name}{given}."
    return [Problem(node.lineno, node.col_offset + 1, message)]


def execute(source: str) -> dict[str, Any]:
    """Run a source as a module (not as main) and return its names.

    Raises:
        MicrogptError: with the line, when the source has a problem or fails as it is run.
    """
    if found := problems(source):
        raise MicrogptError(found[0].message, line=found[0].line)
    return run_code(compile(source, FILENAME, "exec"), source)


def run_code(code: Any, source: str) -> dict[str, Any]:
    """The namespace that compiled code of a source leaves behind; `explain` puts its failure in
    words.
    """
    namespace: dict[str, Any] = {"__name__": "microgpt_edited", "__file__": str(PATH)}
    try:
        exec(code, namespace)
    except (Exception, SystemExit) as error:
        raise explain(error, source) from error
    return namespace


def explain(error: BaseException, source: str) -> MicrogptError:
    """Any exception that a running source raised, as one plain sentence with the line to look at.

    The line is the innermost one outside the autograd section, because there the reader's own
    words are; when there is none, the innermost line of the source.
    """
    if isinstance(error, MicrogptError):
        return error
    if isinstance(error, SyntaxError):
        problem = _syntax(error)
        return MicrogptError(problem.message, line=problem.line)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == FILENAME]
    machinery = next((s for s in sections(source) if s.name == AUTOGRAD), None)
    first, last = (machinery.first, machinery.last) if machinery else (1, 0)
    outside = [f for f in frames if not first <= (f.lineno or 0) <= last]
    line = (outside or frames)[-1].lineno if frames else None
    return MicrogptError(_words(error), line=line)


def _words(error: BaseException) -> str:
    said = str(error).strip()
    if isinstance(error, AssertionError):
        if said.endswith(" do not fit"):
            return f"These shapes do not fit together: {said.removesuffix(' do not fit')}."
        if found := re.fullmatch(r"(\(.*\)) is not (\(.*\))", said):
            return f"These shapes do not fit together: a {found[1]} matrix cannot fill {found[2]}."
        return f"The program's own check failed: {said or 'an assertion without a message'}."
    if isinstance(error, NameError):
        return f"{said[0].upper()}{said[1:]}." if said else "A name is not defined."
    if isinstance(error, AttributeError):
        if found := re.match(r"'Tensor' object has no attribute '(\w+)'", said):
            return (
                f"A Tensor has no {found[1]}: it knows + - * / ** @, x[ids], exp, log, relu, sum, "
                "amax, transpose, triu and new_full."
            )
        return f"{said[0].upper()}{said[1:]}." if said else "An attribute is missing."
    if isinstance(error, SystemExit):
        return "The program asked Python to stop."
    if isinstance(error, RecursionError):
        return "A function calls itself without end."
    if isinstance(error, MemoryError) or "index-sized integer" in said:
        return "The program asked for more memory than there is."
    if isinstance(error, OverflowError):
        return "A number became too large to hold: smaller steps or weights keep it in range."
    if isinstance(error, ZeroDivisionError):
        return "Something was divided by zero."
    if isinstance(error, ValueError) and said == "math domain error":
        return "A function was given a number it is not defined for, such as the logarithm of zero."
    if isinstance(error, IndexError):
        return f"A number points past the end: {said}."
    if isinstance(error, KeyError):
        return f"There is no entry called {said}."
    if isinstance(error, StopIteration):
        return "The training loop ended before its first step."
    if isinstance(error, TypeError | ValueError) and said:
        first = said[0] if re.match(r"\w+\(", said) else said[0].upper()  # not of a function's name
        return f"{first}{said[1:]}{'' if said.endswith('.') else '.'}"
    return f"{type(error).__name__}: {said or 'no further word'}."


# ---- Edits ----


def edits(original: str, source: str) -> Edits:
    """What turns `original` into `source`: (first line, lines removed, lines added), from the
    top.
    """
    a, b = original.split("\n"), source.split("\n")
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    return [(i + 1, j - i, b[k:m]) for tag, i, j, k, m in matcher.get_opcodes() if tag != "equal"]


def apply_edits(original: str, changes: Edits) -> str:
    """The source that `edits` described.

    Raises:
        MicrogptError: the edits overlap, or lie outside the original.
    """
    lines = original.split("\n")
    done, position = [], 0
    for line, removed, added in changes:
        if line - 1 < position or removed < 0 or line - 1 + removed > len(lines):
            raise MicrogptError("This edit does not belong to this version of the file.")
        done += lines[position : line - 1] + list(added)
        position = line - 1 + removed
    return "\n".join(done + lines[position:])


def diff(original: str, source: str) -> str:
    """A unified diff, with three lines of context; empty when the two are equal."""
    a, b = original.splitlines(), source.splitlines()
    return "\n".join(difflib.unified_diff(a, b, "gpt.py", "gpt.py, edited", lineterm=""))


# ---- Functions written anew, and several edits at once ----


class ConflictError(MicrogptError):
    """Two edits change the same words.

    Args:
        line: of the text that both were made of.
        text: what stands there.
    """

    def __init__(self, line: int, text: str) -> None:
        super().__init__(f"Both change line {line}: {text}", line=line)
        self.text = text


def redefine(source: str, text: str, *, numbers: bool = True) -> str:
    """A source in which some functions and numbers are others.

    Args:
        source: the file, or an edit of it.
        text: Python that is read and never run. Each `def` takes the place of the function of that
            name, or is new and comes to stand above the first that uses it; a `class Tensor` holds
            methods likewise; `lr = 0.003` sets a number in a signature.
        numbers: whether such numbers are set.

    Raises:
        MicrogptError: the text is not Python, or holds something else.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        problem = _syntax(error)
        raise MicrogptError(problem.message, line=problem.line) from None
    except (ValueError, RecursionError, MemoryError):
        raise MicrogptError("This is no text that Python can read.", line=1) from None
    rows = text.splitlines()
    parts: list[tuple[str, list[str]]] = []
    found: list[tuple[str, float]] = []
    for node in tree.body:
        match node:
            case ast.Expr(value=ast.Constant(value=str())) if node is tree.body[0]:
                pass  # its docstring
            case ast.FunctionDef():
                parts.append((node.name, _rows(rows, node)))
            case ast.ClassDef(name="Tensor"):
                for method in node.body:
                    if not isinstance(method, ast.FunctionDef):
                        raise _neither(method)
                    parts.append((f"Tensor.{method.name}", _rows(rows, method)))
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if (
                number := _number(value)
            ) is not None:
                found.append((name, number))
            case _:
                raise _neither(node)
    for name, new in parts:
        source = _replaced(source, name, new)
    there = {f.name for f in functions(source)}
    todo = [(name, new) for name, new in parts if name not in there]
    while todo:  # what a new function uses is put above it, once it is there
        left = []
        for name, new in reversed(todo):
            made = _inserted(source, name, new)
            left += [(name, new)] if made is None else []
            source = made or source
        if len(left) == len(todo):
            raise MicrogptError(f"A function {left[0][0]} is added, and none uses it.")
        todo = left[::-1]
    for name, number in found if numbers else ():
        source = set_knob(source, name, number)
    return source


def numbers(text: str) -> dict[str, float]:
    """The numbers that a text sets, by name, as `redefine` reads them."""
    return {
        name: number
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign)
        for name, number in [(ast.unparse(node.targets[0]), _number(node.value))]
        if number is not None
    }


def _rows(rows: list[str], node: ast.FunctionDef) -> list[str]:
    """The lines of a definition, and the comment right above it."""
    first = min([node.lineno, *[d.lineno for d in node.decorator_list]])
    return rows[_comment(rows, first) - 1 : node.end_lineno]


def _comment(rows: list[str], line: int) -> int:
    """The first line of the comment that stands right above a line; that line itself, where there
    is none."""
    while (
        line > 1 and rows[line - 2].lstrip().startswith("#") and not _HEADER.match(rows[line - 2])
    ):
        line -= 1
    return line


def _replaced(source: str, name: str, new: list[str]) -> str:
    """A source with a function written anew, where there is one of that name."""
    place = next((f for f in functions(source) if f.name == name), None)
    if place is None:
        return source
    lines = source.split("\n")
    above = lines[_comment(lines, place.first) - 1 : place.first - 1]
    new = new[len(above) :] if above and new[: len(above)] == above else new
    lines[place.first - 1 : place.last] = new
    return "\n".join(lines)


def _inserted(source: str, name: str, new: list[str]) -> str | None:
    """A source with one function more, above the first that uses it, or None where none does; a
    method comes to stand below `Tensor.relu`."""
    lines = source.split("\n")
    owner, _, method = name.rpartition(".")
    if owner:
        place = next((f for f in functions(source) if f.name == f"{owner}.relu"), None)
        if place is None:
            raise MicrogptError(f"There is no {owner}.relu in this source to put {method} under.")
        lines[place.last : place.last] = new
        return "\n".join(lines)
    for node in ast.parse(source).body:
        used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and name in used:
            starts = [node.lineno, *[d.lineno for d in node.decorator_list]]
            first = _comment(lines, min(starts))
            lines[first - 1 : first - 1] = [*new, ""]
            return "\n".join(lines)
    return None


def _neither(node: ast.stmt) -> MicrogptError:
    return MicrogptError(
        "A variant holds functions and numbers of gpt.py written anew, and this is neither: "
        f"{ast.unparse(node).splitlines()[0]}",
        line=node.lineno,
    )


def merge(base: str, ours: str, theirs: str) -> str:
    """Two edits of one text as one: it has all that `ours` changes and all that `theirs` changes.

    Where both change the same lines, the words of those are looked at. Lines that both add at the
    same place stand there in this order, and so do arguments.

    Raises:
        ConflictError: both change the same words.
    """
    lines: list[str] = []
    for place, *three in _three_ways(base.split("\n"), ours.split("\n"), theirs.split("\n")):
        agreed = _agreed(*three)
        if agreed is None and not three[0]:
            agreed = three[1] + three[2]
        lines += _by_words(place + 1, *three) if agreed is None else agreed
    return "\n".join(lines)


_WORD = re.compile(r"\w+|\n *| +|.")
Items = list[str]


def _by_words(line: int, base: Items, ours: Items, theirs: Items) -> Items:
    """Lines that both have changed."""
    words: list[str] = []
    for place, *three in _three_ways(*(_WORD.findall("\n".join(x)) for x in (base, ours, theirs))):
        agreed = _agreed(*three)
        if agreed is None and not three[0] and three[1][0] == three[2][0] == ",":
            agreed = three[1] + three[2]
        if agreed is None:
            before = "".join(_WORD.findall("\n".join(base))[:place]).count("\n")
            raise ConflictError(line + before, base[before].strip())
        words += agreed
    return "".join(words).split("\n") if words else []


def _agreed(base: Items, ours: Items, theirs: Items) -> Items | None:
    """What comes of a place that at most one has changed, or both alike."""
    if ours in (base, theirs):
        return theirs
    return ours if theirs == base else None


def _three_ways(
    base: Items, ours: Items, theirs: Items
) -> Iterator[tuple[int, Items, Items, Items]]:
    """Place by place, in order: where it begins in the base, and what stands there in all three."""
    changes = sorted(
        (first, last, side, new[k:m])
        for side, new in enumerate((ours, theirs))
        for tag, first, last, k, m in difflib.SequenceMatcher(
            None, base, new, autojunk=False
        ).get_opcodes()
        if tag != "equal"
    )
    at = 0
    while changes:
        first, last = changes[0][:2]
        group = [changes.pop(0)]
        while changes and (
            changes[0][0] < last or changes[0][:2] == (first, first) == (last, last)
        ):
            last = max(last, changes[0][1])
            group.append(changes.pop(0))
        yield at, base[at:first], base[at:first], base[at:first]
        sides = []
        for side in (0, 1):
            made, done = [], first
            for start, end, whose, new in group:
                if whose == side:
                    made += base[done:start] + new
                    done = end
            sides.append(made + base[done:last])
        yield first, base[first:last], sides[0], sides[1]
        at = last
    yield at, base[at:], base[at:], base[at:]


# ---- Links ----


LINK_KEYS = ("text", "seed", "data", "room", "step", "temperature", "model")
_LONGEST_LINK = 20_000


def encode_link(state: dict[str, Any]) -> str:
    """The part of a page's address after `#` that carries a state.

    Args:
        state: any of `LINK_KEYS` with text or numbers, and `source`: an edited source, or None.
    """
    pairs = [("v", "1")] + [
        (key, str(state[key])) for key in LINK_KEYS if state.get(key) is not None
    ]
    source = state.get("source")
    if source is not None and source != ORIGINAL:
        pairs += [("of", digest(ORIGINAL)), ("edit", pack_edit(source))]
    return urllib.parse.urlencode(pairs, quote_via=urllib.parse.quote)


def decode_link(link: str) -> dict[str, Any]:
    """The state that a link (an address, or its part after `#`) carries, checked piece by piece.

    Returns:
        the `LINK_KEYS` that were there, as numbers where they are numbers, and `source` where
        the link carries an edit. Nothing of it is run.

    Raises:
        MicrogptError: the link is too long, damaged, or made for another version of the file.
    """
    if len(link) > _LONGEST_LINK:
        _refuse("is too long")
    fragment = link.split("#", 1)[1] if "#" in link else link
    try:
        pairs = dict(
            urllib.parse.parse_qsl(fragment, strict_parsing=bool(fragment), errors="strict")
        )
    except (ValueError, UnicodeDecodeError):
        _refuse("cannot be read")
    state: dict[str, Any] = {key: pairs[key] for key in LINK_KEYS if key in pairs}
    for key in ("seed", "step"):
        if key in state:
            if not re.fullmatch(r"\d{1,9}", state[key]):
                _refuse(f"has a {key} that is not a whole number")
            state[key] = int(state[key])
    if "temperature" in state:
        if not re.fullmatch(r"\d{1,3}(\.\d{1,6})?", state["temperature"]):
            _refuse("has a temperature that is not a number")
        state["temperature"] = float(state["temperature"])
    if "edit" in pairs:
        if pairs.get("of") not in (None, digest(ORIGINAL)):
            raise MicrogptError(
                "This link carries an edit of another version of the file, so it cannot be applied."
            )
        state["source"] = unpack_edit(pairs["edit"])
    return state


def pack_edit(source: str) -> str:
    """An edit of the file as a short text that an address can carry."""
    text = json.dumps(edits(ORIGINAL, source), separators=(",", ":"))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(text.encode()) + packer.flush()
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def unpack_edit(text: str) -> str:
    """The source that `pack_edit` packed; nothing of it is run.

    Raises:
        MicrogptError: the text is damaged, or too long when unpacked.
    """
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        reader = zlib.decompressobj(-15)
        plain = reader.decompress(packed, LARGEST)
        if reader.unconsumed_tail:
            _refuse("unfolds to more than a file")
        changes = json.loads(plain)
    except (ValueError, binascii.Error, zlib.error, RecursionError):
        _refuse("is damaged")
    checked: Edits = []
    if not isinstance(changes, list):
        _refuse("is damaged")
    for change in changes:
        match change:
            case [int(line), int(removed), list(added)] if all(
                isinstance(row, str) and "\n" not in row for row in added
            ):
                checked.append((line, removed, added))
            case _:
                _refuse("is damaged")
    return apply_edits(ORIGINAL, checked)


def _refuse(why: str) -> NoReturn:
    raise MicrogptError(f"This link {why}.")

"""The file as it is set in a lesson: its tokens by kind, and the names that brush with prose.

A name of the file can mean several things: `v` is a value in `attention`, a running mean in `adam`
and an argument elsewhere. `brush` says which of them is meant, or that none is.
"""

from __future__ import annotations

import io
import keyword
import token
import tokenize
from collections.abc import Iterator

from microgpt import source as file
from microgpt.lessons import CodeToken

_CONCEPTS = {
    "q": "query", "wq": "query", "k": "key", "wk": "key", "v": "value", "wv": "value",
    "x": "residual", "h": "residual", "tokens": "residual", "wte": "residual", "wpe": "position",
    "grad": "gradient", "probs": "probability", "weights": "probability",
}  # fmt: skip

_MEANT = {  # where a name that also means something else is the one that prose speaks of
    "q": ("attention",), "k": ("attention",), "v": ("attention",),
    "x": ("norm", "attention", "mlp", "gpt"), "h": ("gpt",), "e": ("softmax",),
    "weights": ("attention",), "tokens": ("gpt",), "ids": ("encode", "gpt", "train"),
    "head": ("gpt", "init"), "hot": ("Tensor",), "shape": ("Tensor", "stretch", "shrink"),
    "text": ("encode", "sample"), "m": (), "w": (),
}  # fmt: skip
_ADAM = {"m": "adam.m", "v": "adam.v", "w": "adam.w", "moments": None}


def concept(name: str) -> str | None:
    """The concept that a brush stands for, or None; as `concept` of the page has it."""
    if name.startswith("adam."):
        return None
    return _CONCEPTS.get(name.rsplit(".", 1)[-1])


def brush(name: str, function: str) -> str | None:
    """The brush of a name that stands in a function of the file; None where it has none."""
    outer = function.split(".")[0]
    if outer in ("adam", "train") and name in _ADAM:
        return _ADAM[name]
    if keyword.iskeyword(name) or name.startswith("__"):
        return None
    if name in _MEANT:
        return name if outer in _MEANT[name] else None
    return name if len(name) > 1 else None


def names(source: str) -> set[str]:
    """Every brush that some token of the source has."""
    return {found for _, _, found in _identifiers(source) if found is not None}


def listing(source: str, used: set[str]) -> list[list[CodeToken]]:
    """The source line by line; a blank line has no tokens. Only the brushes in `used` are set."""
    lines = source.splitlines()
    places = {(row, column): found for row, column, found in _identifiers(source)}
    rows: list[list[CodeToken]] = [[] for _ in lines]
    ends = [0] * len(lines)
    before = ""

    def add(row: int, start: int, end: int, kind: str, lit: str | None = None) -> None:
        text = lines[row - 1]
        if start > ends[row - 1]:
            rows[row - 1].append(CodeToken(text[ends[row - 1] : start], "", None))
        if end > start:
            rows[row - 1].append(CodeToken(text[start:end], kind, lit))  # type: ignore[arg-type]
        ends[row - 1] = max(end, ends[row - 1])

    for kind, text, (row, start), (last, end) in _whole(source):
        if kind in ("", "word"):
            word = "defined" if before in ("def", "class") else ""
            found = places.get((row, start))
            set_as = "keyword" if keyword.iskeyword(text) else word
            add(row, start, end, set_as, found if found in used else None)
            before = text
            continue
        for number in range(row, last + 1):  # a string may go over several lines
            begin = start if number == row else 0
            stop = end if number == last else len(lines[number - 1])
            add(number, begin, stop, kind)
    return [_joined(row) if line.strip() else [] for row, line in zip(rows, lines)]


def _joined(row: list[CodeToken]) -> list[CodeToken]:
    """The same tokens with plain neighbours as one."""
    joined: list[CodeToken] = []
    for part in row:
        last = joined[-1] if joined else None
        if last and part.kind == last.kind == "" and part.brush is None and last.brush is None:
            joined[-1] = CodeToken(last.text + part.text, "", None)
        else:
            joined.append(part)
    return joined


_Place = tuple[int, int]


def _whole(source: str) -> Iterator[tuple[str, str, _Place, _Place]]:
    """The tokens with their kinds; an f-string is one string, as it was before Python 3.12."""
    opened: list[_Place] = []
    begins = getattr(token, "FSTRING_START", None)
    ends = getattr(token, "FSTRING_END", None)
    layout = (token.NEWLINE, token.NL, token.INDENT, token.DEDENT, token.ENDMARKER, token.ENCODING)
    kinds = {token.STRING: "string", token.NUMBER: "number", token.COMMENT: "comment"}
    for part in tokenize.generate_tokens(io.StringIO(source).readline):
        if part.type == begins:
            opened.append(part.start)
        elif part.type == ends:
            start = opened.pop()
            if not opened:
                yield "string", "", start, part.end
        elif not opened and part.type not in layout:
            kind = kinds.get(part.type, "word" if part.type == token.NAME else "")
            yield kind, part.string, part.start, part.end


def _identifiers(source: str) -> Iterator[tuple[int, int, str | None]]:
    """Every name of the source with its line, column and brush."""
    functions = file.functions(source)
    for kind, text, (row, column), _ in _whole(source):
        if kind == "word":
            inside = [f.name for f in functions if f.first <= row <= f.last]
            yield row, column, brush(text, inside[-1] if inside else "")

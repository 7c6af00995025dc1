"""The walk: lessons written in Markdown, anchored to the file, and filled in by running it.

`python -m microgpt.lessons OUT.json --trained FILE` reads the chapters, runs the file for every
number and every picture, and writes what the page shows. These classes are the shape of that;
`web/src/walk/types.ts` says the same to the page. Parsing needs markdown-it-py and happens when the
page is built; `instruments` and `exercises` need the standard library alone and run in the page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Point = tuple[float, float]


@dataclass(frozen=True)
class CodeToken:
    """A piece of a line of the file; `brush` is the name that it lights up with, if any."""

    text: str
    kind: Literal["", "keyword", "comment", "string", "number", "defined"]
    brush: str | None


@dataclass(frozen=True)
class Prose:
    """A few paragraphs, as HTML."""

    html: str
    kind: Literal["prose"] = "prose"


@dataclass(frozen=True)
class Lines:
    """Lines of the file, shown as code; an empty scope is the whole file."""

    scope: str
    lines: list[int]
    kind: Literal["lines"] = "lines"


@dataclass(frozen=True)
class Figure:
    """An instrument and what it answered when the page was built."""

    figure: str
    id: str
    args: dict[str, Any]
    options: dict[str, str]
    answer: Any
    caption: str
    kind: Literal["figure"] = "figure"


@dataclass(frozen=True)
class Prediction:
    """A question that is answered before the truth is shown."""

    id: str
    how: Literal["choice", "number", "line", "curve"]
    question: str
    options: list[str]
    truth: float | list[int] | list[Point]
    range: dict[str, Any] | None
    axes: dict[str, Any] | None
    then: str
    kind: Literal["predict"] = "predict"


@dataclass(frozen=True)
class Exercise:
    """Something to do with the file, in the reader's own way; see `microgpt.lessons.exercises`."""

    id: str
    how: Literal["edit", "line", "mend"]
    task: str
    hints: list[str]
    truth: list[int]
    start: str | None
    focus: list[int]
    solution: str
    then: str
    kind: Literal["exercise"] = "exercise"


Block = Prose | Lines | Figure | Prediction | Exercise


@dataclass
class Step:
    """A part of a chapter, with the lines of the file that it explains."""

    id: str
    title: str
    blocks: list[Block] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


@dataclass
class Chapter:
    """One Markdown file: `slug` is its page's name, `lead` is HTML."""

    slug: str
    number: int
    title: str
    lead: str
    minutes: int
    steps: list[Step]


@dataclass(frozen=True)
class Term:
    """An entry of the glossary."""

    id: str
    term: str
    html: str


@dataclass(frozen=True)
class Reference:
    """A paper or a page that something is from, and what was taken from it."""

    id: str
    authors: str
    year: str
    title: str
    venue: str
    html: str


@dataclass(frozen=True)
class Lessons:
    """All of the walk, as the page shows it."""

    code: list[list[CodeToken]]
    sections: list[dict[str, Any]]
    chapters: list[Chapter]
    glossary: list[Term]
    references: list[Reference]
    made: dict[str, str]
    python: str
    date: str

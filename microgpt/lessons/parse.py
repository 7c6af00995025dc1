"""Chapters in Markdown become lessons: prose, lines of the file, figures, predictions, exercises.

All that is wrong is collected, so that a writer sees every problem of every chapter at once.
Importing this module needs markdown-it-py; the page does not.
"""

from __future__ import annotations

import difflib
import html
import json
import platform
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from microgpt import source as file
from microgpt.errors import MicrogptError
from microgpt.lessons import (
    Block,
    Chapter,
    Exercise,
    Figure,
    Lessons,
    Lines,
    Point,
    Prediction,
    Prose,
    Reference,
    Step,
    Term,
    exercises,
    facts,
    instruments,
    listing,
)
from microgpt.xray import thin

FOLDER = Path(__file__).parent
DIGITS = 4  # significant digits of a figure's answer, as it travels with the page
OTHER = {  # many matrices; and those of which a table shows sums, or losses to four decimals
    "backward": 3, "training": 3, "softmax": 6, "surprise": 6, "moments": 6,
}  # fmt: skip
_FIRST_MARK = 0xE000  # the private-use characters that stand for facts while Markdown is parsed
_MOST_FACTS = 0xF8FF - _FIRST_MARK
_FACT = re.compile(r"\{\{(.+?)\}\}")
_KEY = re.compile(r"(?P<key>[A-Za-z_]+)(?P<star>\*?):(?: (?P<value>.*))?$")
_TYPED = re.compile(r"(?<![A-Za-z0-9])(?<![A-Za-z]-)\d")  # not GPT-2, float32 and the like
_NAME = re.compile(r"(?P<number>\d+)-(?P<slug>[a-z0-9-]+)\.md")
_BLOCKS = ("lines", "figure", "predict", "exercise")
_PREDICTIONS = {
    "choice": {"question", "option", "truth", "then"},
    "number": {"question", "range", "truth", "then"},
    "line": {"question", "lines", "then"},
    "curve": {"question", "axes", "truth", "then"},
}
_REPEATED = ("option", "hint", "lines")


class LessonsError(MicrogptError):
    """What is wrong with the lessons; each of `problems` is one sentence: file, line, what."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Wrong(Exception):
    """A mistake at a line of the text that is being read."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class _Value:
    """One value of a block, with the line that it stands on; `true` where its key has a star."""

    text: str
    line: int
    true: bool = False


@dataclass
class _Text:
    """A Markdown file as it is read: its facts taken out, and a place for each."""

    name: str
    text: str
    facts: list[tuple[str, Any, str, int]] = field(default_factory=list)

    def filled(self, text: str) -> str:
        """The text with its facts put in, as plain text."""
        return "".join(self._fact(char) for char in text)

    def html(self, text: str) -> str:
        """The rendered HTML with its facts put in."""
        return "".join(
            html.escape(self._fact(char)) if self._marked(char) else char for char in text
        )

    def value(self, text: str) -> tuple[bool, Any]:
        """Whether the text is one fact and nothing else, and its value."""
        stripped = text.strip()
        if len(stripped) == 1 and self._marked(stripped):
            return True, self.facts[ord(stripped) - _FIRST_MARK][1]
        return False, None

    def _marked(self, char: str) -> bool:
        return 0 <= ord(char) - _FIRST_MARK < len(self.facts)

    def _fact(self, char: str) -> str:
        return self.facts[ord(char) - _FIRST_MARK][2] if self._marked(char) else char


@dataclass(frozen=True)
class _Link:
    """A link that is checked when all is read."""

    name: str
    line: int
    to: str
    chapter: str


def read(answers: facts.Answers, folder: Path = FOLDER) -> Lessons:
    """All lessons of a folder: `chapters/*.md`, `glossary.md`, `references.md`, `made.md`.

    Raises:
        LessonsError: with everything that is wrong in them.
    """
    return _Reader(answers, folder).read()


class _Reader:
    def __init__(self, answers: facts.Answers, folder: Path) -> None:
        self.answers, self.folder = answers, folder
        self.facts = facts.Facts(answers)
        self.markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
        self.problems: list[str] = []
        self.links: list[_Link] = []
        self.brushes: set[str] = set()
        self.known = listing.names(file.ORIGINAL)
        self.here: set[str] = set()  # names that the figures of this chapter bring along
        self.chapter = ""
        self.used: list[tuple[str, int, str, str]] = []  # brushes: file, line, name, chapter
        self.brought: dict[str, set[str]] = {}
        self.exercised: set[str] = set()

    def read(self) -> Lessons:
        paths = sorted((self.folder / "chapters").glob("*.md"))
        if not paths:
            raise LessonsError([f"There is no chapter in {self.folder.name}/chapters."])
        chapters = [chapter for path in paths if (chapter := self._chapter(path)) is not None]
        self.chapter = ""
        glossary = self._glossary()
        references = self._references()
        made = self._made()
        self._same(chapters)
        self._check_links(chapters, glossary, references)
        self._check_brushes()
        if self.problems:
            raise LessonsError(self.problems)
        shown = set().union(*self.brought.values()) | self.brushes
        return Lessons(
            code=listing.listing(file.ORIGINAL, shown),
            sections=[vars(part) for part in file.sections(file.ORIGINAL)],
            chapters=sorted(chapters, key=lambda chapter: chapter.number),
            glossary=glossary, references=references, made=made,
            python=platform.python_version(), date=time.strftime("%Y-%m-%d"),
        )  # fmt: skip

    def _wrong(self, name: str, line: int, message: str) -> None:
        self.problems.append(f"{name}:{line}: {message}")

    # ---- Files ----

    def _open(self, path: Path) -> _Text | None:
        """A file with a mark in the place of each fact; None when it is not there."""
        name = path.relative_to(self.folder).as_posix()
        try:
            raw = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            self._wrong(name, 1, "This file is missing or cannot be read.")
            return None
        text = _Text(name, "")
        lines = []
        for number, line in enumerate(raw.splitlines(), 1):
            pieces = _FACT.split(line)  # text, expression, text, …
            marked = [self._mark(text, p, number) if i % 2 else p for i, p in enumerate(pieces)]
            lines.append("".join(marked))
            if "{{" in lines[-1] or any(_FIRST_MARK <= ord(c) <= 0xF8FF for c in line):
                self._wrong(name, number, "There is a {{ whose }} is not on the same line.")
        text.text = "\n".join(lines) + "\n"
        return text

    def _mark(self, text: _Text, inner: str, line: int) -> str:
        expression, form = facts.split(inner)
        value: Any = 0
        said = ""
        try:
            value = self.facts.evaluate(expression)
            said = facts.written(value, form)
        except MicrogptError as error:
            what = error.message
            self._wrong(text.name, line, what if "{{" in what else f"{{{{{inner}}}}} {what}.")
        if len(text.facts) >= _MOST_FACTS:
            self._wrong(text.name, line, "There are too many facts in one file.")
            return ""
        text.facts.append((inner, value, said, line))
        return chr(_FIRST_MARK + len(text.facts) - 1)

    def _chapter(self, path: Path) -> Chapter | None:
        name = path.relative_to(self.folder).as_posix()
        found = _NAME.fullmatch(path.name)
        if not found:
            self._wrong(name, 1, "A chapter is called NN-slug.md, such as 05-attention.md.")
            return None
        self.chapter = found["slug"]
        self.brought[self.chapter] = set()
        text = self._open(path)
        if text is None:
            return None
        try:
            return self._parts(text, int(found["number"]), found["slug"])
        except _Wrong as wrong:
            self._wrong(text.name, wrong.line, str(wrong))
            return None

    def _parts(self, text: _Text, number: int, slug: str) -> Chapter:
        tokens = self.markdown.parse(text.text)
        title, minutes, lead = "", 0, ""
        steps: list[Step] = []
        loose: list[Token] = []

        def close() -> None:
            nonlocal lead
            rendered = self._rendered(text, loose)
            loose.clear()
            if rendered and steps:
                steps[-1].blocks.append(Prose(rendered))
            elif rendered:
                lead += rendered

        for group in _groups(tokens):
            first = group[0]
            line = (first.map or [0])[0] + 1
            if first.type == "heading_open" and first.tag == "h1":
                if title:
                    raise _Wrong(line, "A chapter has one title (# …); this is a second.")
                title = self._plain(text, group[1], line)
            elif not title:
                raise _Wrong(line, "A chapter begins with its title: # Title")
            elif minutes == 0:
                found = re.fullmatch(r"minutes: (\d{1,2})", group[1].content if group[1:] else "")
                if not found or found[1].strip("0") == "":
                    raise _Wrong(line, "Under the title stands how long it takes: minutes: 5")
                minutes = int(found[1])
            elif first.type == "heading_open" and first.tag == "h2":
                close()
                step = self._plain(text, group[1], line)
                steps.append(Step(slugified(step), step))
                if [s.id for s in steps].count(steps[-1].id) > 1:
                    self._wrong(text.name, line, "Another step of this chapter has this title.")
            elif first.type == "fence" and first.info.split(" ")[0] in _BLOCKS:
                close()
                if not steps:
                    self._wrong(text.name, line, "This block stands before the first step (## …).")
                    continue
                try:
                    steps[-1].blocks.append(self._block(text, first, line, steps))
                except _Wrong as wrong:
                    self._wrong(text.name, wrong.line, str(wrong))
            elif first.type == "fence" and first.info.strip() not in ("", "python", "text"):
                known = ", ".join(_BLOCKS)
                self._wrong(text.name, line, f"There is no block {first.info!r}; there are {known}")
            else:
                loose += group
        close()
        if not title or not minutes:
            raise _Wrong(1, "A chapter begins with its title and how long it takes: minutes: 5")
        if not lead:
            self._wrong(text.name, 1, "A chapter begins with a paragraph before its first step.")
        if not steps:
            self._wrong(text.name, 1, "A chapter has at least one step (## …).")
        for step_done in steps:
            explained = {n for b in step_done.blocks if isinstance(b, Lines) for n in b.lines}
            step_done.lines = sorted(explained)
        return Chapter(slug, number, title, lead, minutes, steps)

    # ---- Prose ----

    def _rendered(self, text: _Text, tokens: Sequence[Token]) -> str:
        """Block tokens as HTML, their links and facts resolved, their digits checked."""
        if not tokens:
            return ""
        for token in tokens:
            if token.type == "inline":
                self._resolve(text, token, (token.map or [0])[0] + 1)
            elif token.type == "fence":
                token.info = token.info.strip()
        done = self.markdown.renderer.render(tokens, self.markdown.options, {})
        return text.html(done).strip()

    def _inline(self, text: _Text, value: _Value) -> str:
        """A value of a block as HTML."""
        tokens = self.markdown.parseInline(value.text)
        self._resolve(text, tokens[0], value.line)
        done = self.markdown.renderer.render(tokens, self.markdown.options, {})
        return text.html(done).strip()

    def _plain(self, text: _Text, token: Token, line: int) -> str:
        self._resolve(text, token, line)
        pieces = [t.content for t in token.children or [] if t.type in ("text", "code_inline")]
        return text.filled("".join(pieces)).strip()

    def _resolve(self, text: _Text, inline: Token, line: int) -> None:
        """Turn the links of prose into what the page knows, and look for typed digits."""
        opened: Token | None = None
        for token in inline.children or []:
            if token.type in ("softbreak", "hardbreak"):
                line += 1
            elif token.type == "link_open":
                opened = token
                self._link(text, token, line)
            elif token.type == "link_close":
                if opened is not None:
                    token.tag = opened.tag
                opened = None
            elif token.type == "image":
                self._wrong(text.name, line, "A picture is made by a figure, not by an image.")
            elif token.type == "text" and text.name != "references.md":
                cites = opened is not None and opened.meta.get("cites")
                if not cites and (found := _TYPED.search(token.content)):
                    near = token.content[max(0, found.start() - 20) : found.end() + 20].strip()
                    what = "A number is typed here; let the file compute it"
                    self._wrong(text.name, line, f"{what}: …{text.filled(near)}…")

    def _link(self, text: _Text, token: Token, line: int) -> None:
        to = str(token.attrs.get("href", ""))
        page, _, part = to.partition("#")
        if not page:
            self._brush(text, part, line)
            shade = listing.concept(part)
            token.tag = "span"
            token.attrs = {
                "class": f"brush concept-{shade}" if shade else "brush", "data-brush": part,
                "tabindex": "0",
            }  # fmt: skip
            return
        if re.match(r"https?://", to):
            token.attrs = {"href": to, "rel": "noopener"}
            return
        if page.startswith("../"):  # the page beside the walk
            return
        self.links.append(_Link(text.name, line, to, self.chapter))
        if page in ("glossary.md", "references.md") and not part:
            token.attrs = {"href": page.replace(".md", ".html")}
        elif page == "glossary.md":
            token.attrs = {"class": "term", "data-term": part, "href": f"glossary.html#{part}"}
        elif page == "references.md":
            token.meta["cites"] = True
            token.attrs = {
                "class": "reference", "data-reference": part, "href": f"references.html#{part}",
            }  # fmt: skip
        elif page == "made.md":
            token.attrs = {"href": "made.html"}
        elif found := _NAME.fullmatch(page):
            token.attrs = {"class": "chapter", "href": f"{found['slug']}.html{part and '#' + part}"}

    def _brush(self, text: _Text, name: str, line: int) -> None:
        self.used.append((text.name, line, name, self.chapter))
        self.brushes.add(name)

    # ---- Blocks ----

    def _block(self, text: _Text, token: Token, line: int, steps: list[Step]) -> Block:
        kind, _, rest = token.info.partition(" ")
        rest = rest.strip()
        if kind == "lines":
            return self._lines(text, token, rest, line)
        values = _values(token.content, line + 1)
        if kind == "figure":
            return self._figure(text, rest, values, line, steps)
        if kind == "predict":
            return self._predict(text, rest, values, line, steps)
        return self._exercise(text, rest, values, line)

    def _lines(self, text: _Text, token: Token, scope: str, line: int) -> Lines:
        found = []
        for number, row in enumerate(token.content.splitlines(), line + 1):
            if row.strip():
                try:
                    found.append(file.anchor(file.ORIGINAL, scope, text.filled(row)))
                except MicrogptError as error:
                    self._wrong(text.name, number, error.message)
        if not found:
            raise _Wrong(line, "This block names no line of the file.")
        return Lines(scope, sorted(found))

    def _figure(
        self, text: _Text, name: str, values: dict[str, list[_Value]], line: int, steps: list[Step]
    ) -> Figure:
        if name in instruments.INSTRUMENTS:
            takes = instruments.parameters(name)
        elif name in instruments.PICTURES:
            takes = dict.fromkeys(instruments.PICTURES[name], "str")
        else:
            known = ", ".join([*instruments.INSTRUMENTS, *instruments.PICTURES])
            raise _Wrong(line, f"There is no figure called {name!r}; there are: {known}.")
        caption = self._inline(text, _one(values, "caption", line))
        arguments: dict[str, Any] = {}
        options: dict[str, str] = {}
        for key, given in values.items():
            if key in takes:
                arguments[key] = _argument(text, given[0], takes[key])
            elif key != "caption":
                if close := difflib.get_close_matches(key, [*takes, "caption"], 1, 0.75):
                    what = f"There is no {key!r} here; {close[0]} is meant, perhaps."
                    self._wrong(text.name, given[0].line, what)
                options[key] = text.filled(given[0].text)
        answer: Any = None
        if name in instruments.INSTRUMENTS:
            try:
                answer = self.answers.ask(name, arguments)
            except MicrogptError as error:
                raise _Wrong(line, error.message) from error
            self.brought[self.chapter].update(instruments.names_shown(name, answer))
            if name not in instruments.EXACT:
                answer = thin(answer, OTHER.get(name, DIGITS))
            for key in takes:
                arguments.setdefault(key, instruments.default(name, key))
        return Figure(
            name, _new_id(f"{steps[-1].id}-{name}", steps), arguments, options, answer, caption
        )

    def _predict(
        self, text: _Text, how: str, values: dict[str, list[_Value]], line: int, steps: list[Step]
    ) -> Prediction:
        if how not in _PREDICTIONS:
            known = ", ".join(_PREDICTIONS)
            raise _Wrong(line, f"There is no prediction {how!r}; there are: {known}.")
        _only(values, _PREDICTIONS[how], f"A prediction of a {how}")
        question = self._inline(text, _one(values, "question", line))
        then = self._inline(text, _one(values, "then", line))
        options: list[str] = []
        scale: dict[str, Any] | None = None
        axes: dict[str, Any] | None = None
        truth: float | list[int] | list[Point]
        if how == "choice":
            options = [self._inline(text, option) for option in values.get("option", [])]
            truth = self._chosen(text, values, line)
        elif how == "number":
            scale = _range(text, _one(values, "range", line))
            truth = self._true_number(text, _one(values, "truth", line), scale)
        elif how == "line":
            truth = [self._anchored(text, place) for place in values.get("lines", [])]
            if not truth:
                raise _Wrong(line, "Say which line is right: lines: scope | text of the line")
        else:
            axes = _axes(text, _one(values, "axes", line))
            truth = self._curve(text, _one(values, "truth", line))
        new = _new_id(f"{steps[-1].id}-guess", steps)
        kinds: Any = how
        return Prediction(new, kinds, question, options, truth, scale, axes, then)

    def _chosen(self, text: _Text, values: dict[str, list[_Value]], line: int) -> int:
        options = values.get("option", [])
        if len(options) < 2:
            raise _Wrong(line, "A choice has at least two options.")
        starred = [i for i, option in enumerate(options) if option.true]
        if "truth" in values:
            place = _one(values, "truth", line)
            if starred:
                raise _Wrong(place.line, "The true option has a star or is computed, not both.")
            value = self._computed(text, place)
            if type(value) is not int or not 0 <= value < len(options):
                what = f"The truth is the index of an option, 0 to {len(options) - 1}"
                raise _Wrong(place.line, f"{what}, not {value!r}.")
            return value
        if len(starred) != 1:
            raise _Wrong(line, "Mark the one true option as option*: or compute it as truth:")
        return starred[0]

    def _true_number(self, text: _Text, place: _Value, scale: dict[str, Any]) -> float:
        value = self._computed(text, place)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _Wrong(place.line, f"The truth is a number, not {value!r}.")
        if not scale["low"] <= value <= scale["high"]:
            what = f"The truth, {value:g}, lies outside of the range"
            raise _Wrong(place.line, f"{what}, {scale['low']:g} to {scale['high']:g}.")
        return value

    def _curve(self, text: _Text, place: _Value) -> list[Point]:
        value = self._computed(text, place)
        try:
            points = [(float(x), float(y)) for x, y in value]
        except (TypeError, ValueError):
            raise _Wrong(place.line, "The truth of a curve is a list of (x, y).") from None
        if len(points) < 2:
            raise _Wrong(place.line, "A curve has at least two points.")
        return [(float(f"{x:.6g}"), float(f"{y:.4g}")) for x, y in points]

    def _computed(self, text: _Text, place: _Value) -> Any:
        """The value of a fact, or of an expression that stands without braces."""
        whole, value = text.value(place.text)
        if whole:
            return value
        try:
            return self.facts.evaluate(text.filled(place.text))
        except MicrogptError as error:
            raise _Wrong(place.line, error.message) from error

    def _anchored(self, text: _Text, place: _Value) -> int:
        scope, bar, row = text.filled(place.text).partition("|")
        if not bar:
            raise _Wrong(place.line, "A line is given as: scope | its exact text")
        try:
            return file.anchor(file.ORIGINAL, scope.strip(), row)
        except MicrogptError as error:
            raise _Wrong(place.line, error.message) from error

    def _exercise(
        self, text: _Text, name: str, values: dict[str, list[_Value]], line: int
    ) -> Exercise:
        if name not in exercises.EXERCISES:
            known = ", ".join(exercises.EXERCISES)
            raise _Wrong(line, f"There is no exercise called {name!r}; there are: {known}.")
        if name in self.exercised:
            raise _Wrong(line, f"The exercise {name} stands in the lessons twice.")
        self.exercised.add(name)
        _only(values, {"task", "hint", "then"}, "An exercise")
        known_as = exercises.EXERCISES[name]
        return Exercise(
            id=name, how=known_as.how, task=self._inline(text, _one(values, "task", line)),
            hints=[self._inline(text, hint) for hint in values.get("hint", [])],
            truth=known_as.truth, start=known_as.start, focus=known_as.focus,
            solution=known_as.solution, then=self._inline(text, _one(values, "then", line)),
        )  # fmt: skip

    # ---- Beside the chapters ----

    def _glossary(self) -> list[Term]:
        text = self._open(self.folder / "glossary.md")
        terms: list[Term] = []
        if text is None:
            return terms
        loose: list[Token] = []
        title = ""

        def close() -> None:
            if title:
                terms.append(Term(slugified(title), title, self._rendered(text, loose)))
            loose.clear()

        for group in _groups(self.markdown.parse(text.text)):
            first = group[0]
            if first.type == "heading_open" and first.tag == "h2":
                close()
                title = self._plain(text, group[1], (first.map or [0])[0] + 1)
            elif first.type != "heading_open":
                loose += group
        close()
        return terms

    def _references(self) -> list[Reference]:
        text = self._open(self.folder / "references.md")
        found: list[Reference] = []
        if text is None:
            return found
        for line, row in _items(text.text):
            parts = [part.strip() for part in row.split("|")]
            if len(parts) != 6 or not all(parts[:4]):
                what = (
                    "A reference is: - id | authors | year | title | venue | what we take from it"
                )
                self._wrong(text.name, line, what)
                continue
            rendered = self._inline(text, _Value(parts[5], line))
            key, authors, year, title, venue = map(text.filled, parts[:5])
            found.append(Reference(key, authors, year, title, venue, rendered))
        return found

    def _made(self) -> dict[str, str]:
        text = self._open(self.folder / "made.md")
        made = {"title": "", "html": ""}
        if text is None:
            return made
        loose: list[Token] = []
        for group in _groups(self.markdown.parse(text.text)):
            if group[0].type == "heading_open" and group[0].tag == "h1":
                made["title"] = self._plain(text, group[1], (group[0].map or [0])[0] + 1)
            else:
                loose += group
        if not made["title"]:
            self._wrong(text.name, 1, "This page begins with its title: # Title")
        made["html"] = self._rendered(text, loose)
        return made

    # ---- What can be checked only when all is read ----

    def _same(self, chapters: list[Chapter]) -> None:
        for what in ("number", "slug"):
            values = [getattr(chapter, what) for chapter in chapters]
            for value in sorted({v for v in values if values.count(v) > 1}):
                self.problems.append(f"Two chapters have the {what} {value}.")

    def _check_links(
        self, chapters: list[Chapter], glossary: list[Term], references: list[Reference]
    ) -> None:
        steps = {chapter.slug: {step.id for step in chapter.steps} for chapter in chapters}
        parts = {
            "glossary.md": {term.id for term in glossary},
            "references.md": {reference.id for reference in references},
        }
        names = {f"{chapter.number:02}-{chapter.slug}.md": chapter.slug for chapter in chapters}
        for link in self.links:
            page, _, part = link.to.partition("#")
            if page in parts:
                if part and part not in parts[page]:
                    close = difflib.get_close_matches(part, parts[page], 1)
                    hint = f"; {close[0]} is meant, perhaps" if close else ""
                    self._wrong(link.name, link.line, f"{page} has no entry {part!r}{hint}.")
            elif page in names:
                if part and part not in steps[names[page]]:
                    self._wrong(link.name, link.line, f"{page} has no step {part!r}.")
            elif link.to != "made.md":
                self._wrong(link.name, link.line, f"This links to {link.to}, which is not there.")

    def _check_brushes(self) -> None:
        for name, line, brush, chapter in self.used:
            if brush not in self.known and brush not in self.brought.get(chapter, set()):
                what = f"{brush!r} is no name of the file that could light up"
                self._wrong(name, line, f"{what}; the second mean of adam is adam.v, and so on.")


# ---- Pieces of Markdown ----


def slugified(title: str) -> str:
    """A title as the fragment of an address."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "step"


def _groups(tokens: list[Token]) -> Iterator[list[Token]]:
    """The tokens of each top-level block together."""
    group: list[Token] = []
    level = 0
    for token in tokens:
        group.append(token)
        level += token.nesting
        if level == 0:
            yield group
            group = []


def _values(content: str, line: int) -> dict[str, list[_Value]]:
    """The `key: value` lines of a block; a value goes on where the next line is indented."""
    found: dict[str, list[_Value]] = {}
    key = ""
    for number, row in enumerate(content.splitlines(), line):
        if not row.strip():
            continue
        if row.startswith("  ") and key:
            last = found[key][-1]
            found[key][-1] = _Value(f"{last.text} {row.strip()}".strip(), last.line, last.true)
            continue
        match = _KEY.match(row)
        if not match:
            raise _Wrong(number, "A block has lines of the form key: value")
        key = match["key"]
        value = _Value((match["value"] or "").strip(), number, bool(match["star"]))
        if value.true and key != "option":
            raise _Wrong(number, "Only an option has a star.")
        if key in found and key not in _REPEATED:
            raise _Wrong(number, f"{key} stands here twice.")
        found.setdefault(key, []).append(value)
    return found


def _one(values: dict[str, list[_Value]], key: str, line: int) -> _Value:
    if key not in values or not values[key][0].text:
        raise _Wrong(line, f"This block needs a {key}.")
    return values[key][0]


def _only(values: dict[str, list[_Value]], keys: set[str], what: str) -> None:
    for key, given in values.items():
        if key not in keys:
            known = ", ".join(sorted(keys))
            raise _Wrong(given[0].line, f"{what} has no {key}; it has: {known}.")


def _argument(text: _Text, value: _Value, kind: str) -> Any:
    whole, computed = text.value(value.text)
    if whole:
        return computed
    plain = text.filled(value.text)
    if kind == "str":
        return plain
    try:
        return json.loads(plain)
    except ValueError:
        raise _Wrong(value.line, f"{plain!r} cannot be read as JSON.") from None


def _range(text: _Text, value: _Value) -> dict[str, Any]:
    parts = text.filled(value.text).split(maxsplit=3)
    try:
        low, high, step = (float(part) for part in parts[:3])
    except ValueError:
        raise _Wrong(value.line, "A range is: low high step unit") from None
    if not (low < high and 0 < step <= high - low):
        raise _Wrong(value.line, "The range's low must be below its high, and its step fit in.")
    return {"low": low, "high": high, "step": step, "unit": parts[3] if parts[3:] else ""}


def _axes(text: _Text, value: _Value) -> dict[str, Any]:
    parts = [part.strip() for part in text.filled(value.text).split("|")]
    try:
        x, y, low, high = parts
        ends = {"low": float(low), "high": float(high)}
    except ValueError:
        raise _Wrong(value.line, "Axes are: x | y | low | high") from None
    return {"x": x, "y": y, **ends}


def _new_id(wanted: str, steps: list[Step]) -> str:
    taken = {getattr(block, "id", "") for step in steps for block in step.blocks}
    number, name = 1, wanted
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name


def _items(text: str) -> Iterator[tuple[int, str]]:
    """The items of a list, each with its line; an item goes on where the next line is indented."""
    item, start = "", 0
    for number, row in enumerate(text.splitlines(), 1):
        if row.startswith("- "):
            if item:
                yield start, item
            item, start = row[2:].strip(), number
        elif row.startswith("  ") and item:
            item += " " + row.strip()
        elif item:
            yield start, item
            item = ""
    if item:
        yield start, item

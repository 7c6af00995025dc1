"""What the tests of the walk share: the chapters as their Markdown has them, Python's own answers,
and ways of getting about on a page."""

from __future__ import annotations

import functools
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from microgpt import source as file
from microgpt.lessons.__main__ import models as runs
from microgpt.lessons.instruments import Models, answer

from .conftest import BUILT, ROOT

expect: Any = pytest.importorskip("playwright.sync_api").expect


# ---- What the chapters say, read from their Markdown without the walk's own parser ----


@dataclass
class Told:
    """One step of a chapter as its Markdown has it."""

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)  # scope, line of the file
    prose: list[str] = field(default_factory=list)
    blocks: list[tuple[str, str, dict[str, list[str]]]] = field(default_factory=list)

    @property
    def lines(self) -> list[int]:
        return sorted({file.anchor(file.ORIGINAL, scope, row) for scope, row in self.rows})


@dataclass
class Chapter:
    slug: str
    title: str
    steps: list[Told]

    def blocks(self, kind: str) -> list[tuple[str, dict[str, list[str]]]]:
        return [(name, keys) for s in self.steps for k, name, keys in s.blocks if k == kind]


def told(path: Path) -> Chapter:
    title, key, steps, fence = "", "", [Told("")], None
    for row in path.read_text(encoding="utf-8").split("\n"):
        here = steps[-1]
        if fence is not None and row == "```":
            fence = None
        elif fence is None and row.startswith("```"):
            here.prose.append("")
            kind, _, name = row[3:].partition(" ")
            fence = (kind, name, {})
            if kind != "lines":
                here.blocks.append(fence)
        elif fence is not None and fence[0] == "lines":
            here.rows.append((fence[1], row))
        elif fence is not None:
            key, _, value = row.partition(": ") if not row.startswith("  ") else (key, "", row)
            fence[2].setdefault(key.rstrip(":"), []).append(value.strip())
        elif row.startswith("## "):
            steps.append(Told(row[3:]))
        elif row.startswith("# "):
            title = row[2:]
        elif row.startswith("minutes: ") or re.fullmatch(r"[|-]+", row):
            pass
        elif row.startswith(("- ", "|")) or not here.prose or not here.prose[-1]:
            here.prose.append(row)
        elif row.strip():
            here.prose[-1] += f" {row.strip()}"
        else:
            here.prose.append("")
    return Chapter(path.stem.partition("-")[2], title, steps[1:])


CHAPTERS = [
    told(path) for path in sorted((ROOT / "microgpt" / "lessons" / "chapters").glob("*.md"))
]
SLUGS = [chapter.slug for chapter in CHAPTERS]
GUESSED = [c for c in CHAPTERS if c.blocks("predict")]
every_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=SLUGS)


def words(markdown: str) -> list[str]:
    """The pieces of a row of Markdown that must stand on the page as they are."""
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", re.sub(r"^(- |\d+\. |\| )", "", markdown))
    code = text.split("`")
    code[::2] = [re.sub(r"\*\*?([^*\s](?:[^*]*[^*\s])?)\*\*?", r"\1", piece) for piece in code[::2]]
    pieces = re.split(r"\{\{.*?\}\}|\|", "".join(code))
    return [" ".join(piece.split()) for piece in pieces if len(piece.split()) > 1]


def flat(text: str) -> str:
    return " ".join(text.split())


@functools.cache
def data(slug: str) -> dict[str, Any]:
    """What the build left for a chapter's script."""
    page = (BUILT / "walk" / f"{slug}.html").read_text(encoding="utf-8")
    found = re.search(r'data-from="([^"]+)"', page)
    assert found
    return dict(json.loads((BUILT / "walk" / found[1]).read_text(encoding="utf-8")))


# ---- What Python says ----


@functools.cache
def models() -> Models:
    return runs(BUILT / "trained.safetensors")


def ask(name: str, **arguments: Any) -> dict[str, Any]:
    return answer(models(), name, arguments)


MINUS, DASH = "\u2212", "\u2013"  # a number below zero begins with either
NUMBER = re.compile(rf"[{MINUS}{DASH}-]?\d[\d,]*(?:\.\d+)?(?:e[{MINUS}{DASH}-]?\d+)?")


def shows(text: str, truth: float, slack: float = 6e-4) -> bool:
    """Whether a number on the page is the one that Python computed, as far as its digits say.

    Args:
        slack: the part of the number by which its recording may be off: it has four digits.
    """
    if math.isinf(truth):
        return "∞" in text and (truth < 0) == any(sign in text for sign in (MINUS, DASH))
    found = NUMBER.search(text)
    if not found:
        return False
    digits = re.sub(f"[{MINUS}{DASH}]", "-", found[0]).replace(",", "")
    mantissa, _, power = digits.partition("e")
    half = 0.5 * 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))
    return abs(float(digits) - truth) <= half * 1.001 + slack * abs(truth)


def percent(text: str, share: float, slack: float = 6e-4) -> bool:
    """The same of a share that is told in per cent."""
    found = NUMBER.search(text)
    if "<" in text and found:
        return 100 * share < float(found[0])
    return shows(text, 100 * share, slack)


def differ(shown: list[str], truth: list[float], alike: Any = shows) -> list[tuple[str, float]]:
    """What the page shows otherwise than Python has it."""
    return [(a, b) for a, b in zip(shown, truth, strict=True) if not alike(a, b)]


def texts(where: Any, selector: str) -> list[str]:
    return [flat(text) for text in where.locator(selector).all_text_contents()]


# ---- Getting about ----


def figure(page: Any, kind: str, number: int = 0) -> Any:
    """A figure by its instrument, alive and in view."""
    found = page.locator(f"figure .drawing:has(.{kind})").nth(number)
    found.scroll_into_view_if_needed()
    expect(found).not_to_have_attribute("data-island", "figure")
    return found


def awaken(page: Any) -> None:
    """The reader has been everywhere: all that can be alive is."""
    page.evaluate(
        """async () => {
          for (const one of document.querySelectorAll("main [data-island]")) {
            one.scrollIntoView();
            while (one.dataset.island) await new Promise(requestAnimationFrame);
          }
          scrollTo(0, 0);
        }"""
    )
    page.wait_for_timeout(150)


def write(page: Any, text: str) -> None:
    """The reader's own text, in the field at the top."""
    page.locator("#own-text").fill(text)


def standing(where: Any, expected: str = "live") -> None:
    found = where.locator("[data-standing]").first
    expect(found).to_have_attribute("data-standing", expected, timeout=20_000)


def exercise(page: Any, name: str) -> Any:
    """An exercise, alive and in view."""
    found = page.locator(f"#exercise-{name}")
    found.scroll_into_view_if_needed()
    alive = found.locator(".alive")
    expect(alive.locator(".task")).to_be_visible()
    return alive

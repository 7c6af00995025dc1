"""docs/LAB.md tells the truth: every command on it is run, and prints what stands under it."""

from __future__ import annotations

import doctest
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click import testing as click_testing

from microgpt import cli

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "LAB.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"[+\N{MINUS SIGN}-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
DRAWN = re.compile("[\N{BOX DRAWINGS LIGHT HORIZONTAL}\N{BOX DRAWINGS LIGHT VERTICAL}"
                   "\N{BLACK CIRCLE}\N{LEFTWARDS ARROW}\N{RIGHTWARDS ARROW}]+")  # fmt: skip


def words(text: str) -> list[str]:
    """The words of a line, drawings, hashes and times left out."""
    text = re.sub(r"\(\d+\.\d s\)$|^[0-9a-f]{16}\b", "", text)
    return DRAWN.sub(" ", text).split()


def alike(a: str, b: str) -> bool:
    """The same words, and numbers that another processor may have come to: within 0.05 of a loss
    (of one above 5, within 1), within 15 of points."""
    if NUMBER.sub("0", a) != NUMBER.sub("0", b):
        return False
    pairs = zip(NUMBER.findall(a), NUMBER.findall(b), strict=True)
    for one, two in pairs:
        x, y = (float(n.replace("\N{MINUS SIGN}", "-")) for n in (one, two))
        if abs(x - y) > (15 if abs(x) > 10 else 1 if abs(x) > 5 else 0.05):
            return False
    return True


def test_the_page_about_the_lab_tells_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    letters = itertools.product("abcdefghijkl", repeat=2)
    Path("twice.txt").write_text("".join(f"{a}{b}={a}{a}{b}{b}\n" for a, b in letters))
    blocks = re.findall(r"^```\n(\$ .*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
    ran = 0
    for part in re.split(r"^\$ ", "\n".join(blocks), flags=re.MULTILINE)[1:]:
        line, _, expected = part.partition("\n")
        program, *arguments = shlex.split(line)
        if program == "cat":
            Path(arguments[0]).write_text(expected)
            continue
        assert program == "microgpt"
        result = click_testing.CliRunner().invoke(cli.main, arguments)
        assert result.exit_code == 0, result.output
        wanted, cut, _ = expected.partition("\n…")
        printed = [words(row) for row in result.stdout.strip().splitlines()]
        told = [words(row) for row in wanted.strip().splitlines()]
        printed = printed[: len(told)] if cut else printed
        assert len(printed) == len(told), line
        for found, row in zip(printed, told):
            assert len(found) == len(row), (found, row)
            assert all(map(alike, found, row)), (found, row)
        ran += 1
    assert ran == 8


def test_a_number_may_be_a_little_off_and_a_word_may_not() -> None:
    assert alike("2.531", "2.528")
    assert not alike("2.531", "2.631")
    assert alike("\N{MINUS SIGN}100.0", "\N{MINUS SIGN}99.0")
    assert not alike("+0.866", "\N{MINUS SIGN}0.866")
    assert not alike("worse", "better")


def test_what_it_says_of_python_is_true() -> None:
    blocks = re.findall(r"^```python\n(>>> .*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    names: dict[str, Any] = {}
    test = doctest.DocTestParser().get_doctest(blocks[0] + "\n", names, "LAB.md", None, 0)
    failures: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=failures.append, clear_globs=False)
    assert not failures, "".join(failures)

"""The core in the page's own Python: the same checks as natively, and the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyodide_core
import pytest

from microgpt import site

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "web" / "scripts" / "build.py"


def close(ours: Any, theirs: Any) -> bool:
    """Equal, but for the last digits of a float: the interpreters sum in different orders."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return abs(ours - theirs) <= 1e-9 * max(1.0, abs(ours))
    return bool(ours == theirs)


@pytest.fixture(scope="module")
def in_pyodide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every check's outcome in the page's Python, from the archives in the built page."""
    archives = next((site.built_folder() / "assets").glob("python-*"))
    program = tmp_path_factory.mktemp("pyodide") / "checks.py"
    program.write_text(
        Path(pyodide_core.__file__).read_text(encoding="utf-8") + "\noutcomes()\n", encoding="utf-8"
    )
    node = subprocess.check_output([sys.executable, BUILD, "--which-node"], text=True).strip()
    done = subprocess.run(
        [node, ROOT / "web" / "scripts" / "python.mjs", archives, program],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


@pytest.mark.parametrize("name", list(pyodide_core.CHECKS))
def test_in_the_browsers_python(name: str, in_pyodide: dict[str, Any]) -> None:
    outcome = in_pyodide[name]
    assert "failed" not in outcome, outcome["failed"]
    result = json.loads(json.dumps(pyodide_core.CHECKS[name]()))
    assert close(result, outcome["result"]), (result, outcome["result"])


LINES = """
import marshal
import os
import types

def parts(code):
    yield code
    for x in code.co_consts:
        if isinstance(x, types.CodeType):
            yield from parts(x)

def lines(code):
    found = []
    for start, end, line in code.co_lines():
        if found and found[-1] == (start, line):
            found.pop()
        found.append((end, line))
    return found

count = wrong = 0
for folder, _, names in os.walk("/home/pyodide/microgpt"):
    for name in names:
        if name.endswith(".py"):
            path = os.path.join(folder, name)
            fresh = compile(open(path).read(), path, "exec", dont_inherit=True, optimize=0)
            packed = os.path.join(folder, "__pycache__", name[:-3] + ".cpython-314.pyc")
            found = marshal.loads(open(packed, "rb").read()[16:])
            for a, b in zip(parts(fresh), parts(found), strict=True):
                count += 1
                wrong += lines(a) != lines(b)
f"{count > 500} {wrong}"
"""


def test_what_is_compiled_for_the_page_knows_its_lines(tmp_path: Path) -> None:
    """The build leaves out the columns of every instruction, and must not move a line by that."""
    archives = next((site.built_folder() / "assets").glob("python-*"))
    program = tmp_path / "lines.py"
    program.write_text(LINES, encoding="utf-8")
    node = subprocess.check_output([sys.executable, BUILD, "--which-node"], text=True).strip()
    done = subprocess.run(
        [node, ROOT / "web" / "scripts" / "python.mjs", archives, program],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "True 0", done.stderr[-3000:]

"""The README tells the truth: its commands run, and its printed output is what they print."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_fits_one_screen_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 70
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), f"README links to {target}, which is not there"


def test_make_has_the_commands_that_it_names() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.fixture(scope="module")
def printed() -> list[str]:
    """The last line of training and the names that `python microgpt/gpt.py` prints."""
    return run([sys.executable, "microgpt/gpt.py"], ROOT).replace("\r", "\n").splitlines()[999:]


def test_the_file_prints_what_the_readme_shows(printed: list[str]) -> None:
    shown = next(b for b in blocks() if b.startswith("$ python microgpt/gpt.py")).splitlines()[1:]
    assert len(printed) == 21 and printed[0].startswith("step 1000 | loss ")
    assert all(re.fullmatch(r"[a-z]*", name) for name in printed[1:])
    named = re.search(r"CPython (3\.\d+)", README)
    assert named, "README must say which Python printed this"
    if (
        named[1] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    ):  # another one rounds sums differently
        until = shown.index("…")
        assert printed[:until] == shown[:until]


def test_the_commands_run_as_written(tmp_path: Path) -> None:
    block = next(b for b in blocks() if b.startswith("$ microgpt train"))
    for line in block.splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        assert words[0] == "microgpt"
        assert run([sys.executable, "-m", *words], tmp_path).strip()


def test_the_python_example_runs_as_written(tmp_path: Path) -> None:
    code = blocks("python")[0]
    out = run([sys.executable, "-c", code], tmp_path)
    assert out.startswith("[") and out.count("'") == 10
    assert (tmp_path / "names.safetensors").stat().st_size > 4192 * 8

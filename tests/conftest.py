"""What every test may ask for: the file, its path and text, its names; and where to import from."""

from __future__ import annotations

import importlib
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # so that `benchmarks`, which is not installed, can be imported

try:
    import hypothesis
except ImportError:  # the tests that need it are skipped there, each with its reason
    pass
else:
    # Times are not asserted: the machine is shared. The examples are the same in every run.
    hypothesis.settings.register_profile("microgpt", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("microgpt")


FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    # Some tests press Ctrl-C in a process of their own, and a background shell has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "slow: takes more than five seconds")


@pytest.fixture(autouse=True)
def no_width_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that run side by side are given a width; the command must be asked without one."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def gpt() -> Any:
    """The file, imported."""
    return importlib.import_module("microgpt.gpt")


@pytest.fixture(scope="session")
def path() -> Path:
    """Where the file is."""
    return ROOT / "microgpt" / "gpt.py"


@pytest.fixture(scope="session")
def names() -> list[str]:
    """The documents that the file trains on when it is run."""
    return (ROOT / "microgpt" / "data" / "names.txt").read_text(encoding="utf-8").split()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests of a process: the machine's own Chromium, or else Playwright's."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    own = next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=own, args=FLAGS)
        yield browser
        browser.close()

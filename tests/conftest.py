"""What every test may ask for: the file, its path and text, its names; and where to import from."""

from __future__ import annotations

import importlib
import sys
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


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than five seconds")


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

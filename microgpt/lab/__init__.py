"""The lab: variants of the file, compared over paired seeds, with an interval and a verdict.

>>> from microgpt.lab import compare
>>> report = compare(["no-attention", "gelu"], tasks=["names", "copy"])
>>> report.comparisons[0].verdict
"""

from __future__ import annotations

from typing import Any

__all__ = ["Sweep", "axis", "compare", "program"]

_WHERE = {"compare": "experiment", "program": "variants", "Sweep": "sweep", "axis": "sweep"}


def __getattr__(name: str) -> Any:
    """Each is fetched when it is first asked for: the page needs few of them."""
    if name not in _WHERE:
        raise AttributeError(f"module 'microgpt.lab' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"microgpt.lab.{_WHERE[name]}"), name)

"""Engines: what executes a source.

The *reference* engine is the file itself, run by Python. The *fast* engine runs the model once, on
tensors that only note what is done to them (`record`), finds larger operations in small ones
(`graph`), and lists steps for a compiled kernel (`program`), which trains hundreds of times as
fast. Both give the same numbers, but for rounding. An edit that the fast engine cannot follow is
refused with `LeavesContract`, and runs on the reference engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from microgpt.errors import LeavesContract

if TYPE_CHECKING:
    from microgpt.engines.fast import Fast

__all__ = ["Fast", "LeavesContract"]


def __getattr__(name: str) -> Any:
    if name == "Fast":  # only when it is asked for: a browser has no use for it
        from microgpt.engines.fast import Fast

        return Fast
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

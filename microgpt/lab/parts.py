"""What does each part do? Every removal on every set of data, with intervals.

Most parts do not matter on most data, so the table has many columns; and three parts earn their
place only in a larger model, so three of its columns are of one.
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microgpt import __version__, data
from microgpt.errors import MicrogptError
from microgpt.lab.bench import Progress, Spread
from microgpt.lab.experiment import Comparison, Experiment
from microgpt.lab.records import machine, sha256
from microgpt.lab.variants import collection, program
from microgpt.source import ORIGINAL

STORED = Path(__file__).with_name("parts.json")
SEEDS, FEWER = 8, 3  # paired runs; of a program that Python itself has to run
SLOW = ("shuffled-targets",)  # such programs
BRIEF = 1500  # steps, for such a program
DIGITS = 6


@dataclass(frozen=True)
class Setting:
    """A column: data, and a model.

    Attributes:
        data: the name of the data set.
        baseline: the recipe of the model that parts are taken from; the file where it is empty.
        about: what is special about it, in a few words.
    """

    data: str
    baseline: str = ""
    about: str = ""

    @property
    def brief(self) -> bool:
        """Whether it is the file itself, on data that are learnt in few steps: where a control is
        run that Python has to run."""
        return not self.baseline and data.DATASETS[self.data]["steps"] <= BRIEF


SETTINGS = (
    *map(Setting, data.DATASETS),
    Setting("sort", "n_head=1+n_embd=32", "one head of 32 channels"),
    Setting("copy", "n_layer=4", "four layers"),
    Setting("copy", "n_layer=4+std=0.3", "four layers, large first weights"),
)


class Parts:
    """All removals in all settings; what was run is kept, so that it can be stopped.

    Args:
        results: a file to keep the runs in, or None.
        spread: what performs the trials.
        settings: the columns.
    """

    def __init__(
        self,
        results: Path | None = None,
        spread: Spread | None = None,
        settings: tuple[Setting, ...] = SETTINGS,
    ) -> None:
        self.settings, self._results, self._spread = settings, results, spread
        self.found: list[tuple[Setting, Comparison]] = []

    def run(self) -> Iterator[tuple[Setting, Progress]]:
        """Run them setting by setting, what is fast before what is slow."""
        removals = [v.name for v in collection().values() if v.group == "removals"]
        fast = [name for name in removals if name not in SLOW]
        for asked, seeds in ((fast, SEEDS), (list(SLOW), FEWER)):
            for setting in self.settings:
                if asked == list(SLOW) and not setting.brief:
                    continue
                differ = [name for name in asked if _differs(setting, name)]
                experiment = Experiment(
                    differ, setting.baseline, [setting.data], seeds, results=self._results,
                    spread=self._spread,
                )  # fmt: skip
                for progress in experiment.run():
                    yield setting, progress
                self.found += [(setting, c) for c in experiment.report().comparisons]

    def plain(self, command: str) -> dict[str, Any]:
        """The table as plain data, with where it comes from."""
        return {
            "command": command, "microgpt": __version__, "python": platform.python_version(),
            "commit": _commit(), "machine": machine(), "file_sha256": sha256(ORIGINAL),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "settings": [vars(setting) for setting in self.settings],
            "cells": [_cell(setting, c) for setting, c in self.found],
        }  # fmt: skip


def _cell(setting: Setting, c: Comparison) -> dict[str, Any]:
    told = c.plain()
    runs = {
        name: [[_rounded(r[name]) for r in pair] for pair in c.runs]
        for name in ("exact", "held_out")
        if all(r[name] is not None for pair in c.runs for r in pair)
    }
    seen = [theirs["at_once"] for _, theirs in c.runs if theirs["at_once"] is not None]
    return {
        "setting": vars(setting), "variant": c.variant, "verdict": c.verdict, "seeds": c.seeds,
        "failed": c.failed, "link": c.link, "cost": told["cost"], "runs": runs,
        "differences": [
            {key: _rounded(x) if isinstance(x, float) else x for key, x in d.items()}
            for d in told["differences"]
        ],
        "at_once": _rounded(sum(seen) / len(seen)) if seen else None,
        "source_sha256": sha256(program_of(setting, c.variant)),
    }  # fmt: skip


def program_of(setting: Setting, variant: str) -> str:
    """The source of a cell: what is trained there."""
    (pairing,) = Experiment([variant], setting.baseline, [setting.data], 1).pairings
    return pairing.variant.source


def text(found: dict[str, Any]) -> str:
    """The table as JSON, a line for each cell."""
    cells = ",\n".join(json.dumps(cell, allow_nan=False) for cell in found["cells"])
    rest = json.dumps({**found, "cells": []}, allow_nan=False)
    return rest.replace('"cells": []', f'"cells": [\n{cells}\n]') + "\n"


def stored() -> dict[str, Any]:
    """The table that comes with the package.

    Raises:
        MicrogptError: there is none, or it cannot be read.
    """
    try:
        found: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise MicrogptError("The table of parts is missing: microgpt parts makes it.") from None
    return found


def _differs(setting: Setting, variant: str) -> bool:
    """Whether there is something to take out: of one head, one head is all."""
    base = program(setting.baseline).source
    return program(variant, base).source != base


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _commit() -> str | None:
    """Of the checkout that this package lies in, where it does."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=STORED.parent, capture_output=True, text=True, check=False, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None

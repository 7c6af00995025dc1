"""Sweeps: one program with many numbers, on a grid or at random.

What a sweep is for is a curve: the loss against a learning rate, or against how large a model is,
to which a power law is fitted (Kaplan et al. 2020, section 3), with what its exponent may be.
"""

from __future__ import annotations

import itertools
import math
import random
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microgpt.data import Corpus
from microgpt.errors import MicrogptError
from microgpt.lab import variants
from microgpt.lab.bench import Bench, Progress, Spread, Wanted, corpora, seeds_of
from microgpt.lab.experiment import numbered
from microgpt.lab.records import Record
from microgpt.lab.statistics import Interval, interval
from microgpt.lab.trials import Trial
from microgpt.lab.variants import Program
from microgpt.source import knobs

SEEDS = 3
RESAMPLED = 400  # times, for what a power law's exponent may be
FEWEST = 4  # sizes that a power law is fitted to
SMALLEST, LARGEST = 0.01, 4.0  # exponents that are looked for

_AXIS = re.compile(r"(?P<name>[A-Za-z_][\w.]*)=(?P<values>.+)")


@dataclass(frozen=True)
class Axis:
    """A number that is varied.

    Attributes:
        name: of the number, such as `lr`.
        values: that it takes; of a range, its two ends.
        range: whether values between the two are drawn, evenly in their logarithm.
    """

    name: str
    values: tuple[float, ...]
    range: bool = False

    def draw(self, rng: random.Random) -> float:
        """A value of it."""
        if not self.range:
            return rng.choice(self.values)
        low, high = self.values
        if isinstance(low, int) and isinstance(high, int):
            return round(math.exp(rng.uniform(math.log(low - 0.5), math.log(high + 0.5))))
        return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.4g}")


def axis(text: str) -> Axis:
    """An axis from its text: `lr=0.001,0.01` or, to draw from, `lr=0.001:0.1`.

    Raises:
        MicrogptError: it is none.
    """
    found = _AXIS.fullmatch(text.strip())
    if found is None:
        raise MicrogptError(
            f"{text!r} names no number and values: write lr=0.001,0.01 or lr=0.001:0.1."
        )
    name, values = found["name"], found["values"]
    parts = values.split(":") if ":" in values else values.split(",")
    numbers = [variants.value(f"{name}={part}", part.strip()) for part in parts]
    if ":" not in values:
        return Axis(name, tuple(dict.fromkeys(numbers)))
    if len(numbers) != 2 or not 0 < numbers[0] < numbers[1]:
        raise MicrogptError(f"{text!r} is no range: write the smaller end first, both above 0.")
    return Axis(name, tuple(numbers), range=True)


@dataclass(frozen=True)
class Point:
    """One setting of a sweep, and what was found there.

    Attributes:
        numbers: by name.
        runs: records of its seeds, failed ones too.
        held_out: the mean held-out loss and its interval; None where no run has one.
        exact: the same of exact answers; None where the data have none.
        parameters, operations: of the model.
        compute: multiply-adds of the training, three times those on the way there for each token.
    """

    numbers: dict[str, float]
    runs: list[Record]
    held_out: Interval | None
    exact: Interval | None
    parameters: int | None
    operations: int | None
    compute: float | None

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        told: dict[str, Any] = {
            **self.numbers, "parameters": self.parameters, "operations": self.operations,
            "compute": self.compute, "runs": sum(not r["failed"] for r in self.runs),
            "failed": [r["failed"] for r in self.runs if r["failed"]],
        }  # fmt: skip
        for name, found in (("held_out", self.held_out), ("exact", self.exact)):
            known = found is not None and math.isfinite(found.low)
            told |= {
                name: found.mean if found else None,
                f"{name}_low": found.low if found and known else None,
                f"{name}_high": found.high if found and known else None,
            }
        return told


@dataclass(frozen=True)
class PowerLaw:
    """A loss that falls as `floor + scale * size ** -exponent`.

    Attributes:
        floor, scale, exponent: as fitted.
        low, high: between which 95 in 100 exponents lie, when seeds are drawn anew; 0 and infinity
            where the sizes do not tell.
        sizes: how many sizes it was fitted to.
    """

    floor: float
    scale: float
    exponent: float
    low: float
    high: float
    sizes: int

    def __call__(self, size: float) -> float:
        return self.floor + self.scale * math.pow(size, -self.exponent)

    @property
    def range(self) -> str:
        """What the exponent may be, in words."""
        if not self.low and math.isinf(self.high):
            return "anything"
        if math.isinf(self.high):
            return f"{self.low:.2g} or more"
        return f"{self.low:.2g} to {self.high:.2g}" if self.low else f"{self.high:.2g} or less"


class Sweep:
    """One program with many numbers.

    Args:
        axes: what is varied; with `drawn`, ranges may be among it.
        baseline: the recipe of the program.
        task: its data.
        seeds: how many of each setting, or which.
        drawn: how many settings are drawn at random; all of the grid where it is None.
        seed: of these draws.
        numbers, results, spread, budget, engine: as of `Experiment`.

    Raises:
        MicrogptError: an axis is no number of the program, or cannot be so.
    """

    def __init__(
        self,
        axes: Sequence[Axis],
        baseline: str = "",
        task: str | Corpus = "names",
        seeds: int | Sequence[int] = SEEDS,
        *,
        drawn: int | None = None,
        seed: int = 0,
        numbers: dict[str, float] | None = None,
        results: Path | None = None,
        spread: Spread | None = None,
        budget: float | None = None,
        engine: str = "fast",
    ) -> None:
        if not axes:
            raise MicrogptError("There is nothing to vary: name a number, such as lr=0.003,0.01.")
        names = [one.name for one in axes]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise MicrogptError(f"{twice} is varied twice: give all its values at once.")
        if drawn is None and (ranged := next((one for one in axes if one.range), None)):
            raise MicrogptError(
                f"{ranged.name} is a range, from which values are drawn: say how many, with "
                "--random."
            )
        self.axes, (self.corpus,) = list(axes), corpora([task])
        self._seeds = seeds_of(seeds)
        base = numbered(baseline, self.corpus, numbers or {})
        known = {knob.name for knob in knobs(base.source)}
        if missing := next((name for name in names if name not in known), None):
            raise MicrogptError(
                f"This program has no number called {missing}; it has: {', '.join(sorted(known))}."
            )
        self.settings = list(_grid(axes) if drawn is None else _drawn(axes, drawn, seed))
        self._wanted = []
        for setting in self.settings:
            recipe = "+".join(f"{name}={value!r}" for name, value in setting.items())
            source = variants.program(recipe, base.source).source
            name = f"{baseline}+{recipe}" if baseline else recipe
            trial = Trial(source, self.corpus, tuple(self._seeds), None, engine)
            self._wanted.append(Wanted(trial, name))
        self.base: Program = base
        self._bench = Bench(results, spread, budget)
        self.left_out = self._bench.left_out

    def run(self) -> Iterator[Progress]:
        """Do what is to be done, and say after each run how far it is."""
        yield from self._bench.perform(self._wanted)

    @property
    def whole(self) -> bool:
        """Whether all of it is done."""
        return all(
            self._bench.find(one.trial, seed) for one in self._wanted for seed in self._seeds
        )

    def points(self) -> list[Point]:
        """What is known so far, setting by setting."""
        found = []
        for setting, one in zip(self.settings, self._wanted):
            runs = [r for seed in self._seeds if (r := self._bench.find(one.trial, seed))]
            if runs:
                found.append(_point(setting, runs))
        return found


def _grid(axes: Sequence[Axis]) -> Iterator[dict[str, float]]:
    for values in itertools.product(*[one.values for one in axes]):
        yield dict(zip([one.name for one in axes], values))


def _drawn(axes: Sequence[Axis], count: int, seed: int) -> Iterator[dict[str, float]]:
    rng = random.Random(seed)
    for _ in range(count):
        yield {one.name: one.draw(rng) for one in axes}


def _point(setting: dict[str, float], runs: list[Record]) -> Point:
    good = [r for r in runs if not r["failed"]]
    exact = [r["exact"] for r in good if r["exact"] is not None]
    sizes = next((r for r in runs if r["parameters"]), {})
    operations, tokens = sizes.get("operations"), [r["tokens"] for r in good if r["tokens"]]
    return Point(
        setting, runs, interval([r["held_out"] for r in good]) if good else None,
        interval(exact) if exact else None, sizes.get("parameters"), operations,
        3 * operations * statistics.fmean(tokens) if operations and tokens else None,
    )  # fmt: skip


# ---- Power laws ----


def power_law(points: Sequence[tuple[float, Sequence[float]]]) -> PowerLaw | None:
    """The power law that losses follow, and how sure its exponent is.

    Args:
        points: sizes, and the losses of each seed there.

    Returns:
        the law with the least sum of squares; its interval comes from drawing each size's seeds
        anew, with replacement, and fitting again (Efron 1979). None for fewer than four sizes, and
        where the loss does not fall.
    """
    points = [(size, losses) for size, losses in points if size > 0 and losses]
    if len({size for size, _ in points}) < FEWEST:
        return None
    best = _fitted([(size, statistics.fmean(losses)) for size, losses in points])
    if best is None:
        return None
    rng, exponents = random.Random(0), []
    for _ in range(RESAMPLED):
        again = [
            (size, statistics.fmean(rng.choices(list(losses), k=len(losses))))
            for size, losses in points
        ]
        if law := _fitted(again):
            exponents.append(law[2])
    exponents.sort()
    low, high = (exponents[round(q * (len(exponents) - 1))] for q in (0.025, 0.975))
    low, high = (0.0 if low < 1.1 * SMALLEST else low), (math.inf if high > 0.9 * LARGEST else high)
    return PowerLaw(*best, low, high, len({size for size, _ in points}))


def _fitted(points: Sequence[tuple[float, float]]) -> tuple[float, float, float] | None:
    """Floor, scale and exponent of the least sum of squares; None where the loss does not fall.

    For each exponent floor and scale are a straight line's; the exponent is found by narrowing.
    """
    losses, count = [loss for _, loss in points], len(points)
    middle = math.exp(sum(math.log(size) for size, _ in points) / count)
    depths = [-math.log(size / middle) for size, _ in points]
    mean_y = sum(losses) / count

    def line(exponent: float) -> tuple[float, float, float]:
        """Error, floor and scale, of sizes as parts of a middling one."""
        x = [math.exp(exponent * depth) for depth in depths]
        mean_x = sum(x) / count
        spread = sum((a - mean_x) ** 2 for a in x)
        slope = sum((a - mean_x) * b for a, b in zip(x, losses)) / spread
        floor = mean_y - slope * mean_x
        if floor < 0:  # a loss is never below nothing: the line through it
            floor, slope = 0.0, sum(a * b for a, b in zip(x, losses)) / sum(a * a for a in x)
        return sum((floor + slope * a - b) ** 2 for a, b in zip(x, losses)), floor, slope

    tried = [SMALLEST * (LARGEST / SMALLEST) ** (i / 40) for i in range(41)]
    errors = [line(exponent)[0] for exponent in tried]
    best = errors.index(min(errors))
    low, high = tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)]
    for _ in range(24):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if line(a)[0] < line(b)[0] else (a, high)
    exponent = (low + high) / 2
    _, floor, slope = line(exponent)
    if slope <= 0:
        return None
    return floor, slope * middle**exponent, exponent


def laws(points: Sequence[Point]) -> dict[str, PowerLaw]:
    """The power laws of a sweep: loss against parameters and against compute, the best of each
    size."""
    found = {}
    for name in ("parameters", "compute"):
        best: dict[float, list[float]] = {}
        for point in points:
            size = getattr(point, name)
            losses = [r["held_out"] for r in point.runs if not r["failed"]]
            if size and losses:
                now = best.get(size)
                if now is None or statistics.fmean(losses) < statistics.fmean(now):
                    best[size] = losses
        law = power_law(sorted(best.items()))
        if law is not None:
            found[name] = law
    return found

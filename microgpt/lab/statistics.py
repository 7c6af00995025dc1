"""What may be said of two programs after so many paired runs.

Each seed gives a pair: both programs, begun alike. What counts is the mean of the pairs'
differences and how far it may be off, by Student's t. Where one looks several times, and stops as
soon as it is decided, each look is given its share of the 5 % of being wrong (Bonferroni), so that
all looks together are wrong no more often than one.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from microgpt.errors import MicrogptError

ERROR = 0.05  # how often programs that do not differ may be called different
FEWEST = 3  # pairs, for a verdict

Verdict = Literal["better", "worse", "can't tell", "too few seeds"]


@dataclass(frozen=True)
class Interval:
    """A mean of paired differences, and between what it lies.

    Attributes:
        pairs: how many.
        mean, low, high: of the differences; low and high are infinite for a single pair.
        level: how often such an interval holds the true mean.
    """

    pairs: int
    mean: float
    low: float
    high: float
    level: float

    @property
    def decided(self) -> bool:
        """Whether the difference has a sign."""
        return self.pairs >= FEWEST and not self.low <= 0 <= self.high


def interval(differences: Sequence[float], looks: int = 1) -> Interval:
    """The confidence interval of the mean of some differences.

    Args:
        differences: one for each pair.
        looks: how often the experiment may be looked at before it ends.

    Raises:
        MicrogptError: there is no pair.
    """
    count, level = len(differences), 1 - ERROR / looks
    if not count:
        raise MicrogptError("There is no pair of runs to compare.")
    mean = statistics.fmean(differences)
    if count == 1:
        return Interval(1, mean, -math.inf, math.inf, level)
    spread = statistics.stdev(differences) / count**0.5
    half = quantile(count - 1, 1 - (1 - level) / 2) * spread
    return Interval(count, mean, mean - half, mean + half, level)


def verdict(found: Interval, *, more_is_better: bool) -> Verdict:
    """An interval in words: of the variant, beside its baseline."""
    if found.pairs < FEWEST:
        return "too few seeds"
    if not found.decided:
        return "can't tell"
    return "better" if (found.mean > 0) == more_is_better else "worse"


def looks(first: int, most: int) -> list[int]:
    """After how many pairs an experiment is looked at that goes on until it is decided: it doubles
    each time.

    Args:
        first: pairs of the first look.
        most: pairs of the last.
    """
    found = [first]
    while found[-1] < most:
        found.append(min(2 * found[-1], most))
    return found


@functools.cache
def quantile(freedom: int, below: float) -> float:
    """Of Student's t with so many degrees of freedom: the number that a share of all is below.

    Args:
        below: that share, from 0.5 to below 1. Found by halving; the share itself is an integral of
            cos^(freedom - 1), by Simpson's rule.
    """
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)

    def share(angle: float, parts: int = 200) -> float:
        cells = [math.cos(i * angle / parts) ** (freedom - 1) for i in range(parts + 1)]
        inner = 4 * sum(cells[1::2]) + 2 * sum(cells[2:-1:2])
        return 0.5 + scale * (cells[0] + inner + cells[-1]) * angle / parts / 3

    low, high = 0.0, math.pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) < below else (low, middle)
    return math.sqrt(freedom) * math.tan(low)

"""What may be said of paired runs: against scipy, and by simulation."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from microgpt.errors import MicrogptError
from microgpt.lab.statistics import ERROR, FEWEST, interval, looks, quantile, verdict

Draw = Callable[[random.Random], float]
EXPERIMENTS = 1000


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 15, 31, 63, 127, 400])
def test_quantiles_of_students_t_are_scipys(freedom: int) -> None:
    for below in (0.5, 0.75, 0.95, 0.975, 0.99, 0.995, 0.99375, 0.9995):
        assert quantile(freedom, below) == pytest.approx(stats.t.ppf(below, freedom), abs=1e-6)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40), st.integers(1, 6))
def test_an_interval_is_scipys(differences: list[float], planned: int) -> None:
    found = interval(differences, planned)
    spread = stats.sem(differences)
    assert found.mean == pytest.approx(math.fsum(differences) / len(differences), abs=1e-9)
    assert found.level == 1 - 0.05 / planned
    if spread > 1e-9:
        low, high = stats.t.interval(
            1 - 0.05 / planned, len(differences) - 1, loc=found.mean, scale=spread
        )
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


def test_one_pair_may_be_off_by_anything() -> None:
    found = interval([0.3])
    assert (found.low, found.mean, found.high) == (-math.inf, 0.3, math.inf)
    with pytest.raises(MicrogptError, match=r"^There is no pair of runs to compare\.$"):
        interval([])


def test_a_verdict_is_one_of_four() -> None:
    lower = [-0.1, -0.12, -0.11, -0.09]
    assert verdict(interval(lower), more_is_better=False) == "better"
    assert verdict(interval(lower), more_is_better=True) == "worse"
    assert verdict(interval([0.1, -0.12, 0.11, -0.09]), more_is_better=True) == "can't tell"
    assert verdict(interval(lower[: FEWEST - 1]), more_is_better=True) == "too few seeds"
    assert verdict(interval([0.0] * 8), more_is_better=True) == "can't tell"
    assert verdict(interval([-1.0] * 8), more_is_better=True) == "worse"  # never any luck


def test_looks_double_until_the_last() -> None:
    assert looks(8, 64) == [8, 16, 32, 64]
    assert looks(8, 40) == [8, 16, 32, 40]
    assert looks(8, 8) == [8]


# ---- By simulation ----


def normal(rng: random.Random) -> float:
    return rng.gauss(0, 1)


def skewed(rng: random.Random) -> float:
    """A difference of two waiting times: heavy in both tails."""
    return rng.expovariate(1) - rng.expovariate(1)


def counted(rng: random.Random) -> float:
    """A difference of two shares of a hundred answers, each right with nine chances in ten."""
    return sum((rng.random() < 0.9) - (rng.random() < 0.9) for _ in range(100)) / 100


def called_different(draw: Draw, first: int, most: int, shift: float = 0.0) -> int:
    """In how many of a thousand experiments a verdict is given, looking until it is, or to the
    end."""
    rng, planned, found = random.Random(0), looks(first, most), 0
    for _ in range(EXPERIMENTS):
        pairs = [draw(rng) + shift for _ in range(most)]
        found += any(interval(pairs[:n], len(planned)).decided for n in planned)
    return found


@pytest.mark.parametrize("draw", [normal, skewed, counted])
@pytest.mark.parametrize(("first", "most"), [(3, 3), (8, 8), (8, 64)])
def test_identical_programs_are_called_different_in_one_of_twenty_at_most(
    draw: Draw, first: int, most: int
) -> None:
    """With one look the chance is one in twenty, so that chance decides on which side of 50 a
    thousand experiments fall; three of its standard deviations are 21. Several looks keep below."""
    found = called_different(draw, first, most)
    assert found <= ERROR * EXPERIMENTS + (21 if first == most else 0)
    assert draw is not normal or first < most or found >= ERROR * EXPERIMENTS - 21


@pytest.mark.parametrize("shift", [-1.5, 1.5])
def test_a_difference_that_is_there_is_found(shift: float) -> None:
    """By scipy, eight pairs find a difference of one and a half deviations with this chance."""
    away = shift * 8**0.5
    edge = stats.t.ppf(0.975, 7)
    power = stats.nct.sf(edge, 7, away) + stats.nct.cdf(-edge, 7, away)
    found = called_different(normal, 8, 8, shift) / EXPERIMENTS
    assert found == pytest.approx(power, abs=3 * math.sqrt(power * (1 - power) / EXPERIMENTS))
    assert called_different(normal, 8, 64, shift) > 0.99 * EXPERIMENTS


def test_a_verdict_hardly_ever_has_the_wrong_sign() -> None:
    rng, wrong = random.Random(0), 0
    for _ in range(EXPERIMENTS):
        found = interval([rng.gauss(0.5, 1) for _ in range(8)])
        wrong += found.decided and found.mean < 0
    assert wrong <= 2

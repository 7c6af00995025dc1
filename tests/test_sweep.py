"""Sweeps and power laws: against scipy, and by killing them."""

from __future__ import annotations

import json
import math
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from test_cli import command, refused, start, wait_until

from microgpt.data import Corpus, load
from microgpt.errors import MicrogptError
from microgpt.lab.sweep import Axis, Point, Sweep, axis, laws, power_law
from microgpt.lab.trials import Trial, perform
from microgpt.lab.variants import program
from microgpt.run import Run

FEW = Corpus("few", "a few names", load("names").docs[:300])
TINY = ("--steps", "20", "--jobs", "1")
unix = pytest.mark.skipif(os.name != "posix", reason="signals of Unix")


def finished(sweep: Sweep) -> Sweep:
    for _ in sweep.run():
        pass
    return sweep


# ---- Power laws ----

SIZES = [500, 1000, 2000, 4000, 8000, 16000, 32000]


@given(st.floats(0, 3), st.floats(0.1, 2), st.floats(1, 50))
@settings(max_examples=20, deadline=None)
def test_a_law_without_noise_is_found(floor: float, exponent: float, drop: float) -> None:
    scale = drop * SIZES[0] ** exponent
    found = power_law([(n, [floor + scale * n**-exponent] * 3) for n in SIZES])
    assert found is not None
    assert found.exponent == pytest.approx(exponent, rel=1e-3)
    assert found.floor == pytest.approx(floor, abs=1e-2)
    assert found.low == pytest.approx(found.high)
    assert found(3000) == pytest.approx(floor + scale * 3000**-exponent, rel=1e-4)


def noisy(rng: random.Random, seeds: int = 5) -> list[tuple[float, list[float]]]:
    return [
        (n, [2 + 300 * n**-0.8 + rng.gauss(0, 0.01) for _ in range(seeds)]) for n in SIZES
    ]  # fmt: skip


def test_a_law_with_noise_is_scipys() -> None:
    points = noisy(random.Random(1))
    found = power_law(points)
    means = [math.fsum(losses) / len(losses) for _, losses in points]
    best, _ = optimize.curve_fit(
        lambda n, floor, scale, exponent: floor + scale * n**-exponent, SIZES, means,
        p0=(1, 100, 0.5), bounds=([0, 0, 0], [10, 1e5, 4]),
    )  # fmt: skip
    assert found is not None
    assert (found.floor, found.exponent) == pytest.approx((best[0], best[2]), rel=1e-3)
    assert found.scale == pytest.approx(best[1], rel=1e-2)


def test_the_interval_holds_the_exponent_about_as_often_as_it_says() -> None:
    """Seeds drawn anew know a little less of the noise than there is, with five seeds a tenth."""
    held = 0
    for n in range(30):
        found = power_law(noisy(random.Random(n)))
        assert found is not None
        held += found.low <= 0.8 <= found.high
    assert held >= 23


def test_what_does_not_fall_has_no_law() -> None:
    assert power_law([(n, [1.0]) for n in SIZES[:3]]) is None
    assert power_law([(n, [0.1 * i]) for i, n in enumerate(SIZES)]) is None
    found = power_law([(n, [5.0 + random.Random(n).gauss(0, 1)] * 1) for n in SIZES])
    assert found is None or found.range


# ---- What is varied ----


def test_axes_are_read() -> None:
    assert axis("lr=0.001,0.01,0.001") == Axis("lr", (0.001, 0.01))
    assert axis("n_embd=8,16") == Axis("n_embd", (8, 16))
    assert axis("lr=1e-4:0.1") == Axis("lr", (1e-4, 0.1), range=True)
    drawn = [axis("n_layer=1:4").draw(random.Random(n)) for n in range(300)]
    assert {1, 2, 3, 4} == set(drawn)
    rates = sorted(axis("lr=1e-4:0.1").draw(random.Random(n)) for n in range(500))
    assert rates[250] == pytest.approx(10**-2.5, rel=0.3)  # even in the logarithm
    assert 1e-4 <= rates[0] <= rates[-1] <= 0.1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "There is nothing to vary: name a number, such as lr=0.003,0.01."),
        (("lr",), "'lr' names no number and values: write lr=0.001,0.01 or lr=0.001:0.1."),
        (("lr=a,b",), "lr=a does not set a number: 'a' is none."),
        (("lr=1:0.1",), "'lr=1:0.1' is no range: write the smaller end first, both above 0."),
        (("lr=0.1:1",), "lr is a range, from which values are drawn: say how many, with --random."),
        (("lr=1,2", "lr=3"), "lr is varied twice: give all its values at once."),
        (("width=1,2",), "This program has no number called width; it has: batch, beta1, "),
        (("n_embd=8.5",), "n_embd must be a whole number, not 8.5."),
        (("lr=0.1", "--seeds", "0"), "At least 1 seed is needed, and none is given."),
        (("lr=0.1", "--picture", "a.gif"), "A picture's name ends in .svg, .png or .pdf"),
        (("lr=0.1", "--data", "nosuch"), "'nosuch' is neither a data set nor a file"),
        (("lr=0.1", "--baseline", "nosuch"), "There is no variant 'nosuch': "),
    ],
)
def test_what_cannot_be_swept_is_said(arguments: tuple[str, ...], sentence: str) -> None:
    assert refused("sweep", *arguments, code=1).startswith(f"microgpt: {sentence}")


# ---- Sweeps ----


def test_a_point_is_the_mean_of_its_runs() -> None:
    axes = [axis("lr=0.003,0.01"), axis("n_embd=4,8")]
    sweep = finished(Sweep(axes, "n_head=2", FEW, 3, numbers={"steps": 30}))
    assert sweep.whole
    points = sweep.points()
    assert [point.numbers for point in points] == [
        {"lr": lr, "n_embd": c} for lr in (0.003, 0.01) for c in (4, 8)
    ]
    for point in points:
        recipe = "+".join(f"{name}={value}" for name, value in point.numbers.items())
        source = program(recipe, program("steps=30+n_head=2").source).source
        found = perform(Trial(source, FEW, (42, 43, 44)))
        losses = [result.held_out for result in found]
        assert point.held_out is not None
        assert point.held_out.mean == pytest.approx(sum(x for x in losses if x) / 3)
        assert point.parameters == found[0].parameters
        tokens, operations = found[0].tokens, found[0].operations
        assert tokens is not None
        assert operations is not None
        assert point.compute == pytest.approx(3 * operations * tokens, rel=0.2)  # by the mean seed
    assert json.loads(json.dumps([p.plain() for p in points], allow_nan=False))


def test_tokens_are_those_that_training_reads() -> None:
    (found,) = perform(Trial(program("steps=400+batch=2+n_embd=4").source, FEW, (1,)))
    docs = Run(program("n_embd=4").source, FEW, seed=1).train_docs
    read = [docs[i % len(docs)] for i in range(800)]
    assert found.tokens == sum(min(len(doc) + 1, 16) for doc in read)


def test_draws_are_the_same_for_a_seed() -> None:
    axes = [axis("lr=0.001:0.1"), axis("n_layer=1,2")]
    one, two, other = (
        Sweep(axes, drawn=6, seed=seed, task=FEW).settings for seed in (1, 1, 2)
    )  # fmt: skip
    assert one == two != other
    assert len(one) == 6


def test_a_setting_that_fails_is_told_and_the_others_are_kept(tmp_path: Path) -> None:
    place = tmp_path / "sweep.svg"
    result = command(
        "sweep", "lr=0.01,1e30", "--seeds", "2", "--picture", place, *TINY
    )  # fmt: skip
    rows = [" ".join(row.split()) for row in result.stdout.splitlines()]
    assert any(row.startswith("1e+30 no run") and row.endswith("0 of 2") for row in rows)
    assert any(row.startswith("0.01 ") and row.endswith("4,192 2") for row in rows)
    assert any(row.startswith("A run failed: The loss became nan at step ") for row in rows)
    pytest.importorskip("matplotlib")
    assert b"held-out loss" in place.read_bytes()


def test_impossible_sizes_are_failed_runs() -> None:
    sweep = finished(Sweep([axis("n_head=2,3")], "", FEW, 2, numbers={"steps": 5}))
    good, bad = sweep.points()
    assert good.held_out is not None
    assert bad.held_out is None
    assert "n_head must divide n_embd" in bad.runs[0]["failed"]


def test_json_has_runs_points_and_laws() -> None:
    sizes = "n_embd=4,8,12,16,24"
    printed = command("sweep", sizes, "lr=0.003,0.01", "--steps", "300", "--json").stdout
    told = [json.loads(line) for line in printed.splitlines()]
    kinds = [one["event"] for one in told]
    assert kinds[:30] == ["run"] * 30
    assert kinds[30:40] == ["point"] * 10
    assert set(kinds[40:]) <= {"power law"}
    for one in told[30:40]:
        assert one["held_out_low"] <= one["held_out"] <= one["held_out_high"]


@unix
def test_a_killed_sweep_goes_on_without_repeating(tmp_path: Path) -> None:
    place = tmp_path / "sweep.jsonl"
    arguments = [
        "sweep", "std=0.02,0.05,0.08,0.1", "--seeds", "2", "--engine", "reference", "--out", place,
        *TINY,
    ]  # fmt: skip
    process = start(*arguments)
    wait_until(lambda: place.exists() and place.read_text().count("\n") >= 2)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    before = place.read_text().splitlines()
    assert 2 <= len(before) < 8
    done = command(*arguments)
    after = place.read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) == 8
    assert len({json.loads(line)["id"] for line in after}) == 8
    assert done.stdout.count("4,192") == 4
    again = command(*arguments)
    assert again.stdout == done.stdout
    assert place.read_text().splitlines() == after


@unix
def test_ctrl_c_shows_what_there_is(tmp_path: Path) -> None:
    place = tmp_path / "sweep.jsonl"
    process = start(
        "sweep", "std=0.02,0.05,0.08,0.1", "--seeds", "1", "--engine", "reference", "--out", place,
        *TINY,
    )  # fmt: skip
    try:
        wait_until(lambda: place.exists() and place.read_text().count("\n") >= 1)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "0.02" in printed
    assert "the same command goes on from there" in said
    assert "Traceback" not in said


def test_a_budget_is_kept(tmp_path: Path) -> None:
    result = command("sweep", "lr=0.003,0.01,0.03", "--budget", "0.0001", "--seeds", "2", *TINY)
    assert "The budget is used up, and not all was run" in result.stderr


def test_laws_are_of_the_best_of_each_size() -> None:
    points = []
    for n in SIZES:
        for worse in (0.0, 0.5):
            loss = 2 + 300 * n**-0.8 + worse
            runs: list[dict[str, Any]] = [{"failed": None, "held_out": loss} for _ in range(2)]
            points.append(Point({}, runs, None, None, n, None, 7.0 * n))
    found = laws(points)
    assert set(found) == {"parameters", "compute"}
    for law in found.values():
        assert law.exponent == pytest.approx(0.8, rel=1e-3)


def test_a_bad_file_is_refused_before_any_run(tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    place.write_text("not results\n")
    with pytest.raises(MicrogptError, match="holds something other than results"):
        Sweep([axis("lr=0.1")], "", FEW, 1, results=place)

"""Trials, records and experiments: against the file run by hand, and against themselves."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from microgpt import data
from microgpt.data import Corpus
from microgpt.errors import MicrogptError
from microgpt.lab import experiment, trials, variants
from microgpt.lab.experiment import Experiment, compare
from microgpt.lab.records import Ledger, again, identity, record, trial_of
from microgpt.lab.trials import Result, Trial, cost, perform, take_first_weights, written
from microgpt.run import Run
from microgpt.source import ORIGINAL, decode_link, set_knob

NAMES = data.load("names")
FEW = Corpus("few", "a few names", NAMES.docs[:300])
COPY = Corpus("copies", "a few copies", data.load("copy").docs[:300], ">")
SMALL = "n_embd=8+n_head=2+steps=40"


def small(recipe: str = "", steps: int = 40) -> str:
    """A small program, quickly trained."""
    base = variants.program(f"n_embd=8+n_head=2+steps={steps}").source
    return variants.program(recipe, base).source


def pair(recipe: str, corpus: Corpus = FEW, seeds: tuple[int, ...] = (1, 2)) -> Trial:
    return Trial(small(recipe), corpus, seeds, small())


# ---- Trials ----


def test_a_trial_is_the_run_that_the_file_makes() -> None:
    found = perform(Trial(small(), FEW, (5, 6, 7), engine="reference"))
    for result in found:
        run = Run(small(), FEW, seed=result.seed)
        losses = [run.advance() for _ in range(40)]
        assert result.failed is None
        assert result.steps == 40
        assert result.held_out == run.held_out_loss()
        assert result.train == pytest.approx(math.fsum(losses) / 40)
        assert result.curve is not None
        assert math.fsum(result.curve) / len(result.curve) == pytest.approx(result.train, rel=0.02)
    assert len({result.losses for result in found}) == 3


def test_the_kernel_gives_the_same_but_for_rounding() -> None:
    seeds = (3, 4, 5)
    slow = perform(Trial(small(), COPY, seeds, engine="reference"))
    fast = perform(Trial(small(), COPY, seeds))
    for a, b in zip(slow, fast, strict=True):
        assert (a.engine, b.engine) == ("reference", "fast")
        assert b.held_out == pytest.approx(a.held_out, rel=1e-3)
        assert b.curve == pytest.approx(a.curve, rel=1e-3)
        assert (a.parameters, a.operations) == (b.parameters, b.operations)


def test_what_is_trained_beside_a_run_hardly_matters() -> None:
    """Documents of other lengths beside its own change the order of sums, and nothing else."""
    together = perform(Trial(small(), FEW, tuple(range(11))))
    for seed in (0, 7, 10):
        (alone,) = perform(Trial(small(), FEW, (seed,)))
        assert alone.held_out == pytest.approx(together[seed].held_out, rel=1e-4)
        assert alone.beside == [seed]
        assert seed in together[seed].beside
        (again_,) = [
            r for r in perform(Trial(small(), FEW, tuple(together[seed].beside))) if r.seed == seed
        ]
        assert (again_.losses, again_.held_out) == (together[seed].losses, together[seed].held_out)


def test_exact_answers_are_those_that_a_run_gives() -> None:
    source = small(steps=400)
    (found,) = perform(Trial(source, COPY, (3,)))
    run = Run(source, COPY, seed=3, engine="fast")
    run.advance_by(400)
    assert found.exact == pytest.approx(run.exact_answers(), abs=0.05)


def test_weights_of_the_same_name_and_shape_begin_alike() -> None:
    ours, theirs = Run(small("swiglu"), FEW, seed=9), Run(small(), FEW, seed=9)
    before = ours.named_weights()["blocks.0.heads.0.wq"].data
    assert before != theirs.named_weights()["blocks.0.heads.0.wq"].data  # init draws in turn
    take_first_weights(ours, theirs)
    for name, w in theirs.named_weights().items():
        mine = ours.named_weights()[name]
        if mine.shape == w.shape:
            for a, b in zip(mine.data, w.data):
                assert a == pytest.approx(b, rel=1e-12)
    assert ours.train_docs == theirs.train_docs


def test_another_spread_is_the_same_luck() -> None:
    ours, theirs = Run(small("std=0.02"), FEW, seed=9), Run(small(), FEW, seed=9)
    for w in ours._weights:  # as if it had drawn in another order
        w.data = [row[::-1] for row in w.data]
    take_first_weights(ours, theirs)
    for a, b in zip(ours._weights, theirs._weights):
        for mine, other in zip(a.data, b.data):
            assert mine == pytest.approx([x / 4 for x in other], rel=1e-12)


def test_weights_that_are_not_drawn_keep_their_own() -> None:
    ours, theirs = Run(small("norm-gain"), FEW, seed=9), Run(small("biases"), FEW, seed=9)
    take_first_weights(ours, theirs)
    gains = [w.data for name, w in ours.named_weights().items() if name.startswith("gains")]
    assert gains == [[[1.0] * 8]] * 3


def test_cost_counts_what_is_used() -> None:
    v, c, h, d, t = 27, 16, 4, 4, 16
    corpus = Corpus("abc", "abc", ("".join(map(chr, range(97, 123))), "ab"))
    used, operations = cost(Run(ORIGINAL, corpus))
    assert used == v * c + t * c + 4 * h * c * d + 8 * c * c + c * v
    assert operations == h * (4 * c * d + 2 * t * d) + 8 * c * c + c * v
    used, operations = cost(Run(variants.program("no-attention").source, corpus))
    assert used == v * c + t * c + 8 * c * c + c * v
    assert operations == 8 * c * c + c * v
    used, _ = cost(Run(variants.program("no-positions").source, corpus))
    assert used == v * c + 4 * h * c * d + 8 * c * c + c * v
    run = Run(re.sub(r"\bmatmul\b", "product", ORIGINAL), corpus)
    assert cost(run)[1] is None
    assert all(w.grad == [] for w in run._weights)


@pytest.mark.parametrize(("recipe", "sees"), [("", False), ("no-mask", True), ("rope", False)])
def test_a_program_that_sees_the_future_is_found_out(recipe: str, sees: bool) -> None:
    run = Run(small(recipe), FEW)
    assert trials.causal(run) is not sees
    (found,) = perform(Trial(small(recipe), FEW, (1,)))
    assert (found.at_once is not None) is sees
    run = Run(small(recipe), FEW, seed=1)
    while not run.done:
        run.advance()
    if sees:
        assert found.held_out == pytest.approx(
            written(run, run._held_out(trials.READ_SLOWLY)), rel=1e-3
        )
        assert found.at_once == pytest.approx(run.held_out_loss(), rel=1e-3)
        assert found.held_out > found.at_once
    else:
        assert written(run, run._held_out(5)) == pytest.approx(run.held_out_loss(5), rel=1e-12)


def test_what_the_kernel_cannot_follow_is_run_by_python() -> None:
    found = perform(pair("dropout"))
    assert [result.engine for result in found] == ["reference"] * 2
    assert found[0].note is not None
    assert found[0].failed is None
    assert found[0].held_out != perform(pair(""))[0].held_out


def test_a_seed_that_fails_is_told_and_the_others_are_kept() -> None:
    line = '    assert rng.random() < 0.6, "an unlucky seed"'
    unlucky = small().replace("    blocks = [dict(", f"{line}\n    blocks = [dict(")
    found = perform(Trial(unlucky, FEW, tuple(range(8))))
    bad = [result for result in found if result.failed]
    assert 0 < len(bad) < 8
    for result in bad:
        assert result.failed == (
            "The program's own check failed: an unlucky seed (line "
            f"{unlucky.splitlines().index(line) + 1})."
        )
    assert all(result.held_out for result in found if not result.failed)


def test_a_loss_that_is_no_number_ends_one_run_of_several() -> None:
    for engine, rate in (("fast", 1e30), ("reference", 1e300)):
        found = perform(Trial(set_knob(small(), "lr", rate), FEW, (1, 2), engine=engine))
        for result in found:
            assert result.failed is not None
            assert result.held_out is None
            assert f"a learning rate lower than {rate:g}" in result.failed
            assert result.steps < 10


def test_a_model_that_cannot_read_fails_once_for_all() -> None:
    broken = small().replace("return hidden @ proj", "return hidden @ fc")
    found = perform(Trial(broken, FEW, (1, 2)))
    assert len({result.failed for result in found}) == 1
    assert found[0].failed is not None
    assert found[0].failed.startswith("These shapes do not fit together")


def test_answers_longer_than_the_context_are_wrong() -> None:
    long = Corpus("long", "long", tuple(f"{doc}>{doc * 3}" for doc in NAMES.docs[:60]), ">")
    (found,) = perform(Trial(small(), long, (1,)))
    assert found.exact == 0
    assert found.failed is None


# ---- Records ----


def test_a_record_makes_the_same_run_again(tmp_path: Path) -> None:
    report = compare(["gelu", "dropout"], SMALL, [FEW], 2, results=tmp_path / "r.jsonl")
    for kept in Ledger.open(tmp_path / "r.jsonl"):
        result = again(kept, FEW)
        assert result.losses == kept["losses"]
        assert result.held_out == kept["held_out"]
        assert kept in report.records
        assert kept["seed"] in trial_of(kept, FEW).seeds
        assert identity(trial_of(kept, FEW), kept["seed"]) == kept["id"]


def test_a_record_of_own_data_needs_them() -> None:
    trial = pair("gelu")
    kept = record(trial, perform(trial)[0], "gelu", "gpt.py")
    with pytest.raises(MicrogptError, match=r"^This record is of data called 'few': they are not"):
        again(kept)
    assert again(kept, FEW).losses == kept["losses"]
    with pytest.raises(MicrogptError, match=r"^The data copies are not those that this record is"):
        again(kept, COPY)
    with pytest.raises(MicrogptError, match=r"^This record was made with another version of gpt"):
        again(kept | {"file_sha256": "0" * 64}, FEW)


def ledger_of(path: Path, count: int) -> list[dict[str, Any]]:
    trial = pair("", seeds=tuple(range(count)))
    kept = [record(trial, Result(seed, held_out=1.0 + seed), "a", None) for seed in trial.seeds]
    ledger = Ledger.open(path)
    for one in kept:
        ledger.add(one)
    return kept


def test_a_file_that_was_cut_off_keeps_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    kept = ledger_of(path, 3)
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (last + 1, len(whole) - 20, len(whole) - 2):
        path.write_bytes(whole[:cut])
        ledger = Ledger.open(path)
        assert list(ledger) == kept[:2]
        assert ledger.left_out == [f"Line 3 of {path} was cut off, so that run is made again."]
        assert path.read_bytes() == whole[:last]
    path.write_bytes(whole[:-1])  # only the line's end is missing
    assert list(Ledger.open(path)) == kept
    assert path.read_bytes() == whole


def test_a_line_that_is_no_result_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    kept = ledger_of(path, 2)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b'{"id": 3}\nnonsense\n' + second)
    ledger = Ledger.open(path)
    assert list(ledger) == kept
    assert ledger.left_out == [f"Line {n} of {path} is no result and is left out." for n in (2, 3)]


def test_a_file_of_another_kind_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    for content in (b"anna\nbea\n", b"\x00\x01\x02", b"anna"):
        path.write_bytes(content)
        with pytest.raises(MicrogptError, match="holds something other than results"):
            Ledger.open(path)
        assert path.read_bytes() == content
    with pytest.raises(MicrogptError, match=r"cannot be written: is a directory\.$"):
        Ledger.open(tmp_path)
    with pytest.raises(MicrogptError, match=r"cannot be written: no such file or directory\.$"):
        Ledger.open(tmp_path / "missing" / "r.jsonl")


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.jsonl"
    kept = ledger_of(path, 2)
    before = path.read_bytes()
    ledger = Ledger.open(path)

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MicrogptError, match=r"cannot be written: the disk is full\.$"):
        ledger.add(kept[0] | {"id": "another"})
    assert path.read_bytes() == before


# ---- Experiments ----


def test_a_comparison_is_that_of_its_runs() -> None:
    report = compare(["no-attention", "lr=0.02"], SMALL, ["names", "copy"], 3)
    assert report.whole
    assert [(c.data, c.variant) for c in report.comparisons] == [
        ("names", "no-attention"), ("names", "lr=0.02"),
        ("copy", "no-attention"), ("copy", "lr=0.02"),
    ]  # fmt: skip
    for c in report.comparisons:
        corpus = data.load(c.data)
        assert c.seeds == [42, 43, 44]
        source, base = decode_link(c.link)["source"], variants.program(SMALL).source
        base = set_knob(base, "batch", data.DATASETS[c.data]["batch"])  # as the data say
        ours = perform(Trial(base, corpus, (42, 43, 44)))
        theirs = perform(Trial(source, corpus, (42, 43, 44), base))
        for d in c.differences:
            pairs = [
                (getattr(a, d.metric.name), getattr(b, d.metric.name)) for a, b in zip(ours, theirs)
            ]
            assert d.baseline == pytest.approx(sum(a for a, _ in pairs) / 3)
            assert d.interval.mean == pytest.approx(sum(b - a for a, b in pairs) / 3)
        assert [d.metric.name for d in c.differences] == (
            ["exact", "held_out"] if c.data == "copy" else ["held_out"]
        )
        assert c.verdict == c.differences[0].verdict
    told = json.loads(json.dumps(report.plain(), allow_nan=False))
    assert told["comparisons"][0]["cost"]["parameters"][0] > 0


def test_a_recipe_says_more_than_the_data_do() -> None:
    found = Experiment(["lr=0.02", "steps=7"], tasks=["copy"], numbers={"batch": 2})
    base, first, second = (
        {k.name: k.value for k in variants.file.knobs(text)}
        for text in (
            found.pairings[0].baseline.source, *(p.variant.source for p in found.pairings)
        )
    )  # fmt: skip
    assert (base["steps"], base["batch"], base["lr"]) == (1000, 2, 0.01)
    assert (first["steps"], first["batch"], first["lr"]) == (1000, 2, 0.02)
    assert (second["steps"], second["batch"]) == (7, 2)


def test_a_program_of_ones_own_is_compared_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(small("gelu"))
    report = compare(str(path), SMALL, "names", 3)
    assert report.comparisons[0].variant == "mine"
    other = compare("gelu", SMALL, "names", 3)
    a, b = (r.comparisons[0].differences[0].interval for r in (report, other))
    assert a == b


def test_seeds_are_added_until_it_is_decided() -> None:
    report = compare(
        ["no-attention", "squared-relu"], "steps=200", "copy", 3, until_sure=True, most_seeds=12,
    )  # fmt: skip
    sure, open_ = report.comparisons
    assert sure.verdict == "worse"
    assert len(sure.seeds) == 3
    assert len(open_.seeds) == 12 or open_.verdict != "can't tell"
    assert {d.interval.level for c in report.comparisons for d in c.differences} == {1 - 0.05 / 3}


def test_a_budget_ends_it_between_two_runs(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    cut = compare(["gelu", "silu"], SMALL, "names", 3, budget=1e-9, results=path)
    assert not cut.whole
    assert len(cut.records) == 3  # one trial
    assert cut.comparisons[0].differences == []
    whole = compare(["gelu", "silu"], SMALL, "names", 3, results=path)
    assert whole.whole
    assert len(whole.records) == 9
    assert len(path.read_text().splitlines()) == 9


def test_what_was_run_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.jsonl"
    first = Experiment(["gelu"], SMALL, ["names"], 4, results=path)
    steps = first.run()
    next(steps)
    steps.close()  # stopped after the first
    assert len(path.read_text().splitlines()) >= 1
    compare(["gelu"], SMALL, "names", 4, results=path)
    monkeypatch.setattr(trials, "perform", lambda trial: pytest.fail("it was run again"))
    again_ = Experiment(["gelu"], SMALL, ["names"], 4, results=path)
    assert list(again_.run()) == []
    assert len(again_.report().records) == 8


def test_several_processes_give_the_same_numbers() -> None:
    one = compare(["gelu", "silu"], SMALL, "names", 3, jobs=1)
    two = compare(["gelu", "silu"], SMALL, "names", 3, jobs=2)
    drop = ("when", "seconds")
    strip = [
        sorted(json.dumps({k: v for k, v in r.items() if k not in drop}) for r in report.records)
        for report in (one, two)
    ]
    assert strip[0] == strip[1]


def test_pairs_with_a_failed_run_are_left_out() -> None:
    line = "    wte, wpe, lm_head = new("
    unlucky = ORIGINAL.replace(line, '    assert rng.random() < 0.6, "bad luck"\n' + line)
    program = variants.Program("unlucky", unlucky, whole=True)
    found = Experiment([program], SMALL, ["names"], 8, {"steps": 30, "n_embd": 8, "n_head": 2})
    for _ in found.run():
        pass
    (c,) = found.report().comparisons
    assert 0 < len(c.seeds) < 8
    assert len(c.runs) == c.differences[0].interval.pairs == len(c.seeds)
    assert len(c.failed) == 1
    lost = sorted(set(range(42, 50)) - set(c.seeds))
    *most, last = map(str, lost)
    spelled = f"{', '.join(most)} and {last}" if most else last
    assert c.failed[0].startswith("unlucky: The program's own check failed: bad luck (line ")
    assert c.failed[0].endswith(f"(seed {spelled}).")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"asked": []}, "There is nothing to compare: name a variant, such as no-attention."),
        ({"seeds": 0}, "At least 1 seed is needed, not 0."),
        ({"seeds": []}, "At least 1 seed is needed, and none is given."),
        ({"seeds": [1.5]}, "Seeds are whole numbers."),
        ({"tasks": []}, "There are no data to train on."),
        ({"asked": ["steps=40"]}, "steps=40 changes nothing on names: it is the baseline"),
        ({"asked": ["gelu+silu"]}, "GELU and SiLU cannot be put together: both change the line"),
        ({"asked": ["n_head=0.5"]}, "n_head must be a whole number, not 0.5."),
        ({"asked": ["heads=2"]}, "This source has no number called heads; it has: "),
        ({"tasks": ["nosuch"]}, "'nosuch' is neither a data set nor a file"),
    ],
)
def test_what_cannot_be_compared_is_said(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MicrogptError) as caught:
        compare(**({"asked": ["gelu"], "baseline": SMALL} | arguments))
    assert caught.value.message.startswith(sentence)


def test_a_task_of_ones_own() -> None:
    corpus = Corpus("mine", "mine", ("ab=ba", "cd=dc", "ef=fe"))
    task = data.with_answers(corpus, "=")
    assert task.answer("ab=ba") == "ba"
    with pytest.raises(MicrogptError, match=r"^Document 1 of mine, 'ab=ba', is no question and"):
        data.with_answers(corpus, ">")
    with pytest.raises(MicrogptError, match="must not be empty"):
        data.with_answers(corpus, "")
    for doc in ("=ba", "ab="):
        with pytest.raises(MicrogptError, match=r"^Document 2 of"):
            data.with_answers(Corpus("mine", "mine", ("ab=ba", doc)), "=")


def test_identical_programs_are_not_called_different() -> None:
    """The same program beside itself with other seeds: real noise, drawn again and again."""
    runs = perform(Trial(small(steps=100), FEW, tuple(range(240))))
    losses = [result.held_out for result in runs if result.held_out is not None]
    rng, called = random.Random(0), 0
    for _ in range(1000):
        drawn = rng.sample(losses, 16)
        found = experiment.interval([a - b for a, b in zip(drawn[:8], drawn[8:])])
        called += found.decided
    assert called <= 71  # one in twenty is 50, and three standard deviations more


def test_a_variant_leaves_the_numbers_of_its_base_alone() -> None:
    """Each is written with the file's own numbers in the signatures that it writes anew."""
    asked = {"n_embd": 8, "batch": 8, "steps": 300, "beta1": 0.5, "lr": 0.02}
    base = variants.program("+".join(f"{name}={x}" for name, x in asked.items())).source
    for recipe in ("norm-gain", "sgd", "adamw", "scaled-init", "latent-attention"):
        found = {
            k.name: k.value for k in variants.file.knobs(variants.program(recipe, base).source)
        }
        own = variants.file.numbers(variants.variant(recipe).text)
        assert {name: found[name] for name in asked} == asked | {
            n: own[n] for n in own if n in asked
        }


def test_a_recipe_has_the_last_word_on_numbers() -> None:
    for recipe in ("sgd+lr=0.125", "lr=0.125+sgd"):
        assert "lr=0.125" in variants.program(recipe).source


# ---- What variants expect ----

NEAR = {"held_out": 0.05, "exact": 0.05}  # as far as what is alike may be apart
BY_PYTHON = {"dropout", "muon", "gradient-clipping", "recurrent", "shuffled-targets"}


def expectations(by_python: bool) -> dict[str, dict[str, str]]:
    """By data set and variant, what its docstring expects."""
    found: dict[str, dict[str, str]] = {}
    for variant in variants.collection().values():
        if (variant.name in BY_PYTHON) is by_python:
            for task, expected in variant.expected.items():
                found.setdefault(task, {})[variant.name] = expected
    return found


def held(task: str, expected: dict[str, str], seeds: int) -> None:
    """What is alike needs no more seeds; what is not is looked at until it is decided."""
    for wanted in ("alike", "other"):
        asked = [
            name for name, what in expected.items() if (what == "alike") is (wanted == "alike")
        ]
        if not asked:
            continue
        report = compare(
            asked, tasks=task, seeds=seeds, until_sure=wanted == "other", most_seeds=4 * seeds,
        )  # fmt: skip
        for c in report.comparisons:
            d = c.differences[0]
            told = f"{c.variant} on {task}: {d.interval}"
            if wanted == "alike":
                assert abs(d.interval.mean) < NEAR[d.metric.name], told
            else:
                assert d.verdict == expected[c.variant], told


@pytest.mark.parametrize("task", sorted(expectations(False)))
def test_a_variant_does_what_its_docstring_expects(task: str) -> None:
    held(task, expectations(False)[task], 8)


@pytest.mark.skipif("MICROGPT_EXHAUSTIVE" not in os.environ, reason="takes minutes")
@pytest.mark.parametrize("task", sorted(expectations(True)))
def test_exhaustive_what_python_runs_does_what_its_docstring_expects(task: str) -> None:
    held(task, expectations(True)[task], 4)


def test_every_variant_expects_something() -> None:
    assert all(v.expected for v in variants.collection().values())
    assert {v.name for v in variants.collection().values()} >= BY_PYTHON

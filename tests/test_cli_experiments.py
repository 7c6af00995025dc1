"""`microgpt variants`, `compare`, `parts` and `rerun`, as a person meets them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_cli import command, refused, start, wait_until

from microgpt import source as file
from microgpt.lab import parts, variants
from microgpt.lab.experiment import compare
from microgpt.lab.parts import Parts, Setting

SMALL = ("--steps", "40", "--n-embd", "8", "--n-head", "2", "--jobs", "1")
unix = pytest.mark.skipif(os.name != "posix", reason="signals of Unix")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# ---- variants ----


def test_variants_are_listed_group_by_group() -> None:
    printed = command("variants").stdout
    for variant in variants.collection().values():
        assert re.search(rf"^  {variant.name} +{re.escape(variant.title)}$", printed, re.MULTILINE)
    for name, rungs in variants.LADDERS.items():
        assert re.search(rf"^  {name} +{', '.join(rungs)}$", printed, re.MULTILINE)
    told = json.loads(command("variants", "--json").stdout)
    assert [v["name"] for v in told["variants"]] == list(variants.collection())
    assert all(v["hypothesis"] and v["reference"] for v in told["variants"])


def test_a_variant_is_shown_with_its_diff() -> None:
    printed = command("variants", "rope").stdout
    rope = variants.variant("rope")
    assert printed.startswith("RoPE (rope)\n")
    assert " ".join(rope.hypothesis.split()) in " ".join(printed.split())
    assert "Su et al. 2021" in printed
    assert "+    q, k = rotate(q), rotate(k)" in printed
    source = command("variants", "rope+lr=0.02", "--source").stdout
    assert source == variants.program("rope+lr=0.02").source
    told = json.loads(command("variants", "rope+lr=0.02", "--json").stdout)
    assert [v["name"] for v in told["variants"]] == ["rope"]
    assert "+    q, k = rotate(q), rotate(k)" in told["diff"]


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("gelo", "There is no variant 'gelo': did you mean gelu?"),
        ("gelu+silu", "GELU and SiLU cannot be put together"),
        ("lr=fast", "lr=fast does not set a number: 'fast' is none."),
        ("gelu++silu", "The recipe 'gelu++silu' has an empty part between its plus signs."),
        ("missing.py", "The variant missing.py cannot be read: no such file or directory."),
    ],
)
def test_a_recipe_that_cannot_be_is_said(recipe: str, sentence: str) -> None:
    for name in ("variants", "compare"):
        assert refused(name, recipe, code=1).startswith(f"microgpt: {sentence}")


# ---- compare ----


def test_what_is_printed_is_what_was_found() -> None:
    printed = command("compare", "no-attention", "lr=0.02", "--data", "names", *SMALL).stdout
    report = compare(["no-attention", "lr=0.02"], tasks="names", steps=40, n_embd=8, n_head=2)
    for c in report.comparisons:
        (d,) = c.differences
        row = next(row for row in printed.splitlines() if row.startswith(c.variant))
        signed = [f"{x:+.3f}" for x in (d.interval.mean, d.interval.low, d.interval.high)]
        mean, low, high = (text.replace("-", "\N{MINUS SIGN}") for text in signed)
        assert f"{d.variant:.3f}" in row
        assert f"{mean} ({low} to {high})" in row
        assert d.verdict in row
        assert f"  {c.variant}: #{c.link}" in printed.splitlines()
    assert printed.startswith("names, 8 seeds\ngpt.py: ")


def test_json_has_every_run_and_every_comparison() -> None:
    told = lines(command("compare", "gelu", "--data", "copy", "--json", *SMALL).stdout)
    assert [one["event"] for one in told] == ["run"] * 16 + ["comparison"]
    assert {one["seed"] for one in told[:-1]} == set(range(42, 50))
    assert [d["metric"] for d in told[-1]["differences"]] == ["exact", "held_out"]
    assert file.decode_link(told[-1]["link"])["data"] == "copy"


def test_a_link_makes_the_pages_experiment_and_comes_back() -> None:
    edited = file.set_knob(variants.program("squared-relu").source, "steps", 30)
    link = "https://some.where/page/#" + file.encode_link(
        {"source": edited, "data": "sort", "seed": 7, "room": "train"}
    )
    assert "add --trust if you trust it" in refused("compare", "--link", link, code=1)
    told = lines(command("compare", "--link", link, "--trust", "--seeds", "2", "--json").stdout)
    assert [one["seed"] for one in told[:-1]] == [7, 8, 7, 8]
    assert {one["steps"] for one in told[:-1]} == {1000, 30}  # the page's numbers, not the data's
    back = file.decode_link(told[-1]["link"])
    assert back == {"source": edited, "data": "sort", "seed": 7}


def test_wide_and_narrow() -> None:
    arguments = ("compare", "no-mask", "lr=1e30", "--data", "copy", "--seeds", "3", *SMALL)
    for width, drawn in (("80", False), ("120", True)):
        done = subprocess.run(
            [sys.executable, "-m", "microgpt", *arguments], capture_output=True, text=True,
            check=True, env=os.environ | {"COLUMNS": width},
        )  # fmt: skip
        table = done.stdout.split("no-mask sees")[0]
        assert max(map(len, table.splitlines())) <= int(width)
        assert ("\N{BLACK CIRCLE}" in table or "\N{RIGHTWARDS ARROW}" in table) is drawn
        said = " ".join(done.stdout.split())
        assert "no pair of runs was completed" in table
        assert "lr=1e30: The loss became nan at step" in said
        assert "no-mask sees the future: at whole documents of copy its loss is" in said


def test_seeds_are_added_and_the_level_is_said() -> None:
    printed = command(
        "compare", "gelu", "--data", "names", "--until-sure", "--seeds", "3", "--most-seeds", "6",
        *SMALL,
    ).stdout  # fmt: skip
    assert "names, 6 seeds" in printed
    assert "The intervals hold 97.50% each" in " ".join(printed.split())


def test_own_data_with_answers(tmp_path: Path) -> None:
    place = tmp_path / "doubled.txt"
    place.write_text("".join(f"{a}{b}={a}{b}{a}{b}\n" for a in "abcdefgh" for b in "abcdefgh"))
    arguments = ("compare", "gelu", "--data", place, "--seeds", "3", "--json", *SMALL)
    told = lines(command(*arguments, "--separator", "=").stdout)
    assert [d["metric"] for d in told[-1]["differences"]] == ["exact", "held_out"]
    assert file.decode_link(told[-1]["link"]).get("data") is None
    told = lines(command(*arguments).stdout)
    assert [d["metric"] for d in told[-1]["differences"]] == ["held_out"]
    said = refused(*arguments, "--separator", ">", code=1)
    assert said.startswith("microgpt: Document 1 of doubled.txt, 'aa=aaaa', is no question and")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Name a variant; microgpt variants lists them. See "),
        (("gelu", "--seeds", "-1"), "Invalid value for '--seeds': it must be 0 or more, not -1."),
        (("gelu", "--budget", "0"), "Invalid value for '--budget': it must be a number above 0"),
    ],
)
def test_a_command_that_cannot_be_meant(arguments: tuple[str, ...], sentence: str) -> None:
    assert (
        refused("compare", *arguments, code=2).lower().startswith(f"microgpt: {sentence}".lower())
    )


def test_no_seeds_and_no_data() -> None:
    assert refused("compare", "gelu", "--seeds", "0", code=1) == (
        "microgpt: At least 1 seed is needed, and none is given."
    )
    assert refused("compare", "gelu", "--data", "nosuch", code=1).startswith(
        "microgpt: 'nosuch' is neither a data set nor a file"
    )


def test_a_program_that_fails_everywhere_ends_with_1(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text('"""Broken"""\n\n\ndef mlp(x, fc, proj):\n    return x @ proj\n')
    result = command("compare", broken, "--seeds", "2", *SMALL, code=1)
    assert "no pair of runs was completed" in result.stdout
    assert "These shapes do not fit together" in " ".join(result.stdout.split())


@unix
def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    place = tmp_path / "runs.jsonl"
    arguments = ["compare", "dropout", "--seeds", "3", "--steps", "30", "--out", place]
    process = start(*arguments, "--jobs", "1")
    try:
        wait_until(lambda: place.exists() and place.read_text().count("\n") >= 3)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert f"the finished runs are in {place}, and the same command goes on from there." in said
    assert printed.startswith("names, 0 seeds")
    assert place.read_text().count("\n") == 3
    done = command(*arguments, "--jobs", "1")
    assert "names, 3 seeds" in done.stdout
    assert place.read_text().count("\n") == 6


@unix
def test_a_kill_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    place = tmp_path / "runs.jsonl"
    arguments = ["compare", "dropout", "--seeds", "3", "--steps", "30", "--out", place]
    process = start(*arguments, "--jobs", "2", start_new_session=True)
    wait_until(lambda: place.exists() and place.read_text().count("\n") >= 3)
    os.killpg(process.pid, signal.SIGKILL)  # it and its processes
    process.communicate(timeout=60)
    place.write_bytes(place.read_bytes() + b'{"id": "cut o')
    done = command(*arguments, "--jobs", "1")
    assert f"Line 4 of {place} was cut off, so that run is made again." in " ".join(
        done.stderr.split()
    )
    assert "names, 3 seeds" in done.stdout


# ---- rerun ----


def test_recorded_runs_are_made_again(tmp_path: Path) -> None:
    place = tmp_path / "runs.jsonl"
    command("compare", "gelu", "--data", "names", "--seeds", "2", "--out", place, *SMALL)
    assert "add --trust if you trust it" in refused("rerun", place, code=1)
    printed = command("rerun", place, "--trust").stdout
    assert len(printed.splitlines()) == 4
    assert all("the same losses" in line for line in printed.splitlines())
    records = lines(place.read_text())
    told = lines(command("rerun", place, "--trust", "--run", records[1]["id"], "--json").stdout)
    assert told == [
        {"id": records[1]["id"], "same": True, "held_out": [records[1]["held_out"]] * 2}
    ]

    place.write_text(json.dumps(records[0] | {"losses": "0" * 64}) + "\n")
    assert "other losses" in command("rerun", place, "--trust", code=1).stdout
    place.write_text(json.dumps(records[0] | {"edit": "nonsense"}) + "\n")
    assert refused("rerun", place, "--trust", code=1) == "microgpt: This link is damaged."


def test_what_cannot_be_made_again(tmp_path: Path) -> None:
    place = tmp_path / "runs.jsonl"
    assert refused("rerun", place, code=1) == f"microgpt: There is no result file {place}."
    place.write_text("anna\n")
    assert "holds something other than results" in refused("rerun", place, code=1)
    assert place.read_text() == "anna\n"


# ---- parts ----


def test_the_stored_table_is_of_this_file_and_these_variants() -> None:
    found = parts.stored()
    assert found["file_sha256"] == parts.sha256(file.ORIGINAL), "microgpt parts makes it anew"
    removals = [v.name for v in variants.collection().values() if v.group == "removals"]
    settings = [vars(setting) for setting in parts.SETTINGS]
    assert found["settings"] == settings
    cells = {(c["variant"], tuple(c["setting"].values())) for c in found["cells"]}
    wanted = {(name, tuple(s.values())) for name in removals for s in settings}
    one_head = {("one-head", tuple(s.values())) for s in settings if "n_head=1" in s["baseline"]}
    long = {
        (name, tuple(vars(s).values())) for name in parts.SLOW for s in parts.SETTINGS
        if not s.brief
    }  # fmt: skip
    assert cells == wanted - one_head - long
    for cell in found["cells"]:
        source = parts.program_of(Setting(**cell["setting"]), cell["variant"])
        assert cell["source_sha256"] == parts.sha256(source), cell["variant"]
    assert {"command", "commit", "machine", "date", "python"} <= set(found)


def test_every_removal_matters_somewhere() -> None:
    found = parts.stored()["cells"]
    for name in {cell["variant"] for cell in found}:
        assert "worse" in {cell["verdict"] for cell in found if cell["variant"] == name}, name


@pytest.mark.parametrize("variant", ["no-attention", "no-positions"])
def test_a_cell_of_the_stored_table_is_found_again(variant: str) -> None:
    """On another processor sums are added in another order, so runs go other ways, and means of
    eight runs differ by less than their intervals are wide."""
    cell = next(
        c for c in parts.stored()["cells"]
        if c["variant"] == variant and c["setting"] == vars(Setting("copy"))
    )  # fmt: skip
    (found,) = compare([variant], tasks="copy", seeds=cell["seeds"]).comparisons
    assert found.verdict == cell["verdict"]
    for then, now in zip(cell["differences"], found.differences, strict=True):
        assert then["metric"] == now.metric.name
        assert now.interval.mean == pytest.approx(then["difference"], abs=0.03)
        assert now.baseline == pytest.approx(then["baseline"], abs=0.03)


def test_the_stored_table_is_shown() -> None:
    printed = command("parts", "--stored").stdout
    for cell in parts.stored()["cells"]:
        assert any(row.startswith(cell["variant"]) for row in printed.splitlines())
    assert json.loads(command("parts", "--stored", "--json").stdout) == parts.stored()


def test_parts_are_run_stopped_and_gone_on_with(tmp_path: Path) -> None:
    place, settings = tmp_path / "runs.jsonl", (Setting("names", "steps=3+n_embd=8"),)
    first = Parts(place, settings=settings)
    steps = first.run()
    next(steps)
    steps.close()
    before = place.read_text().count("\n")
    assert 0 < before < 20
    second = Parts(place, settings=settings)
    for setting, at in second.run():
        assert setting == settings[0]
        assert at.done <= at.wanted
    whole = second.plain("a command")
    removals = [v.name for v in variants.collection().values() if v.group == "removals"]
    fast = [name for name in removals if name not in parts.SLOW]  # no control beside a small model
    assert sorted(c["variant"] for c in whole["cells"]) == sorted(fast)
    assert place.read_text().count("\n") == 8 * (len(fast) + 1)
    seen = next(c for c in whole["cells"] if c["variant"] == "no-mask")["at_once"]
    assert seen is not None
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_table_is_drawn(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib")
    place = tmp_path / f"parts.{kind}"
    command("parts", "--stored", "--picture", place)
    content = place.read_bytes()
    assert content.startswith(b"<?xml" if kind == "svg" else b"\x89PNG")
    if kind == "svg":
        for cell in parts.stored()["cells"]:
            assert f">{cell['variant']}<".encode() in content
    time.sleep(0.01)
    command("parts", "--stored", "--picture", place)
    assert place.read_bytes() == content or kind != "svg"


def test_a_picture_of_another_kind_is_refused_at_once(tmp_path: Path) -> None:
    said = refused("parts", "--picture", tmp_path / "parts.gif", code=1)
    assert said == "microgpt: A picture's name ends in .svg, .png or .pdf, and parts.gif does not."


def test_without_matplotlib_a_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = refused("parts", "--picture", tmp_path / "parts.svg", code=1)
    assert said.endswith("which is not installed: pip install 'microgpt-explainer[plots]'.")

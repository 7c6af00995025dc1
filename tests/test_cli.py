"""The command: what it prints, what it refuses, and that nothing is lost when it ends early."""

from __future__ import annotations

import doctest
import json
import math
import os
import random
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

click = pytest.importorskip("click", reason="the command needs click")
click_testing = pytest.importorskip("click.testing")
pytest.importorskip("rich", reason="the command needs rich")

import microgpt  # noqa: E402
from microgpt import checkpoint, cli, data, site  # noqa: E402
from microgpt import source as file  # noqa: E402
from microgpt.run import Run  # noqa: E402

WORDS = "ab\nabc\nba\nbca\ncab\ncc\nacb\nbb\naca\nbac\ncba\nabca\nbcab\ncabc\naab\nbba\n"
CORPUS = data.load(WORDS)
SIZES: dict[str, Any] = {"n_embd": 4, "n_head": 2, "block_size": 6}
SMALL = ["--n-embd", "4", "--n-head", "2", "--block-size", "6"]
COMMANDS = [
    "serve", "export", "source", "train", "sample", "xray", "variants", "compare", "parts", "sweep",
    "diagnose", "rerun",
]  # fmt: skip

unix = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of Unix")


def command(*arguments: str | Path, code: int = 0) -> Any:
    """Run the command in this process; its result, once the exit code is the one expected."""
    result = click_testing.CliRunner().invoke(cli.main, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def refused(*arguments: str | Path, code: int) -> str:
    """The one sentence, or two, that the command refuses with."""
    result = command(*arguments, code=code)
    assert "Traceback" not in result.output
    *_, last = result.stderr.splitlines()
    assert last.startswith("microgpt: ")
    assert last.endswith(".") or last.endswith("?")
    return str(last)


def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Run the command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "microgpt", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def trained(steps: int, total: int | None = None, **more: Any) -> Run:
    """A run as the command makes it."""
    run = Run(**({"corpus": CORPUS, "steps": total or steps, "engine": "fast"} | SIZES | more))
    run.advance_by(steps)
    return run


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    place = tmp_path / "words.txt"
    place.write_text(WORDS)
    return place


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    place = tmp_path / "saved.safetensors"
    checkpoint.save(trained(40), place)
    return place


def edited(place: Path, old: str, new: str) -> Path:
    assert file.ORIGINAL.count(old) == 1, f"the file has changed: {old!r}"
    place.write_text(file.ORIGINAL.replace(old, new))
    return place


# ---- Help ----


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_and_has_examples(name: str, width: int) -> None:
    chosen = cli.main.commands[name] if name else cli.main
    names = ["-h", "--help"]
    with click.Context(cli.main, info_name="microgpt", help_option_names=names) as outer:
        outer = click.Context(chosen, outer, name, terminal_width=width) if name else outer
        outer.terminal_width = width
        text = chosen.get_help(outer)
    assert max(map(len, text.splitlines())) <= width
    assert re.search(rf"^ +microgpt {name}".rstrip(), text, re.MULTILINE)
    arguments = [name] if name else []
    assert command(*arguments, "--help").stdout == command(*arguments, "-h").stdout


def test_every_option_says_what_it_does() -> None:
    for name in COMMANDS:
        for option in cli.main.commands[name].params:
            if isinstance(option, click.Option):
                assert option.help
                assert option.help.endswith(".")


def test_version() -> None:
    assert command("--version").stdout == f"microgpt {microgpt.__version__}\n"


# ---- serve and export ----


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (None, True)),
        (["serve"], (None, True)),
        (["--no-open"], (None, False)),
        (["--port", "9123"], (9123, True)),
        (["serve", "--port", "9123", "--no-open"], (9123, False)),
    ],
)
def test_microgpt_alone_serves(arguments: list[str], expected: Any, monkeypatch: Any) -> None:
    asked = []
    monkeypatch.setattr(
        site, "serve", lambda port, open_browser: asked.append((port, open_browser))
    )
    command(*arguments)
    assert asked == [expected]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "built"
    folder.mkdir()
    (folder / "index.html").write_text("<title>microgpt</title>")
    monkeypatch.setattr(site, "built_folder", lambda: folder)
    return folder


def test_a_port_in_use(page: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"Port {port} is in use" in refused("--port", port, "--no-open", code=1)
    assert "99999 is not in the range" in refused("--port", "99999", code=2)


@unix
def test_serving_ends_with_ctrl_c(page: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from microgpt import cli, site;"
        "site.built_folder = lambda: Path(sys.argv[1]); cli.main(['serve', '--no-open'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(page)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
    assert address
    with urllib.request.urlopen(address[0]) as answer:
        assert b"microgpt" in answer.read()
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert errors == "microgpt: The explainer has ended.\n"


def test_export(page: Path, tmp_path: Path) -> None:
    command("export", tmp_path / "public")
    assert (tmp_path / "public" / "index.html").read_text() == "<title>microgpt</title>"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    assert "is not empty" in refused("export", tmp_path / "full", code=1)


# ---- source ----


def test_source_prints_the_file(saved: Path, tmp_path: Path) -> None:
    assert command("source").stdout == file.ORIGINAL
    assert command("source", "--path").stdout == f"{file.PATH}\n"
    assert command("source", "--checkpoint", saved).stdout == file.ORIGINAL
    nothing = command("source", "--diff", "--checkpoint", saved)
    assert (nothing.stdout, nothing.stderr) == ("", "microgpt: There is no difference.\n")


def test_source_shows_an_edit_without_running_it(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    source = file.ORIGINAL + f"\nopen({str(mark)!r}, 'w')\n"
    place = tmp_path / "edited.safetensors"
    place.write_bytes(with_source(trained(1), source))
    assert command("source", "--checkpoint", place).stdout == source
    shown = command("source", "--diff", "--checkpoint", place).stdout
    assert [line for line in shown.splitlines() if line.startswith("+open(")]
    link = "https://example.org/#" + file.encode_link({"source": source})
    assert command("source", "--link", link).stdout == source
    assert not mark.exists()


def with_source(run: Run, source: str) -> bytes:
    """The run as a checkpoint that carries another program."""
    run.source, before = source, run.source
    contents = checkpoint.dumps(run)
    run.source = before
    return contents


# ---- train ----


def test_train_in_plain_lines(words: Path) -> None:
    result = command("train", words, "--steps", "60", "--every", "20", "--samples", "5", *SMALL)
    run = trained(60)
    held_out, texts = run.held_out_loss(), run.sample(5, seed=42)
    text = result.stdout
    assert "\x1b" not in text
    assert text.splitlines()[:4] == [
        "words.txt: 14 documents, 2 more held out, 4 tokens",
        "248 weights: 1 layer, 2 heads, 4 channels, context 6",
        "60 steps of 1 document, learning rate 0.01, seed 42",
        "A guess among 4 tokens scores ln 4 = 1.386.",
    ]
    assert len(re.findall(r"^step .*loss .*held out .* left  \w", text, re.MULTILINE)) == 2
    assert f"Held-out loss {held_out:.3f} a token, on 2 documents never trained on" in text
    known = sum(map(run.knows, texts))
    assert f"5 texts at temperature 1, {known or 'none'} in the data:" in text
    for sample in texts:
        mark = "  (in the data)" if sample in CORPUS.docs else ""
        assert f"  {sample or '(nothing)'}{mark}\n" in text
    assert result.stderr == ""


def test_train_as_json(words: Path) -> None:
    result = command(
        "train", words, "--steps", "20", "--every", "8", "--json", "--seed", "5", *SMALL
    )
    events = [json.loads(line) for line in result.stdout.splitlines()]
    run = trained(20, seed=5)
    assert [e["loss"] for e in events if e["event"] == "step"] == run.losses
    assert events[0]["event"] == "start"
    assert events[0]["sizes"] == run.sizes
    assert (events[0]["weights"], events[0]["baseline"]) == (248, math.log(4))
    looks = [e for e in events if e["event"] == "look"]
    assert [e["step"] for e in looks] == [8, 16]
    assert all(len(e["samples"]) == 3 for e in looks)
    assert events[-1]["event"] == "end"
    assert events[-1]["held_out"] == run.held_out_loss()
    expected = [{"text": t, "known": run.knows(t)} for t in run.sample(10, seed=5)]
    assert events[-1]["samples"] == expected


def test_train_on_text_and_on_a_task() -> None:
    assert "text: 14 documents" in command("train", "--text", WORDS, "--steps", "2", *SMALL).stdout
    said = command("train", "sort", "--steps", "2", "--n-embd", "4", "--n-head", "1").stdout
    assert re.search(r"^Exact answers 0%, on 100 documents held out\.$", said, re.MULTILINE)
    assert "To learn sort well, --steps" in said


def test_a_worse_model_than_a_guess_is_called_one(words: Path) -> None:
    said = command("train", words, "--steps", "9", "--lr", "50", *SMALL).stdout
    assert "That is no better than a guess" in said


def test_train_saves_and_goes_on(words: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.safetensors"
    half = trained(15, 30)
    checkpoint.save(half, out)
    said = command("train", words, "--resume", out).stdout
    assert "Going on after step 15." in said
    assert f"Saved in {out}. Sample from it: microgpt sample {out}" in said
    assert checkpoint.load(out, corpus=CORPUS).losses == trained(30).losses
    done = command("train", words, "--resume", out).stdout
    assert "This run is finished: 30 steps done." in done
    sampled = command("train", "--resume", out, "--samples", "2").stdout  # finished: no data needed
    assert "2 " in sampled
    assert "Held-out loss" not in sampled


def test_train_refuses_to_mix_runs(words: Path, tmp_path: Path, saved: Path) -> None:
    going = trained(3, 30)
    checkpoint.save(going, saved)
    for option in [["--lr", "0.1"], ["--seed", "1"], ["--n-layer", "2"], ["--source", str(words)]]:
        said = refused("train", words, "--resume", saved, *option, code=2)
        assert f"--resume goes on with a run as it was begun; leave out {option[0]}." in said
    words.write_text(WORDS + "more\n")
    assert "was trained on other data" in refused("train", words, "--resume", saved, code=1)
    assert "are not in the checkpoint; give them" in refused("train", "--resume", saved, code=1)
    said = refused("train", words, "--out", saved, code=2)
    assert f"{saved} holds a run already: --resume {saved} goes on with it, --overwrite" in said
    assert checkpoint.load(saved).step == 3
    command("train", words, "--out", saved, "--overwrite", "--steps", "2", *SMALL)
    assert checkpoint.load(saved).step == 2


def test_a_link_gives_the_same_numbers_as_the_page(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    source = file.ORIGINAL.replace("n_head=4, n_embd=16", "n_head=1, n_embd=4")
    source = source.replace("steps=1000", "steps=6") + f"\nopen({str(mark)!r}, 'w').close()\n"
    state = {"source": source, "data": "sort", "seed": 9, "temperature": 0.5}
    link = "https://example.org/somewhere/#" + file.encode_link(state)
    said = refused("train", "--link", link, code=1)
    assert "This link carries a program of its own, gpt.py with 4 lines added and 2 removed" in said
    assert "--trust" in said
    assert not mark.exists()
    result = command("train", "--link", link, "--trust", "--json")
    run = Run(source, data.load("sort"), seed=9)
    losses = [run.advance() for _ in range(6)]
    events = [json.loads(line) for line in result.stdout.splitlines()]
    near = pytest.approx(losses, rel=1e-6)  # the fast engine rounds to seven digits
    assert [e["loss"] for e in events if e["event"] == "step"] == near
    assert events[-1]["temperature"] == 0.5
    result = command("train", "--link", link, "--trust", "--json", "--engine", "reference")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [e["loss"] for e in events if e["event"] == "step"] == losses


def test_a_link_reads_no_file_of_this_machine() -> None:
    said = refused("train", "--link", "#v=1&data=" + "/etc/passwd", code=1)
    assert "names the data '/etc/passwd', which are not bundled" in said
    assert refused("train", "--link", "#v=1&edit=!!", code=1) == "microgpt: This link is damaged."


def test_prints_of_a_source_stay_out_of_json(tmp_path: Path, words: Path) -> None:
    source = edited(
        tmp_path / "mine.py", "        total = 0.0", "        print('hello'); total = 0.0"
    )
    result = command("train", words, "--source", source, "--steps", "3", "--json", *SMALL)
    assert [json.loads(line)["event"] for line in result.stdout.splitlines()][:2] == [
        "start",
        "step",
    ]
    assert result.stderr.count("hello") == 3
    json.loads(command("xray", "--source", source, "--json").stdout)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["trian"], 2, "No such command 'trian'. (Did you mean one of: 'train', "),
        (["train", "--stepz", "3"], 2, "No such option"),
        (["train", "nmes"], 1, "neither a data set nor a file: did you mean 'names'?"),
        (["train", "--n-layer", "0"], 2, "'--n-layer': it must be 1 or more, not 0"),
        (["train", "--n-embd", "-4"], 2, "'--n-embd': it must be 1 or more, not -4"),
        (["train", "--n-embd", "2.5"], 2, "'--n-embd': 2.5 is not a whole number"),
        (["train", "--block-size", "x"], 2, "'--block-size': x is not a whole number"),
        (["train", "--n-head", "3"], 2, "16 channels cannot be shared by 3 heads"),
        (["train", "--n-embd", "1000000"], 2, "plain Python can hold up to 10,000,000"),
        (["train", "--lr", "0"], 2, "'--lr': it must be a number above 0, not 0"),
        (["train", "--lr", "nan"], 2, "'--lr': it must be a number above 0, not nan"),
        (["train", "--std", "-1"], 2, "'--std': it must be a number, 0 or more, not -1"),
        (["train", "--temperature", "-1"], 2, "a number, 0 or more, not -1"),
        (["train", "--seed", "1e3"], 2, "'--seed': 1e3 is not a whole number"),
        (["train", "names", "--text", "a"], 2, "DATA and --text cannot both say"),
        (["train", "--text", "a"], 1, "only one distinct document"),
        (["train", "--text", ""], 1, "only blank lines"),
        (["train", "--source", "missing.py"], 1, "The source missing.py cannot be read: no such"),
        (["train", "--source", "."], 1, "cannot be read: is a directory"),
        (["train", "--source", sys.executable], 1, "is no program"),
        (["train", "--source", "x", "--link", "#"], 2, "cannot both say what to run"),
        (["train", "--out", "missing/run"], 1, "There is no folder"),
        (["train", "--out", "."], 1, "is a folder; give the name of a file in it"),
        (["train", "--resume", "missing"], 1, "There is no file missing."),
        (["sample"], 2, "Missing argument 'FILE'."),
        (["sample", "."], 1, "is a folder, not a checkpoint"),
        (["sample", str(file.PATH)], 1, "is not a checkpoint, or is cut short"),
        (["xray", "Anna"], 1, "'A' is not in the vocabulary"),
        (["xray", "--line", "0"], 2, "it must be 1 or more, not 0"),
        (["xray", "--line", "999"], 1, "This step made nothing on line 999"),
        (["xray", "--name", "nope"], 1, "This step made nothing called nope; some of its values"),
        (["xray", "--source", "a", "--checkpoint", "b"], 2, "cannot both say what to run"),
        (["xray", "--seed", "1", "--checkpoint", "b"], 2, "--checkpoint has its own"),
        (["export"], 2, "Missing argument 'FOLDER'."),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refused(*arguments, code=code)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def mlp(x, fc, proj):", "def mlp(x, fc, proj:", "line 107: "),
        ("def mlp(x, fc, proj):", "def feed(x, fc, proj):", "'mlp' is not defined"),
        ("    return hidden @ proj", "    return hidden @ fc", "line 109: These shapes do not fit"),
        ("def train(", "def learn(", "The program needs something called train."),
        ("        yield total", "        total", "must be a generator that yields"),
    ],
)
def test_broken_sources_are_told_by_their_own_name(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    source = edited(tmp_path / "mine.py", old, new)
    out = tmp_path / "run.safetensors"
    said = refused("train", "--text", WORDS, "--source", source, "--out", out, *SMALL, code=1)
    assert words in said
    assert f"{source}, line" in said or "line" not in words
    assert not out.exists()


# ---- Nothing is lost ----


@pytest.mark.parametrize(("engine", "lr"), [("reference", "1e300"), ("fast", "1e30")])
def test_a_run_that_diverges_keeps_its_last_good_checkpoint(
    words: Path, tmp_path: Path, engine: str, lr: str
) -> None:
    out = tmp_path / "run.safetensors"
    arguments = ["train", words, "--steps", "50", "--out", out, *SMALL, "--engine", engine]
    said = refused(*arguments, "--lr", lr, code=1)
    assert "Nothing has been saved" in said
    assert not out.exists()
    said = refused(*arguments, "--lr", lr, "--save-every", "1", code=1)
    step = checkpoint.load(out, corpus=CORPUS).step
    found = re.search(r"The loss became nan at step (\d+): try a learning rate lower than", said)
    assert found
    assert 0 < step < int(found[1])
    assert f"{out} holds step {step}." in said
    assert engine == "reference" or "gpt.py, line 112" in said  # which first reads a bad weight


def test_an_edit_that_fails_half_way_keeps_the_steps_before(words: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.safetensors"
    fails = "        assert step != 7, 'seven'; total = 0.0"
    source = edited(tmp_path / "mine.py", "        total = 0.0", fails)
    arguments = ["--steps", "20", "--out", out, *SMALL]
    said = refused("train", words, "--source", source, *arguments, code=1)
    assert "own check failed: seven" in said
    assert f"{out} holds step 7." in said
    again = checkpoint.load(out, corpus=CORPUS, trust=True)
    first = trained(7, 20)  # the fast engine follows as far as it can; the error is Python's own
    assert again.losses == first.losses


@unix
@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_saves_and_the_run_goes_on(
    words: Path, tmp_path: Path, name: str, code: int, engine: str
) -> None:
    out = tmp_path / "run.safetensors"
    sizes = ["--n-embd", "8", "--n-head", "2", "--block-size", "6"]
    steps = 2000 if engine == "reference" else 200_000
    arguments = ["--steps", steps, "--out", out, "--json", "--engine", engine, *sizes]
    process = start("train", words, *map(str, arguments), "--save-every", "1000")
    assert process.stdout is not None
    line = ""
    while '"step": 5,' not in line:
        line = process.stdout.readline()
    process.send_signal(signal.Signals[name])
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    run = checkpoint.load(out, corpus=CORPUS)
    run.use(engine)
    assert 5 <= run.step < steps
    assert errors.splitlines() == [
        f"microgpt: Stopped after step {run.step:,} of {steps:,}; step {run.step:,} is saved in "
        f"{out}. To go on:",
        f"  microgpt train {words} --resume {out}",
    ]
    whole = trained(run.step + 5, steps, n_embd=8, engine=engine)
    run.advance_by(5)
    assert run.losses == whole.losses


@unix
def test_ctrl_c_without_a_file_says_that_nothing_is_saved(words: Path) -> None:
    process = start("train", words, "--steps", "500000", "--json", *SMALL)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "nothing was saved, because no --out FILE was given." in errors
    assert "Traceback" not in errors


@unix
@pytest.mark.parametrize(
    ("loop", "times"),
    [
        ("        while step == 3: pass", 1),
        (
            "        while step == 3:\n"
            "            try:\n"
            "                while True: __import__('time').sleep(0.01)\n"
            "            except BaseException: pass",
            3,
        ),
    ],
    ids=["plain", "one that catches everything"],
)
def test_an_endless_loop_is_ended_by_ctrl_c(
    words: Path, tmp_path: Path, loop: str, times: int
) -> None:
    source = edited(
        tmp_path / "mine.py",
        "        total = 0.0",
        "        if step == 3: print('looping')\n" + loop + "\n        total = 0.0",
    )
    out = tmp_path / "run.safetensors"
    arguments = ["--steps", "20", "--out", out, "--save-every", "1", "--json", *SMALL]
    process = start("train", words, "--source", source, *arguments)
    assert process.stderr is not None
    engine, first = "fast", process.stderr.readline()
    if "runs on the reference engine" in first:  # as is told before anything runs
        engine, first = "reference", process.stderr.readline()
    assert first == "looping\n"
    time.sleep(0.1)
    for press in range(times):
        assert process.poll() is None, f"ended by press {press}"
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    found = checkpoint.load(out, corpus=CORPUS, trust=True).losses
    assert found == trained(3, 20, engine=engine).losses


@unix
def test_killed_at_any_moment_a_run_ends_with_the_same_losses(words: Path, tmp_path: Path) -> None:
    """SIGKILL at moments that nobody chose, and --resume, until the run is finished."""
    out, rng = tmp_path / "run.safetensors", random.Random(4)
    whole = trained(120).losses
    begin = ["--steps", "120", "--out", out, *SMALL]
    steps: list[int] = []
    for attempt in range(40):
        arguments = ["--resume", out] if out.exists() else begin
        process = start("train", words, *arguments, "--save-every", "1", "--json", "--every", "999")
        assert process.stdout is not None
        for _ in range(rng.randrange(4, 60)):
            process.stdout.readline()
        if attempt < 5:
            time.sleep(rng.uniform(0, 0.01))
            process.kill()
        process.communicate()
        if out.exists():
            run = checkpoint.load(out, corpus=CORPUS)
            assert run.losses == whole[: run.step]
            steps.append(run.step)
        if attempt >= 5:
            break
    assert steps == sorted(steps)
    assert len(set(steps)) > 3
    assert steps[-1] == 120
    assert process.returncode == 0


FULL = """
import errno, os, sys
from pathlib import Path
from microgpt import cli

writes = 0
class Full:
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *error): self.file.close()
    def write(self, contents): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

opened = Path.open
def full(path, mode="r", *arguments, **options):
    global writes
    file = opened(path, mode, *arguments, **options)
    writes += path.name.endswith(".part")
    return Full(file) if path.name.endswith(".part") and writes > int(sys.argv[1]) else file
Path.open = full
cli.main(sys.argv[2:])
"""


@unix
def test_a_disk_that_fills_up_does_not_end_training_and_loses_nothing(
    words: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run.safetensors"
    arguments = ["train", words, "--steps", "12", "--out", out, "--save-every", "2", *SMALL]
    for writes, expected in [(0, None), (1, None), (3, 4)]:  # the first only tries
        command_line = [sys.executable, "-c", FULL, str(writes), *map(str, arguments)]
        done = subprocess.run(command_line, capture_output=True, text=True)
        assert done.returncode == 1
        assert all("the disk is full" in line for line in done.stderr.splitlines())
        if writes == 0:
            assert done.stderr == f"microgpt: {out} cannot be written: the disk is full.\n"
            assert done.stdout == ""  # no step was done
        else:
            first, last = done.stderr.splitlines()
            assert "Training goes on, and the next save is tried as planned." in first
            assert ("; what was there before is untouched." in last) == (expected is not None)
            assert "\nHeld-out loss" in done.stdout  # what was learnt is shown all the same
        assert out.exists() == (expected is not None)
    run = checkpoint.load(out, corpus=CORPUS)
    assert run.losses == trained(4, 12).losses
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.safetensors", "words.txt"]


@unix
def test_a_reader_that_goes_away(words: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.safetensors"
    process = start("train", words, "--steps", "3000", "--out", out, "--json", *SMALL)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 1
    assert errors == ""
    assert checkpoint.load(out).step > 0


@unix
def test_an_encoding_without_bars_and_a_closed_output(saved: Path, words: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = start("sample", saved, "--probs", env=environment)
    shown, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert "> " in shown
    line = f"exec {sys.executable} -m microgpt train {words} --steps 2 {' '.join(SMALL)} >&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


# ---- On a terminal ----


class Terminal:
    """A process with a terminal of its own, and what it has shown."""

    def __init__(self, *arguments: str | Path, width: int = 100) -> None:
        import fcntl
        import struct
        import termios

        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "microgpt", *map(str, arguments)],
            stdin=slave, stdout=slave, stderr=slave, close_fds=True,
            env=environment | {"TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def read(self, until: str | None = None, seconds: float = 30) -> str:
        """All that is shown up to some words, or to the end."""
        end = time.monotonic() + seconds
        while until is None or until not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    new = os.read(self.master, 65536)
                except OSError:  # the end, as Linux says it
                    break
                if not new:
                    break
                self.shown += new.decode(errors="replace")
        return self.shown

    def close(self) -> int:
        self.read()
        os.close(self.master)
        return self.process.wait(30)


@unix
def test_a_bar_on_a_terminal(words: Path) -> None:
    terminal = Terminal("train", words, "--steps", "400", *SMALL, width=60)
    assert terminal.close() == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.shown)
    assert "━" in plain
    assert re.search(r"\d+/400  loss \d\.\d\d, mean \d\.\d\d  [\d.]+ s left", plain)
    assert re.search(r"step 100  loss \d\.\d{3}  held out \d\.\d{3}  \w", plain)
    assert "Held-out loss" in plain
    assert "\x1b[?25h" in terminal.shown  # the cursor is back


@unix
@pytest.mark.parametrize("answer", ["n", "y"])
def test_on_a_terminal_a_program_is_shown_and_asked_for(tmp_path: Path, answer: str) -> None:
    mark = tmp_path / "executed"
    place = tmp_path / "edited.safetensors"
    source = file.ORIGINAL + f"\nopen({str(mark)!r}, 'w').close()  # \x1b[2J\n"
    place.write_bytes(with_source(trained(1), source))
    terminal = Terminal("sample", place)
    shown = terminal.read(until="Run it?")
    assert "+open(" in shown
    assert "\x1b[2J" not in shown  # what would clear the screen is spelled out
    assert "\\x1b[2J" in shown
    assert not mark.exists()
    os.write(terminal.master, answer.encode() + b"\n")
    assert terminal.close() == (0 if answer == "y" else 1)
    assert ("Nothing was run." in terminal.shown) == (answer == "n")
    assert mark.exists() == (answer == "y")


# ---- sample ----


def test_sample(saved: Path) -> None:
    run = trained(40)
    said = command("sample", saved, "-n", "6", "--prefix", "a", "--seed", "2").stdout
    assert said.splitlines() == [t or "(nothing)" for t in run.sample(6, prefix="a", seed=2)]
    greedy = command("sample", saved, "--temperature", "0", "-n", "2").stdout.splitlines()
    assert greedy == run.sample(2, temperature=0)
    assert len(command("sample", saved).stdout.splitlines()) == 10
    assert command("sample", saved, "-n", "0").stdout == ""


def test_sample_knows_bundled_data(tmp_path: Path) -> None:
    place = tmp_path / "sort.safetensors"
    microgpt.save(microgpt.train("sort", steps=1, n_embd=4, n_head=1), place)
    run = microgpt.load(place)
    lines = command("sample", place, "--json", "-n", "4").stdout.splitlines()
    expected = [{"text": t, "known": run.knows(t)} for t in run.sample(4)]
    assert [json.loads(line) for line in lines] == expected


def test_sample_shows_probabilities(saved: Path) -> None:
    run = trained(40)
    (line,) = command("sample", saved, "--probs", "--json").stdout.splitlines()
    shown = json.loads(line)
    assert shown["known"] is None  # the data are not at hand
    (text,) = run.sample(1)
    assert shown["text"] == text
    assert "".join(step["token"] for step in shown["steps"]).removesuffix("\n") == text
    for step in shown["steps"]:
        assert sum(step["probs"].values()) == pytest.approx(1)
        assert list(step["probs"]) == run.vocab
    first = shown["steps"][0]
    bars = command("sample", saved, "--probs").stdout
    assert bars.startswith('after ""\n')
    best = max(first["probs"], key=first["probs"].get)
    share = first["probs"][best]
    row = next(row for row in bars.splitlines() if f" {cli.token(best)} " in row)
    assert f"{share:.1%}" in row
    assert row.count("█") == round(share * 40)
    assert bars.count("  > ") == len(shown["steps"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prefix", "axb"], "has 'x', which is not in this model's vocabulary: abc."),
        (["--prefix", "aaaaaaa"], "has 7 characters, and a context of 6 leaves room for 5"),
        (["--prefix", "a\nb"], "a line break, which marks the end of a document"),
        (["--temperature", "-1"], "it must be a number, 0 or more, not -1"),
        (["--temperature", "inf"], "it must be a number, 0 or more, not inf"),
        (["-n", "-1"], "it must be 0 or more, not -1"),
    ],
)
def test_impossible_samples(saved: Path, arguments: list[str], words: str) -> None:
    assert words in refused("sample", saved, *arguments, code=2)


def test_a_program_in_a_checkpoint_runs_only_when_trusted(tmp_path: Path) -> None:
    mark, place = tmp_path / "executed", tmp_path / "edited.safetensors"
    source = file.ORIGINAL + f"\nopen({str(mark)!r}, 'w').close()\n"
    place.write_bytes(with_source(trained(1), source))
    for arguments in (
        ["sample", place],
        ["xray", "--checkpoint", place],
        ["train", "--resume", place],
    ):
        said = refused(*arguments, code=1)
        assert "carries a program of its own, gpt.py with 2 lines added and 0 removed" in said
        assert f"microgpt source --diff --checkpoint {place}" in said
        assert not mark.exists()
    command("sample", place, "--trust")
    assert mark.exists()


# ---- xray ----


def test_xray_prints_every_line_in_order() -> None:
    said = command("xray", "anna").stdout
    run = Run()
    record = looked(run, "anna")
    assert said.startswith(f'One training step on "anna": 5 tokens in, loss {record["loss"]:.4f}')
    assert "\x1b" not in said
    code = file.ORIGINAL.splitlines()
    shown = re.findall(r"^ +(\d+)  (\S.*)$", said, re.MULTILINE)
    assert len(shown) > 40
    for number, text in shown:
        assert code[int(number) - 1].strip() == text
    names = re.findall(r"^ {7}(\w+) +\d+ x \d+", said, re.MULTILINE)
    for name in ("tokens", "x", "q", "scores", "weights", "hidden", "probs", "surprise", "loss"):
        assert name in names
    assert re.search(r"ids +0, 1, 14, 14, 1, 0", said)
    loss = re.search(r"^ {7}loss +1 x 1 +([\d.]+) +gradient +1 *$", said, re.MULTILINE)
    assert loss
    assert float(loss[1]) == pytest.approx(record["loss"], abs=0.01)
    assert "Not shown: leaves (29 calls), encode (1 call), adam (21 calls); --all" in said
    assert len(command("xray", "--all").stdout) > len(said)


def looked(run: Run, doc: str) -> dict[str, Any]:
    from microgpt.xray import xray

    return xray(
        run.source, doc, vocab=run.vocab, params=run.params, steps=run.steps, moments=run.moments
    )


def test_xray_in_full() -> None:
    said = command("xray", "anna", "--name", "weights").stdout
    assert said.count("weights, 5 x 5") == 8  # four heads, each with its gradient
    record = looked(Run(), "anna")
    value = next(v for v in record["values"] if v["name"] == "weights" and v["shape"] == [5, 5])
    rows = record["tensors"][value["tensor"]]["data"]
    table = said.split("weights, 5 x 5\n")[1].splitlines()
    assert table[0].split() == ["end", "a", "n", "n", "a"]
    for row, line in zip(rows, table[1:6], strict=True):
        label, *cells = line.split()
        assert label in ("end", "a", "n")
        assert [float(cell) for cell in cells] == pytest.approx(row, rel=0.01, abs=1e-9)
    line = command("xray", "--line", "101").stdout
    assert line.count("q, 5 x 4") == line.count("k, 5 x 4") == line.count("v, 5 x 4") == 8
    weight = command("xray", "--name", "blocks.0.heads.1.wq").stdout
    assert weight.count("16 x 4") == 2


def test_xray_as_json() -> None:
    record = json.loads(command("xray", "bo", "--json", "--seed", "3").stdout)
    expected = looked(Run(seed=3), "bo")
    assert record["loss"] == expected["loss"]
    assert len(record["values"]) == len(expected["values"])
    assert record["tensors"][40]["grad"] == expected["tensors"][40]["grad"]
    some = json.loads(command("xray", "bo", "--json", "--name", "scores").stdout)
    assert {value["name"] for value in some["values"]} == {"scores"}


def test_xray_of_a_trained_model_and_of_a_link(saved: Path, words: Path) -> None:
    said = command("xray", "abc", "--checkpoint", saved, "--json").stdout
    record = json.loads(said)
    assert (record["step"], record["data"]) == (39, "text")
    assert record["vocab"] == trained(1).vocab
    source = file.ORIGINAL.replace("n_layer=1", "n_layer=2")
    link = "#" + file.encode_link({"text": "bob", "seed": 7, "source": source})
    linked = json.loads(command("xray", "--link", link, "--trust", "--json").stdout)
    expected = looked(Run(source, seed=7), "bob")
    assert (linked["doc"], linked["seed"], linked["loss"]) == ("bob", 7, expected["loss"])


def test_xray_of_an_edit_that_fails_shows_all_before_it(tmp_path: Path) -> None:
    place = tmp_path / "mine.py"
    source = edited(place, "    return hidden @ proj", "    return hidden @ fc")
    result = command("xray", "--source", source, code=1)
    assert "  hidden " in result.stdout
    assert "and then an error" in result.stdout
    (said,) = result.stderr.splitlines()
    assert said.startswith(f"microgpt: {place}, line 109: These shapes do not fit together")


@pytest.mark.parametrize("width", [60, 120])
def test_xray_fits_the_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = command("xray", "anna").stdout.splitlines()[1:]
    assert max(len(line.rstrip()) for line in lines) <= width
    assert max(len(line.rstrip()) for line in lines) > width - 12


# ---- Words ----


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"), (-0.0, "0"), (1.0, "1"), (-0.0123456, "-0.0123"), (-0.00123, "-1.2e-3"),
        (12345.678, "1.2e+4"), (-12345.678, "-1.2e+4"), (1e300, "1.0e+300"), (math.inf, "inf"),
        (-math.inf, "-inf"), (math.nan, "nan"), (1e-30, "1.0e-30"), (-999.9, "-1e+3"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float, expected: str) -> None:
    assert cli.number(value) == expected
    if math.isfinite(value) and value:
        assert float(cli.number(value)) == pytest.approx(value, rel=0.05)


def test_shades_can_be_read() -> None:
    """White on each shade, by the contrast that WCAG 2.2 asks of text, 4.5 to 1."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    shades = [(cli.shade(x, 1.0), cli.shade(-x, 1.0)) for x in (0.1, 0.3, 0.6, 1.0)]
    assert shades[0] == ("", "")
    for pair in shades[1:]:
        for style in pair:
            words, _, colour = style.partition(" on ")
            assert words == "white"
            assert 1.05 / (light(colour) + 0.05) >= 4.5
    assert cli.shade(math.nan, 1.0) == cli.shade(-math.inf, 1.0) == "reverse"
    assert cli.shade(0.0, 0.0) == ""


def test_words() -> None:
    assert [cli.counted(n, "step") for n in (0, 1, 1200)] == ["0 steps", "1 step", "1,200 steps"]
    times = [cli.duration(s) for s in (0.04, 9.94, 59.4, 61, 3600, 7500)]
    assert times == ["0.0 s", "9.9 s", "59 s", "1 min 1 s", "1 h 0 min", "2 h 5 min"]
    assert cli.printable("a\x1b[2J\x07\u202eb é") == "a\\x1b[2J\\x07\\u202eb é"
    assert [cli.token(t) for t in ("\n", " ", "a", "\x00")] == ["end", "space", "a", "\\x00"]


# ---- The page that documents it ----

PYTHON = Path(__file__).resolve().parent.parent / "docs" / "PYTHON.md"


def alike(text: str) -> str:
    """A text without times and without the last digits, which versions of Python round apart."""
    text = re.sub(r"\d+\.\d{6,}", lambda found: f"{float(found[0]):.5f}", text)
    text = re.sub(r'"seconds": [\d.]+', "SECONDS", text)
    text = re.sub(r"(\d+ h )?(\d+ min )?\d+(\.\d)? (s|min)\b", "TIME", text)
    return "\n".join(line.rstrip() for line in text.rstrip("\n").split("\n"))


@pytest.mark.slow
def test_the_page_about_the_command_tells_the_truth(tmp_path: Path, monkeypatch: Any) -> None:
    """Every command of docs/PYTHON.md is run in order, and prints what stands under it."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```\n(\$ .*?)\n```$", PYTHON.read_text(), re.MULTILINE | re.DOTALL)
    ran = 0
    for part in re.split(r"^\$ ", "\n".join(blocks), flags=re.MULTILINE)[1:]:
        line, _, expected = part.partition("\n")
        program, *arguments = shlex.split(line)
        if program == "cat":
            Path(arguments[0]).write_text(expected)
            continue
        assert program == "microgpt"
        if ">" in arguments:
            edit = ("(x @ fc).relu()", "(x @ fc) * (x @ fc).relu()")
            edited(tmp_path / arguments[-1], *edit)
            continue
        result = click_testing.CliRunner().invoke(cli.main, arguments)
        printed, wanted = alike(result.output), alike(expected)
        start, cut, _ = wanted.partition("\n…")
        assert printed.startswith(start) if cut else printed == wanted, line
        ran += 1
    assert ran > 12


def test_the_page_about_python_tells_the_truth(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(>>> .*?)\n```$", PYTHON.read_text(), re.M | re.DOTALL)
    assert len(blocks) > 4
    names: dict[str, Any] = {}
    for block in blocks:
        test = doctest.DocTestParser().get_doctest(block + "\n", names, "PYTHON.md", None, 0)
        failures: list[str] = []
        doctest.DocTestRunner(verbose=False).run(test, out=failures.append, clear_globs=False)
        assert not failures, "".join(failures)
        names = test.globs


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory it uses")
def test_too_little_memory_is_said_in_a_sentence(words: Path) -> None:
    program = (
        "import resource, sys; from microgpt import cli, engines; engines.Fast;"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, resource.RLIM_INFINITY));"
        "sys.argv[0] = 'microgpt'; cli.main()"
    )
    sizes = ["--block-size", "1000", "--n-layer", "4"]
    command = [sys.executable, "-c", program, "train", str(words), "--steps", "2", *sizes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "memory" in done.stderr.splitlines()[-1]

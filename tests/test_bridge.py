"""The bridge: JSON in, JSON out, the same numbers as Python's own, and never an exception."""

from __future__ import annotations

import base64
import json
import random
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microgpt import bridge, checkpoint, source
from microgpt.run import Run

ORIGINAL = source.ORIGINAL
Answer = dict[str, Any]


def ask(name: str, /, **arguments: Any) -> Answer:
    answer: Answer = json.loads(bridge.call(name, json.dumps(arguments)))
    assert "ok" in answer, answer
    return answer["ok"]  # type: ignore[no-any-return]


def refused(name: str, /, **arguments: Any) -> Answer:
    answer: Answer = json.loads(bridge.call(name, json.dumps(arguments)))
    assert "error" in answer, "this should have been refused"
    assert answer["error"]["message"].strip()
    return answer["error"]  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "_session", bridge.Session())


def tiny() -> str:
    text = source.set_knob(ORIGINAL, "n_embd", 8)
    return source.set_knob(source.set_knob(text, "n_head", 2), "steps", 12)


def test_boot_tells_what_the_page_needs() -> None:
    boot = ask("boot")
    assert boot["source"] == ORIGINAL
    assert {"names", "copy", "reverse", "sort", "addition", "brackets", "recall"} == {
        d["name"] for d in boot["datasets"]
    }
    assert all(d["example"] and d["description"] for d in boot["datasets"])
    assert {k["name"] for k in boot["knobs"]} >= {
        "n_layer",
        "n_head",
        "n_embd",
        "block_size",
        "steps",
        "batch",
        "lr",
    }


def test_check_runs_nothing() -> None:
    text = ORIGINAL.replace("import math\n", "import math\nraise RuntimeError('it ran')\n")
    answer = ask("check", source=text)
    assert answer["problems"] == [] and "it ran" in answer["diff"]
    assert source.apply_edits(ORIGINAL, [tuple(e) for e in answer["edits"]]) == text  # type: ignore[misc]


def test_training_here_is_training_in_python() -> None:
    info = ask("start", source=tiny(), seed=3)
    run = Run(tiny(), seed=3)
    losses = ask("advance", budget_ms=0, max_steps=5)["losses"]
    assert len(losses) == 1  # at least one step, however small the budget
    losses += ask("advance", budget_ms=1e6, max_steps=4)["losses"]
    assert losses == [run.advance() for _ in range(5)]
    assert info["parameters"] == run.parameters and info["steps"] == 12
    assert ask("measure")["held_out"] == run.held_out_loss(bridge.HELD_OUT)
    assert ask("samples", n=3, seed=4)["texts"] == run.sample(3, seed=4)
    done = ask("advance", budget_ms=1e6)
    assert done["done"] and done["step"] == 12 and ask("advance")["losses"] == []


def test_sampling_token_by_token_gives_the_probabilities_of_each_choice() -> None:
    ask("start", source=tiny(), seed=3)
    step = ask("sample_start", prefix="a", temperature=0.8, seed=1)
    run = Run(tiny(), seed=3)
    for text, probs in run.sample_steps("a", 0.8, random.Random(1)):
        step = ask("sample_next")
        assert step["text"] == text and step["probs"] == probs
        assert abs(sum(probs) - 1) < 1e-9
    assert step["done"]


def test_peek_shows_the_attention_of_every_head_and_where_tokens_lie() -> None:
    text = source.set_knob(tiny(), "n_layer", 2)
    ask("start", source=text)
    seen = ask("peek", doc="anna")
    assert [(a["layer"], a["head"]) for a in seen["attention"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for head in seen["attention"]:
        for i, row in enumerate(head["weights"]):
            assert abs(sum(row) - 1) < 1e-4 and all(w == 0 for w in row[i + 1 :])
    assert {e["name"] for e in seen["embeddings"]} == {"wte", "wpe"}
    assert len(seen["projection"]["points"]) == 27
    assert 0 < sum(seen["projection"]["explained"]) <= 1


def test_projection_agrees_with_a_singular_value_decomposition() -> None:
    numpy = pytest.importorskip("numpy")
    ask("start", source=tiny())
    seen = ask("peek", doc="a")
    rows = numpy.array(next(e for e in seen["embeddings"] if e["name"] == "wte")["rows"])
    _, sizes, axes = numpy.linalg.svd(rows - rows.mean(0), full_matrices=False)
    points = numpy.array(seen["projection"]["points"])
    again = numpy.array(ask("peek", doc="a")["projection"]["points"])
    assert numpy.allclose(again, points, atol=1e-4)  # and the next picture is not mirrored
    expected = (rows - rows.mean(0)) @ axes[:2].T
    assert numpy.allclose(numpy.abs(points), numpy.abs(expected), atol=2e-3)
    assert numpy.allclose(
        seen["projection"]["explained"], (sizes**2 / (sizes**2).sum())[:2], atol=1e-3
    )


def test_the_xray_of_the_running_model_is_of_the_running_model() -> None:
    ask("start", source=tiny(), seed=3)
    fresh = ask("xray", source=tiny(), doc="anna", model="fresh", seed=3)
    assert ask("xray", source=tiny(), doc="anna", model="run")["loss"] == fresh["loss"]
    ask("advance", budget_ms=1e6, max_steps=8)
    assert ask("xray", source=tiny(), doc="anna", model="run")["loss"] != fresh["loss"]
    assert ask("xray", source=tiny(), doc="anna", model="fresh", seed=3)["loss"] == fresh["loss"]


def test_a_checkpoint_from_the_page_loads_in_python() -> None:
    ask("start", source=ORIGINAL, seed=3)
    loss = ask("advance", budget_ms=0)["losses"][0]
    saved = ask("checkpoint")
    run = checkpoint.loads(base64.b64decode(saved["base64"]))
    assert run.step == 1 and run.losses == [loss]


def test_links_go_both_ways() -> None:
    state = {"text": "anna", "seed": 7, "source": tiny()}
    assert ask("unlink", text=ask("link", state=state)["text"])["state"] == state


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("nonsense", {}, "does not know"),
        ("advance", {}, "No training run"),
        ("start", {"source": "x = ("}, "never closed"),
        ("start", {"source": ORIGINAL, "data": "nmaes"}, "names"),
        ("start", {"source": ORIGINAL, "data": "\n\n"}, ""),
        ("start", {"source": ORIGINAL.replace("n_head=4", "n_head=3")}, "divide|heads"),
        ("start", {"source": ORIGINAL.replace("n_embd=16", "n_embd=0")}, ""),
        ("xray", {"source": ORIGINAL, "doc": "Anna"}, "'A' is not in the vocabulary"),
        (
            "xray",
            {"source": ORIGINAL, "doc": "<script>alert(1)</script>"},
            "'<' is not in the vocabulary",
        ),
        ("set_knob", {"source": ORIGINAL, "name": "lr", "value": "much"}, ""),
        ("unlink", {"text": "edit=%%%"}, "This link"),
        ("samples", {"temperature": -1}, "No training run"),
    ],
)
def test_what_cannot_be_is_refused_in_words(name: str, arguments: Answer, words: str) -> None:
    import re

    assert re.search(words, refused(name, **arguments)["message"])


@pytest.mark.parametrize("prefix", ["é", "a" * 40, "a\nb"])
def test_a_prefix_that_cannot_be_read(prefix: str) -> None:
    ask("start", source=tiny())
    assert "prefix" in refused("sample_start", prefix=prefix)["message"]


def test_a_program_that_exits_or_raises_is_an_answer() -> None:
    for line in ("raise SystemExit", "1 / 0", "raise RuntimeError('no')", "[].pop()"):
        text = ORIGINAL.replace(
            "    hidden = (x @ fc).relu()  # (T, 4C)", f"    {line}\n    hidden = x @ fc"
        )
        record = ask("xray", source=text, doc="a")
        assert "    " + line == text.splitlines()[record["error"]["line"] - 1]


def test_a_diverging_run_is_reported_and_keeps_its_last_good_weights() -> None:
    text = source.set_knob(tiny(), "lr", 1e300)
    ask("start", source=text)
    assert "learning rate" in refused("advance", budget_ms=1e6)["message"]


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_question_gets_an_answer(name: str, arguments: str) -> None:
    assert set(json.loads(bridge.call(name, arguments))) <= {"ok", "error"}


@given(
    st.sampled_from(bridge.CALLS),
    st.dictionaries(
        st.sampled_from(["source", "doc", "text", "name", "value", "n"]),
        st.none() | st.integers() | st.text(max_size=9),
        max_size=3,
    ),
)
def test_any_arguments_get_an_answer(name: str, arguments: Answer) -> None:
    bridge._session = bridge.Session()
    assert set(json.loads(bridge.call(name, json.dumps(arguments)))) <= {"ok", "error"}


def test_a_short_recording_is_real_and_small(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording of a run cut to 40 steps; the build makes the same of 1,000."""
    monkeypatch.setattr(source, "ORIGINAL", source.set_knob(ORIGINAL, "steps", 40))
    assert bridge.main(["record", str(tmp_path / "recording.bin")]) == 0
    packed = (tmp_path / "recording.bin").read_bytes()
    recording = json.loads(zlib.decompress(packed, -15))
    assert len(packed) <= 60_000
    run = Run(source.ORIGINAL)
    assert [p["loss"] for p in recording["losses"][:3]] == [
        float(f"{run.advance():.3g}") for _ in range(3)
    ]
    assert recording["xray"]["error"] is None and len(recording["samples"]) >= 10
    trained = base64.b64encode((tmp_path / bridge.TRAINED).read_bytes()).decode()
    monkeypatch.setattr(checkpoint, "ORIGINAL", source.ORIGINAL)
    assert ask("adopt", base64_text=trained)["step"] == 40
    seen = ask("xray", source=source.ORIGINAL, doc="anna", model="run")
    assert float(f"{seen['loss']:.3g}") == recording["xray"]["loss"]
    ask("sample_start", temperature=1.0, seed=7)
    assert ask("sample_next")["text"] == recording["sampling"][1]["text"]


def test_a_foreign_model_is_refused() -> None:
    assert "model that came with the page" in refused("adopt", base64_text="AAAA")["message"]

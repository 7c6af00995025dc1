"""Checks of the core that need no pytest, so that they also run in the browser's Python.

`test_pyodide.py` runs each of them natively and in the Python that the page starts. A check that
returns something returns numbers or texts, which must be the same in both.
"""

from __future__ import annotations

import json
import math
import random
import traceback
from typing import Any

from microgpt import bridge, checkpoint, data, gpt, source, xray
from microgpt.run import Run

SIZES = {"n_layer": 1, "n_head": 2, "n_embd": 4, "block_size": 6}
DOCS = ["anna", "emma", "noor", "li", "ada", "otto", "mia", "ravi", "zoe", "ken"]


def ask(name: str, /, **arguments: Any) -> Any:
    """What the bridge answers."""
    answer = json.loads(bridge.call(name, json.dumps(arguments)))
    assert "ok" in answer, answer
    return answer["ok"]


def refused(name: str, /, **arguments: Any) -> Any:
    """The error that the bridge answers."""
    answer = json.loads(bridge.call(name, json.dumps(arguments)))
    assert "error" in answer, answer
    return answer["error"]


def small() -> tuple[list[str], dict[str, Any]]:
    """A small model of the file, not trained."""
    vocab = gpt.vocabulary(DOCS)
    return vocab, gpt.init(random.Random(1), len(vocab), **SIZES)


def loss_of(params: dict[str, Any], vocab: list[str], doc: str = "anna") -> Any:
    """The file's loss on a document."""
    ids = gpt.encode(doc, vocab)
    targets = gpt.Tensor([[float(j == t) for j in range(len(vocab))] for t in ids[1:]])
    return gpt.cross_entropy(gpt.gpt(ids[:-1], **params), targets)


def check_gradients() -> None:
    """The gradient of every weight against a finite difference."""
    vocab, params = small()
    gpt.backward(loss_of(params, vocab))
    worst, h = 0.0, 1e-5
    for weight in gpt.leaves(params):
        for i, row in enumerate(weight.data):
            for j, x in enumerate(row):
                grad = weight.grad[i][j] if weight.grad else 0.0
                weight.data[i][j] = x + h
                above = loss_of(params, vocab).data[0][0]
                weight.data[i][j] = x - h
                below = loss_of(params, vocab).data[0][0]
                weight.data[i][j] = x
                worst = max(worst, abs((above - below) / (2 * h) - grad))
    assert worst < 1e-6, worst


def check_causality() -> None:
    """A later token changes no earlier row of the logits."""
    vocab, params = small()
    ids = gpt.encode("anna", vocab)
    before = gpt.gpt(ids, **params).data
    ids[3] = (ids[3] + 1) % len(vocab)
    after = gpt.gpt(ids, **params).data
    assert before[:3] == after[:3]
    assert before[3] != after[3]


def check_first_loss() -> float:
    """An untrained model is about as surprised as a fair die with a side for each token."""
    run = Run(seed=3)
    loss = run.held_out_loss(20)
    assert abs(loss - math.log(len(run.vocab))) < 0.15
    return loss


def check_training() -> list[float]:
    """Twelve steps on the names."""
    run = Run(seed=42)
    return [run.advance() for _ in range(12)]


def check_learning() -> None:
    """The loss falls."""
    corpus = data.load("\n".join(DOCS))
    run = Run(source.ORIGINAL, corpus, seed=1, steps=200)
    losses = [run.advance() for _ in range(200)]
    assert sum(losses[-20:]) < 0.75 * sum(losses[:20]), (losses[:3], losses[-3:])


def check_sampling() -> list[str]:
    """Texts of a run of a few steps."""
    run = Run(seed=7, steps=5)
    for _ in range(5):
        run.advance()
    return run.sample(5, temperature=0.8, seed=2)


def check_checkpoint() -> list[float]:
    """A run that was saved and read again goes on to the same losses."""
    run = Run(seed=5, steps=20)
    for _ in range(3):
        run.advance()
    again = checkpoint.loads(checkpoint.dumps(run))
    ours, theirs = [run.advance() for _ in range(3)], [again.advance() for _ in range(3)]
    assert ours == theirs
    return ours


def check_corpora() -> list[list[Any]]:
    """Every data set loads, and splits in the same way everywhere."""
    found: list[list[Any]] = []
    for name in data.DATASETS:
        corpus = data.load(name)
        train, held_out = data.split(corpus.docs)
        assert train
        assert not set(train) & set(held_out)
        found.append([name, data.fingerprint(corpus.docs), len(train), data.fingerprint(held_out)])
    return found


def check_xray() -> list[Any]:
    """The x-ray of a step, with a line of the file for every tensor that was computed."""
    vocab, params = small()
    seen = xray.xray(source.ORIGINAL, "anna", vocab=vocab, params=params)
    assert seen["error"] is None, seen["error"]
    assert seen["values"]
    lines = len(source.ORIGINAL.splitlines())
    made = [tensor for tensor in seen["tensors"] if tensor["parents"]]
    assert made
    assert all(1 <= tensor["line"] <= lines for tensor in made)
    shapes = [tensor["shape"] for tensor in seen["tensors"]]
    return [len(seen["tensors"]), len(seen["values"]), len(seen["calls"]), shapes]


def check_pack() -> list[Any]:
    """A run for the page's kernel: as it is made the first time, and with another number."""
    edit = source.ORIGINAL.replace("lr=0.01", "lr=0.02")
    told = []
    for program in (source.ORIGINAL, edit, source.ORIGINAL.replace("relu()", "exp()")):
        assert ask("pack", source=program) == {"refused": None, "large": False}
        content = bridge.parcel()
        assert content is not None
        length = int.from_bytes(content[4:8], "little")
        facts = json.loads(content[8 : 8 + length])
        told += [len(content), facts["train"]["lines"], facts["places"], facts["run"]["lr"]]
    return told


def check_bridge() -> list[Any]:
    """A visit: look, edit, train, measure, sample, share."""
    boot = ask("boot")
    assert boot["source"] == source.ORIGINAL
    knob = boot["knobs"][0]["name"]
    edited = ask("set_knob", source=source.ORIGINAL, name=knob, value=2)["source"]
    checked = ask("check", source=edited)
    assert checked["problems"] == []
    assert checked["diff"]
    about = ask("start", source=source.ORIGINAL, seed=42)
    advance = ask("advance", budget_ms=10_000, max_steps=4)
    assert advance["step"] == 4
    assert not advance["done"]
    measured = ask("measure", limit=5)
    texts = ask("samples", n=3, seed=1)["texts"]
    ask("sample_start", prefix="an", temperature=1.0, seed=1)
    character = ask("sample_next")
    assert abs(sum(character["probs"]) - 1) < 1e-5  # they travel with six digits
    link = ask("link", state={"source": edited, "seed": 3})["text"]
    assert ask("unlink", text=link)["state"]["source"] == edited
    assert ask("checkpoint")["base64"]
    return [about["parameters"], advance["losses"], measured["held_out"], texts, character["text"]]


def check_mistakes() -> list[Any]:
    """An edit that is wrong is told with its line, whatever kind of wrong it is."""
    lines = source.ORIGINAL.splitlines()
    at = next(i for i, line in enumerate(lines) if "return hidden @ proj" in line)
    told = []
    for wrong in (
        "return hidden @ @",
        "return hidden @ nothing",
        "return hidden @ fc",
        "return mlp(x, fc, proj)",
    ):
        text = "\n".join([*lines[:at], "    " + wrong, *lines[at + 1 :]])
        problems = ask("check", source=text)["problems"]
        if problems:
            told.append([problems[0]["line"], problems[0]["message"]])
            continue
        seen = ask("xray", source=text, doc="anna", seed=1)
        assert seen["error"], wrong
        told.append([seen["error"]["line"], seen["error"]["message"]])
    here = at + 1
    assert [line for line, _ in told[:3]] == [here] * 3, told
    assert told[3][0] in (here - 1, here), told  # where a recursion ends is up to the interpreter
    refused("start", source="x = 1\n")
    return [message for _, message in told]


CHECKS = {name: check for name, check in globals().items() if name.startswith("check_")}


def outcomes() -> str:
    """Every check's result, or how it failed, as JSON."""
    found: dict[str, Any] = {}
    for name, check in CHECKS.items():
        try:
            found[name] = {"result": check()}
        except BaseException:
            found[name] = {"failed": traceback.format_exc()}
    return json.dumps(found)

"""The walk's exercises: several right answers pass, plausible wrong ones fail in useful words."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from microgpt.errors import MicrogptError
from microgpt.lessons import exercises
from microgpt.source import ORIGINAL

Change = tuple[str, str]

HIDDEN = "    hidden = (x @ fc).relu()  # (T, 4C)"
POSITION = "x = tokens + wpe[: tokens.shape[-2]]"
SOFTMAX = "weights = softmax(scores + future)"
SCALED = "scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5"
SQUARE = "    mean_square = (x * x).sum(-1, keepdim=True) / x.shape[-1]"
NORMED = "    return x * (mean_square + 1e-5) ** -0.5"
MEAN = "    mean = x.sum(-1, keepdim=True) / x.shape[-1]\n"
UPDATE = "w.data[i] = [a - lr * b for a, b in zip(w.data[i], move)]"
MOVE = "move = [a / c1 / (math.sqrt(b / c2) + eps) for a, b in zip(m[i], v[i])]"
CLEARED = "    w.grad = []  # the next step starts from nothing\n"
SIZE = "lr * (1 - step / steps))  # ever smaller steps"
DRAWN = "text += rng.choices(vocab, probs)[0]"
TEMPERATURE = "[-1:] / temperature"

RIGHT: dict[str, list[list[Change]]] = {
    "mend-gradient": [
        [("a < 0", "a > 0")],
        [("a < 0", "a >= 0")],
        [("a < 0", "1 if a > 0 else 0")],
        [("(max(a, 0.0), a < 0)", "(a, 1) if a > 0 else (0.0, 0)")],
    ],
    "no-positions": [
        [(POSITION, "x = tokens")],
        [(POSITION, "x = wte[ids]")],
        [(POSITION, "x = tokens + wpe[: tokens.shape[-2]] * 0")],
        [(POSITION, "x = tokens + wpe[[0] * tokens.shape[-2]]")],  # the same place for all
    ],
    "uniform-attention": [
        [(SOFTMAX, "weights = softmax(future)")],
        [(SOFTMAX, "weights = softmax(scores * 0 + future)")],
        [(SOFTMAX, "weights = softmax(scores - scores + future)")],
        [(SCALED, "scores = q @ k.transpose(-2, -1) * 0")],
        [(SCALED, "scores = q @ k.transpose(-2, -1) * 0 + 7")],
        [("return weights @ v @ wo", "return softmax(future) @ v @ wo")],
    ],
    "squared-relu": [
        [(HIDDEN, "    hidden = (x @ fc).relu() ** 2")],
        [(HIDDEN, "    hidden = (x @ fc).relu()\n    hidden = hidden * hidden")],
        [(HIDDEN, "    hidden = (x @ fc).relu() * (x @ fc)")],
        [("return hidden @ proj", "return (hidden * hidden) @ proj")],
        [("(max(a, 0.0), a > 0)", "(max(a, 0.0) ** 2, 2 * max(a, 0.0))")],
    ],
    "layer-norm": [
        [(SQUARE, MEAN + "    x = x - mean\n" + SQUARE)],
        [(SQUARE, "    x = x - x.sum(-1, keepdim=True) / x.shape[-1]\n" + SQUARE)],
        [
            (SQUARE, MEAN + "    c = x - mean\n" + SQUARE.replace("(x * x)", "(c * c)")),
            (NORMED, NORMED.replace("return x", "return c")),
        ],
        [  # the mean square of the difference is the mean square less the square of the mean
            (SQUARE, MEAN + SQUARE + " - mean * mean"),
            (NORMED, NORMED.replace("return x", "return (x - mean)")),
        ],
    ],
    "sgd": [
        [(UPDATE, "w.data[i] = [a - lr * g for a, g in zip(w.data[i], grad)]")],
        [(MOVE, "move = grad")],
        [(UPDATE, "w.data[i] = [a + -g * lr for a, g in zip(w.data[i], w.grad[i])]")],
        [(
            "adam(w, m, v, step + 1, lr * (1 - step / steps))",
            "w.data = add(w.data, mul(w.grad, [[-lr * (1 - step / steps)] * w.shape[1]] * "
            "w.shape[0])); w.grad = []",
        )],
    ],
    "warmup": [
        [(SIZE, "lr * min((step + 1) / 100, 1 - step / steps))")],
        [(SIZE, "lr * min(1, (step + 1) / 100) * (1 - step / steps))")],
        [(SIZE, "lr * (step / 100 if step < 100 else (steps - step) / (steps - 100)))")],
        [(SIZE, "lr * min(1, step / 100) * 0.5 * (1 + math.cos(math.pi * step / steps)))")],
        [("    c1, c2 = 1", "    lr = lr * min(1, step / 100)\n    c1, c2 = 1")],  # in adam itself
    ],
    "temperature-greedy": [
        [(DRAWN, "text += vocab[probs.index(max(probs))]")],
        [(DRAWN, "text += max(zip(probs, vocab))[1]")],
        [(DRAWN, "text += vocab[max(range(len(probs)), key=probs.__getitem__)]")],
        [(DRAWN, "text += rng.choices(vocab, [p == max(probs) for p in probs])[0]")],
        [(TEMPERATURE, "[-1:] / 1e-9")],
    ],
}  # fmt: skip

WRONG: dict[str, list[tuple[list[Change], str]]] = {
    "mend-gradient": [
        ([], "way back is wrong"),
        ([("a < 0", "a * 0 + 1")], "way back is wrong"),
        ([("a < 0", "a > 0"), ("math.log(a), 1 / a", "math.log(a), -1 / a")], "way back is wrong"),
        ([("(max(a, 0.0), a < 0)", "(min(a, 0.0), a < 0)")], "only the way back"),
        ([("a < 0", "b > 0")], "'b' is not defined"),
    ],
    "no-positions": [
        ([], "still knows where they stand"),
        ([(POSITION, "x = tokens * 0")], "no longer depends on which tokens"),
        ([(POSITION, "x = wpe[: tokens.shape[-2]]")], "no longer depends"),
        ([(POSITION, "x = tokens"), (SOFTMAX, "weights = softmax(scores)")], "future must stay"),
        ([(POSITION, "x = tokens * 2")], "Something else has changed"),
        ([("std=0.08", "std=0.0")], "still knows where they stand"),
        ([(POSITION, "x = token")], "'token' is not defined"),
    ],
    "uniform-attention": [
        ([], "so the shares are not equal"),
        ([(SOFTMAX, "weights = softmax((scores + future) * 0)")], "not a number"),
        ([(SOFTMAX, "weights = softmax(scores * 0)")], "read the future"),
        ([(SOFTMAX, "weights = softmax(scores * 0.5 + future)")], "so the shares are not equal"),
        ([("triu(1)", "triu(0)"), (SOFTMAX, "weights = softmax(future)")], "not a number"),
        ([("return weights @ v @ wo", "return v @ wo")], "does not get their mean"),
        ([("return weights @ v @ wo", "return weights @ v")], "should return"),
        ([(SOFTMAX, "weights = soft(future)")], "'soft' is not defined"),
    ],
    "squared-relu": [
        ([], "still what relu gives"),
        ([(HIDDEN, "    hidden = ((x @ fc) ** 2).relu()")], "negative cell must stay zero"),
        ([(HIDDEN, "    hidden = (x @ fc).relu() * 2")], "only the line with relu"),
        ([(HIDDEN, "    hidden = (x @ fc).relu() ** 3")], "only the line with relu"),
        ([("(max(a, 0.0), a > 0)", "(max(a, 0.0) ** 2, a > 0)")], "way back is wrong"),
        ([(HIDDEN, "    hidden = (x @ fc).square()")], "A Tensor has no square"),
    ],
    "layer-norm": [
        ([], "should have the mean zero"),
        (
            [(SQUARE, MEAN + SQUARE), (NORMED, NORMED.replace("return x", "return (x - mean)"))],
            "Take it of the difference",
        ),
        ([(NORMED, "    y = x * (mean_square + 1e-5) ** -0.5\n    return y - 1")], "mean zero"),
        ([(SQUARE, "    x = x - x.sum(-1, keepdim=True) / x.shape[-1]\n" + SQUARE),
          (" + 1e-5", "")], "divided by zero"),
        ([(NORMED, "    return mean_square")], "should return"),
    ],
    "sgd": [
        ([], "by lr times their gradient, and by that alone"),
        ([(UPDATE, "w.data[i] = [a + lr * g for a, g in zip(w.data[i], grad)]")], "uphill"),
        ([(UPDATE, "w.data[i] = [a - g for a, g in zip(w.data[i], grad)]")], "lr times"),
        ([(UPDATE, "pass")], "do not move"),
        ([(MOVE, "move = grad"), (CLEARED, "")], "clear w.grad"),
        ([(MOVE, "move = m[i]")], "lr times"),
    ],
    "warmup": [
        ([], "largest step is step 1"),
        ([(SIZE, "lr * min(1, (step + 1) / 10) * (1 - step / steps))")], "near step 100"),
        ([(SIZE, "lr * min(1, (step + 1) / 100))")], "should fall"),
        ([(SIZE, "lr * 2 * min(1, (step + 1) / 100) * (1 - step / steps))")], "than it"),
        ([(SIZE, "lr * (1 if step == 100 else 0.2) * (1 - step / steps))")], "bit by bit"),
        ([(SIZE, "lr * ((step + 1) / steps))")], "near step 100"),
    ],
    "temperature-greedy": [
        ([], "chance still decides"),
        ([(TEMPERATURE, "[-1:] / 0.5")], "chance still decides"),
        ([(DRAWN, "text += vocab[probs.index(min(probs))]")], "likeliest characters would give"),
        ([(DRAWN, "text = vocab[probs.index(max(probs))]")], ""),
        ([(DRAWN, "text += vocab[max(probs)]")], "indices must be integers"),
        ([(DRAWN, "text += vocab[0]")], "likeliest characters would give"),
    ],
}  # fmt: skip


def edited(name: str, changes: list[Change]) -> str:
    source = exercises.EXERCISES[name].start or ORIGINAL
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} is there {source.count(old)} times"
        source = source.replace(old, new)
    return source


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name} {i}")
        for name, listed in table.items()
        for i, case in enumerate(listed)
    ]


@pytest.mark.parametrize(("name", "changes"), cases(RIGHT))
def test_any_right_answer_passes(name: str, changes: list[Change]) -> None:
    found = exercises.check(name, edited(name, changes))
    assert found["done"], [r["message"] for r in found["results"] if not r["ok"]]
    assert all(r["line"] is None and r["message"].endswith(".") for r in found["results"])


@pytest.mark.parametrize(("name", "case"), cases(WRONG))
def test_a_wrong_answer_fails_in_useful_words(name: str, case: tuple[list[Change], str]) -> None:
    changes, words = case
    source = edited(name, changes)
    found = exercises.check(name, source)
    said = [r["message"] for r in found["results"] if not r["ok"]]
    assert not found["done"] and any(words in message for message in said), said
    lines = source.splitlines()
    for result in found["results"]:
        assert result["line"] is None or lines[result["line"] - 1].strip()


def test_every_exercise_is_tried_right_and_wrong() -> None:
    checked = {name for name, e in exercises.EXERCISES.items() if e.how != "line"}
    assert checked == set(RIGHT) == set(WRONG)


@pytest.mark.parametrize("name", list(exercises.EXERCISES))
def test_the_solution_is_one_and_the_start_is_not(name: str) -> None:
    exercise = exercises.EXERCISES[name]
    lines = ORIGINAL.splitlines()
    assert exercise.focus == sorted(exercise.focus) and exercise.focus
    if exercise.how == "line":
        assert exercise.truth and set(exercise.truth) <= set(exercise.focus)
        assert not exercise.solution and exercise.start is None
        return
    assert not exercise.truth
    assert (exercise.start is not None) == (exercise.how == "mend")
    assert not exercises.check(name, exercise.start or ORIGINAL)["done"]
    assert exercises.check(name, exercise.solved)["done"]
    assert exercise.solution.startswith("--- gpt.py\n+++ gpt.py, edited\n@@")
    touched = [int(n) for n in re.findall(r"^@@ -(\d+)", exercise.solution, re.M)]
    assert all(first <= max(exercise.focus) <= len(lines) for first in touched)


@pytest.mark.parametrize("name", [n for n, e in exercises.EXERCISES.items() if e.how != "line"])
@pytest.mark.parametrize(
    ("source", "words", "line"),
    [
        ("x = (", "never closed", 1),
        ("", "needs something called", 1),
        (ORIGINAL + "\nraise SystemExit\n", "asked Python to stop", 184),
        (ORIGINAL + "\n1 / 0\n", "divided by zero", 184),
        (ORIGINAL.replace("def softmax(x):", "def softmax(x, y):"), "missing 1 required", None),
        (ORIGINAL.replace("return norm(x) @ lm_head", "return 7"), "", None),
        (ORIGINAL.replace("yield total", "return"), "", None),
        (ORIGINAL.replace("def leaves(tree):", "def leaves(tree):\n    return []"), "", None),
        (ORIGINAL.replace("n_head=4, n_embd=16", "n_head=4"), "", None),
    ],
)
def test_whatever_a_program_does_is_an_answer(
    name: str, source: str, words: str, line: int | None
) -> None:
    found = exercises.check(name, source)
    failed = [r for r in found["results"] if not r["ok"]]
    if words:
        assert failed
    if line is not None:
        assert words in failed[0]["message"] and failed[0]["line"] == line
    assert all(isinstance(r["message"], str) and r["message"] for r in found["results"])


def test_what_is_no_exercise_is_refused_in_words() -> None:
    with pytest.raises(MicrogptError, match="no exercise called 'x'"):
        exercises.check("x", ORIGINAL)
    with pytest.raises(MicrogptError, match="a line is chosen"):
        exercises.check("loss-line", ORIGINAL)


def test_the_planted_bug_is_one_that_training_hides() -> None:
    """After 300 steps the loss is as good as the right program's; the gradients are far off."""
    found = exercises.measure_mend(300)
    assert abs(found["wrong"] - found["right"]) < 0.05
    assert abs(found["wrong_held_out"] - found["right_held_out"]) < 0.05
    assert found["relative"] > 0.5


def test_no_check_looks_at_the_text_of_a_program() -> None:
    """The reader's source is run, and asked for line numbers; its words are never compared."""
    tree = ast.parse(Path(exercises.__file__).read_text(encoding="utf-8"))
    checks = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    for name, exercise in exercises.EXERCISES.items():
        if exercise.check is not None:
            body = checks[exercise.check.__name__]
            texts = [
                n for n in ast.walk(body) if isinstance(n, ast.Attribute) and n.attr == "source"
            ]
            assert not texts, name

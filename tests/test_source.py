"""The file as data: sections, knobs, anchors, edits, links, and plain words for what goes wrong."""

from __future__ import annotations

import ast
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microgpt import source
from microgpt.errors import MicrogptError

ORIGINAL = source.ORIGINAL


def edited(old: str, new: str) -> str:
    assert ORIGINAL.count(old) == 1, f"the file no longer has exactly one: {old}"
    return ORIGINAL.replace(old, new)


def test_sections_cover_every_line_once_and_in_order() -> None:
    parts = source.sections(ORIGINAL)
    assert [p.name for p in parts] == [
        "Head",
        "Tokenizer",
        "Autograd",
        "Model",
        "Training",
        "Sampling",
        "Main",
    ]
    lines = [n for p in parts for n in range(p.first, p.last + 1)]
    assert lines == list(range(1, len(ORIGINAL.splitlines()) + 1))


def test_sections_of_any_text_cover_it() -> None:
    for text in ("", "\n", "x = 1", "# ---- Only ----\nx = 1"):
        parts = source.sections(text)
        assert parts[0].first == 1 and parts[-1].last == max(len(text.splitlines()), 1)


def test_functions_agree_with_pythons_own_parser() -> None:
    found = {f.name: (f.first, f.last) for f in source.functions(ORIGINAL)}
    for node in ast.parse(ORIGINAL).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert found[node.name] == (node.lineno, node.end_lineno)
    assert "Tensor.__matmul__" in found
    assert next(f for f in source.functions(ORIGINAL) if f.name == "attention").section == "Model"


def test_knobs_are_the_numeric_defaults() -> None:
    values = {k.name: k.value for k in source.knobs(ORIGINAL)}
    for name, value in {
        "n_layer": 1,
        "n_head": 4,
        "n_embd": 16,
        "block_size": 16,
        "steps": 1000,
        "lr": 0.01,
    }.items():
        assert values[name] == value
    for knob in source.knobs(ORIGINAL):
        line = ORIGINAL.splitlines()[knob.line - 1]
        assert ast.literal_eval(line[knob.column - 1 : knob.end_column - 1]) == knob.value


@given(st.sampled_from(source.knobs(ORIGINAL)), st.integers(1, 10**6))
def test_turning_a_knob_changes_that_number_and_nothing_else(knob: source.Knob, value: int) -> None:
    turned = source.set_knob(ORIGINAL, f"{knob.function}.{knob.name}", value)
    before = {(k.function, k.name): k.value for k in source.knobs(ORIGINAL)}
    after = {(k.function, k.name): k.value for k in source.knobs(turned)}
    assert after == before | {(knob.function, knob.name): value}
    assert len(source.edits(ORIGINAL, turned)) <= 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("colour", 1, "no number called colour"),
        ("n_head", 2.5, "whole number"),
        ("lr", float("nan"), "must be a number"),
    ],
)
def test_a_knob_that_cannot_be_turned_so_says_why(name: str, value: float, words: str) -> None:
    with pytest.raises(MicrogptError, match=words):
        source.set_knob(ORIGINAL, name, value)


def test_anchors_find_one_line_by_scope_and_words() -> None:
    line = source.anchor(
        ORIGINAL,
        "attention",
        "weights = softmax(scores + future)  # (T, T), the future weighs nothing",
    )
    assert "softmax(scores" in ORIGINAL.splitlines()[line - 1]
    with pytest.raises(MicrogptError, match="no line in attention"):
        source.anchor(ORIGINAL, "attention", "weights = 1")
    with pytest.raises(MicrogptError, match="no nonsense"):
        source.anchor(ORIGINAL, "nonsense", "x")


# ---- Problems, before anything runs ----


def test_the_original_has_no_problem() -> None:
    assert source.problems(ORIGINAL) == []


@pytest.mark.parametrize(
    ("old", "new", "line_of", "words"),
    [
        ("def mlp(x, fc, proj):", "def mlp(x, fc, proj)", "def mlp", "expected ':'"),
        ("(x @ fc).relu()", "(x @ fc.relu()", "hidden = ", "never closed"),
        ("e.sum(-1, keepdim=True)", "e.sum(-2, keepdim=True)", "return e / e.sum", "no other"),
        (".triu(1)", ".triu(2)", "future = ", "no other"),
        ("k.transpose(-2, -1)", "k.transpose(0, 1)", "scores = q @", "no other"),
    ],
)
def test_a_problem_is_named_at_its_line(old: str, new: str, line_of: str, words: str) -> None:
    text = edited(old, new)
    problem = source.problems(text)[0]
    assert words in problem.message
    assert text.splitlines()[problem.line - 1].strip().startswith(line_of)


def test_a_source_without_a_needed_function_says_which() -> None:
    text = edited("def sample(", "def draw(")
    assert any("sample" in problem.message for problem in source.problems(text))


@given(st.text(max_size=300))
def test_any_text_at_all_is_checked_without_an_exception(text: str) -> None:
    for problem in source.problems(text):
        assert problem.message and problem.line >= 1


# ---- Failures, in plain words at the reader's line ----


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("return weights @ v @ wo", "return weights @ wo", "do not fit"),
        (
            "    hidden = (x @ fc).relu()  # (T, 4C)",
            "    hidden = (x @ fc).gelu()",
            "A Tensor has no gelu",
        ),
        (
            "    hidden = (x @ fc).relu()  # (T, 4C)",
            "    hidden = (y @ fc).relu()",
            "'y' is not defined",
        ),
        ("    hidden = (x @ fc).relu()  # (T, 4C)", "    hidden = (x + fc).relu()", "cannot fill"),
        ("    hidden = (x @ fc).relu()  # (T, 4C)", "    hidden = x / 0", "divided by zero"),
        ("    hidden = (x @ fc).relu()  # (T, 4C)", "    hidden = mlp(x, fc, proj)", "without end"),
        ("    hidden = (x @ fc).relu()  # (T, 4C)", "    hidden = (x * 1e9).exp()", "too large"),
        (
            "    hidden = (x @ fc).relu()  # (T, 4C)",
            "    hidden = (x * 0).log()",
            "not defined for",
        ),
    ],
)
def test_a_failure_is_explained_at_the_line_that_was_edited(old: str, new: str, words: str) -> None:
    text = edited(old, new)
    space = source.execute(text)
    params = space["init"](random.Random(1), 5)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the case at hand
        space["gpt"]([1, 2, 3], **params)
    told = source.explain(caught.value, text)
    assert words in told.message
    assert told.line is not None
    assert text.splitlines()[told.line - 1].strip() == new.strip()
    assert told.message.endswith(".") and "Traceback" not in told.message


def test_a_source_that_fails_at_import_says_where() -> None:
    with pytest.raises(MicrogptError) as caught:
        source.execute(edited("import math\n", "import math\n1 / 0\n"))
    assert caught.value.line == 5 and "divided by zero" in caught.value.message


# ---- Edits and links ----


@given(
    st.lists(st.text("ab", max_size=2), max_size=12),
    st.lists(st.text("ab", max_size=2), max_size=12),
)
def test_edits_turn_one_text_into_the_other(a: list[str], b: list[str]) -> None:
    first, second = "\n".join(a), "\n".join(b)
    assert source.apply_edits(first, source.edits(first, second)) == second


@given(
    st.lists(
        st.tuples(st.integers(-3, 9), st.integers(-3, 9), st.lists(st.just("x"), max_size=2)),
        max_size=4,
    )
)
def test_foreign_edits_are_applied_or_refused_but_never_crash(changes: source.Edits) -> None:
    try:
        source.apply_edits("a\nb\nc", changes)
    except MicrogptError as error:
        assert "does not belong" in error.message  # noqa: PT017 - or no error at all


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
            "seed": st.integers(0, 10**9 - 1),
            "data": st.sampled_from(["names", "copy"]),
            "step": st.integers(0, 1000),
            "temperature": st.sampled_from([0.0, 0.5, 2.0]),
        },
    )
)
def test_a_link_carries_its_state(state: dict[str, object]) -> None:
    state = {key: value for key, value in state.items() if value != ""}
    assert source.decode_link("https://example.org/x/#" + source.encode_link(state)) == state


def test_a_link_carries_an_edit_and_runs_nothing() -> None:
    text = edited("x = x + attention(h, **head)", "x = x\n            raise SystemExit")
    link = source.encode_link({"source": text})
    assert len(link) < 400
    assert source.decode_link(link)["source"] == text


@given(st.text(max_size=200))
def test_a_hostile_link_is_refused_in_one_sentence(text: str) -> None:
    for link in (
        text,
        "edit=" + text,
        "seed=" + text,
        "temperature=" + text,
        "v=1&edit=" + text + "&of=",
    ):
        try:
            source.decode_link(link)
        except MicrogptError as error:
            assert error.message.endswith(".")  # noqa: PT017 - or no error at all


def test_a_link_that_unfolds_without_end_is_refused() -> None:
    import base64
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(b'[[1,0,["' + b"a" * 50_000_000) + packer.flush()
    with pytest.raises(MicrogptError, match=r"too long|unfolds"):
        source.decode_link("edit=" + base64.urlsafe_b64encode(bomb).decode())
    small = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = small.compress(b'[[1,0,["' + b"a" * 4_000_000) + small.flush()
    with pytest.raises(MicrogptError, match="unfolds"):
        source.decode_link("edit=" + base64.urlsafe_b64encode(packed).decode())


def test_an_edit_of_another_version_is_refused() -> None:
    link = source.encode_link({"source": edited("std=0.08", "std=0.09")}).replace(
        source.digest(ORIGINAL), "00000000"
    )
    with pytest.raises(MicrogptError, match="another version"):
        source.decode_link(link)

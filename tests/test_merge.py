"""Functions of the file written anew, and two edits of one text as one."""

from __future__ import annotations

import ast
import itertools
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import pytest

pytest.importorskip("hypothesis", reason="the texts of these tests come from hypothesis")

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from microgpt import source
from microgpt.errors import MicrogptError
from microgpt.source import ORIGINAL, ConflictError, merge, redefine

LINES = ORIGINAL.split("\n")


@cache
def bodies(text: str) -> dict[str, str]:
    """The words of every function and method, by Python's own parser."""
    lines, found = text.split("\n"), {}
    for node in ast.parse(text).body:
        owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for part in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(part, ast.FunctionDef):
                assert owner + part.name not in found, part.name
                found[owner + part.name] = "\n".join(lines[part.lineno - 1 : part.end_lineno])
    return found


def body(name: str) -> str:
    """The words of a function of the file."""
    return bodies(ORIGINAL)[name]


NAMES = [name for name in bodies(ORIGINAL) if "." not in name]
METHODS = [name for name in bodies(ORIGINAL) if "." in name]


def row_of(text: str, beginning: str) -> int:
    """The only line that begins so, counted from 0."""
    hits = [i for i, line in enumerate(text.split("\n")) if line.startswith(beginning)]
    assert len(hits) == 1, beginning
    return hits[0]


# ---- Written anew ----


def test_a_function_takes_the_place_of_its_namesake() -> None:
    new = "def mlp(x, fc, proj):  # another\n    return x @ fc @ proj"
    made = redefine(ORIGINAL, f'"""What it is."""\n\n{new}\n')
    assert made == ORIGINAL.replace(body("mlp"), new)
    assert redefine(made, body("mlp")) == ORIGINAL


def test_a_method_takes_the_place_of_its_namesake() -> None:
    new = "    def relu(self): return self"
    made = redefine(ORIGINAL, f"class Tensor:\n{new}\n")
    assert made == ORIGINAL.replace(body("Tensor.relu"), new)


@pytest.mark.parametrize("name", NAMES)
def test_a_function_written_as_it_was_changes_nothing(name: str) -> None:
    assert redefine(ORIGINAL, body(name)) == ORIGINAL


@pytest.mark.parametrize("name", METHODS)
def test_a_method_written_as_it_was_changes_nothing(name: str) -> None:
    assert redefine(ORIGINAL, "class Tensor:\n" + body(name)) == ORIGINAL


@settings(max_examples=30)
@given(st.lists(st.sampled_from(NAMES), unique=True, max_size=4), st.integers(0, 10**6))
def test_what_is_not_written_anew_stays(names: list[str], number: int) -> None:
    anew = {name: f"def {name}(*anything):\n    return {number}" for name in names}
    made = redefine(ORIGINAL, "\n\n\n".join(anew.values()))
    assert bodies(made) == bodies(ORIGINAL) | anew
    outside = [line for name in names for line in body(name).split("\n")]
    assert not Counter(LINES) - Counter(made.split("\n")) - Counter(outside)


def test_nothing_changes_nothing() -> None:
    for text in ("", "\n\n", '"""Only a title."""', "# only a comment"):
        assert redefine(ORIGINAL, text) == ORIGINAL


def test_a_number_is_set_where_it_stands() -> None:
    assert redefine(ORIGINAL, "lr = 0.5") == ORIGINAL.replace("lr=0.01", "lr=0.5")
    assert redefine(ORIGINAL, "lr = -3") == ORIGINAL.replace("lr=0.01", "lr=-3")
    both = ORIGINAL.replace("n_head=4", "n_head=2").replace("std=0.08", "std=0.5")
    assert redefine(ORIGINAL, "n_head = 2\nstd = 0.5") == both


def test_a_number_is_set_in_a_function_that_is_written_anew() -> None:
    new = "def train(params, docs, vocab, steps=10, lr=0.1):\n    yield 0.0"
    made = redefine(ORIGINAL, f"{new}\n\nlr = 0.7\n")
    assert bodies(made)["train"] == new.replace("0.1", "0.7")


def test_a_new_function_stands_above_the_first_that_uses_it() -> None:
    new = "def half(x):\n    return x / 2"
    users = "def mlp(x, fc, proj):\n    return half(x)\n\ndef gpt(ids):\n    return half(ids)"
    for text in (f"{new}\n\n{users}", f"{users}\n\n{new}"):
        made = redefine(ORIGINAL, text)
        place = row_of(made, "def half")
        assert made.split("\n")[place : place + 4] == [
            *new.split("\n"),
            "",
            "def mlp(x, fc, proj):",
        ]
        assert made.split("\n")[:place] == LINES[:place]


def test_new_functions_that_use_one_another_stand_in_the_order_of_use() -> None:
    text = (
        "def quarter(x): return half(half(x))\n\ndef half(x): return x / 2\n\n"
        "def mlp(x, fc, proj): return quarter(half(x))\n"
    )
    made = redefine(ORIGINAL, text)
    places = [row_of(made, f"def {name}(") for name in ("half", "quarter", "mlp")]
    assert places == sorted(places)
    source.execute(made)["half"](4.0)


def test_a_longer_word_or_an_attribute_is_no_use_of_a_function() -> None:
    """`relu_again` is not `relu`, and neither is `x.half` a call of `half`."""
    text = "def half(x): return x\n\ndef mlp(x, fc, proj): return halfway(x) + x.half\n"
    with pytest.raises(MicrogptError, match="A function half is added, and none uses it"):
        redefine(ORIGINAL, text)


def test_a_new_method_stands_among_the_others() -> None:
    new = "    def double(self):\n        return self * 2"
    made = redefine(ORIGINAL, f"class Tensor:\n{new}\n")
    assert made == ORIGINAL.replace(body("Tensor.relu"), body("Tensor.relu") + "\n" + new)
    tensor = source.execute(made)["Tensor"]
    assert tensor([[1.5]]).double().data == [[3.0]]


def test_comments_right_above_a_definition_belong_to_it() -> None:
    text = (
        "# far away\n\n# two lines\n# about it\ndef mlp(x, fc, proj):\n    return x\n\n"
        "# about one\ndef one(x): return x\n\ndef norm(x): return one(x)\n\n"
        "class Tensor:\n    # about relu\n    def relu(self): return self\n"
    )
    made = redefine(ORIGINAL, text)
    assert "\n\n# two lines\n# about it\ndef mlp(x, fc, proj):\n    return x\n\n" in made
    assert "\n\n# about one\ndef one(x): return x\n\ndef norm(x)" in made
    assert "    # about relu\n    def relu(self): return self\n" in made
    assert "far away" not in made


def test_a_new_function_does_not_come_between_another_and_its_comment() -> None:
    text = "# about it\ndef mlp(x, fc, proj): return half(x)\n\ndef half(x): return x\n"
    made = redefine(ORIGINAL, text)
    assert "def half(x): return x\n\n# about it\ndef mlp(" in made


def test_what_is_written_anew_twice_is_as_if_once() -> None:
    text = "# about it\ndef mlp(x, fc, proj): return x\n"
    made = redefine(ORIGINAL, text)
    assert redefine(made, text) == made


def test_a_decorator_is_kept_or_refused() -> None:
    text = "@staticmethod\ndef mlp(x, fc, proj): return x\n"
    try:
        made = redefine(ORIGINAL, text)
    except MicrogptError:
        return
    assert "@staticmethod\ndef mlp(" in made


def test_a_word_of_a_comment_is_no_use_of_a_function() -> None:
    assert "what it seeks" in body("attention")
    with pytest.raises(MicrogptError, match="A function seeks is added, and none uses it"):
        redefine(ORIGINAL, "def seeks(x): return x\n")


def test_a_new_function_may_be_used_by_a_new_one_above_it_alone() -> None:
    text = (
        "def quarter(x): return half(half(x))\n\ndef half(x): return x / 2\n\n"
        "def mlp(x, fc, proj): return quarter(x)\n"
    )
    assert source.execute(redefine(ORIGINAL, text))["mlp"](4.0, None, None) == 1.0


def test_the_text_is_never_run() -> None:
    text = "def mlp(x, fc, proj=print('run')):\n    raise SystemExit\n"
    assert "SystemExit" in redefine(ORIGINAL, text)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("def mlp(x, fc, proj)\n    return x", 1, "Python expected ':' here."),
        ("x = 1\ndef mlp(:", 2, "Python cannot read this line."),
        ("\n\n" + "-" * 200_000 + "1", 1, "This is no text that Python can read."),
        ("def mlp(x): return x\nimport os", 2, "and this is neither: import os"),
        ("lr = 0.1\nprint(lr)", 2, "and this is neither: print(lr)"),
        ("'''Title.'''\n'''Again.'''", 2, "and this is neither: 'Again.'"),
        ("lr = 'fast'", 1, "and this is neither: lr = 'fast'"),
        ("lr = True", 1, "and this is neither: lr = True"),
        ("lr = 1 / 100", 1, "and this is neither: lr = 1 / 100"),
        ("lr = steps = 1", 1, "and this is neither: lr = steps = 1"),
        ("lr: float = 1", 1, "and this is neither: lr: float = 1"),
        ("if True:\n    lr = 1", 1, "and this is neither: if True:"),
        ("class Model:\n    pass", 1, "and this is neither: class Model:"),
        ("async def mlp(x):\n    return x", 1, "and this is neither: async def mlp(x):"),
        ("class Tensor:\n    size = 1", 2, "and this is neither: size = 1"),
        ("def half(x): return x", None, "A function half is added, and none uses it."),
        ("colour = 3", None, "This source has no number called colour; it has: n_layer, "),
        ("n_head = 2.5", None, "n_head must be a whole number, not 2.5."),
    ],
)
def test_what_is_no_edit_is_refused_with_its_line(text: str, line: int | None, words: str) -> None:
    with pytest.raises(MicrogptError) as caught:
        redefine(ORIGINAL, text)
    assert words in caught.value.message
    if line is not None:
        assert caught.value.line == line


def test_a_method_needs_a_place() -> None:
    text = ORIGINAL.replace("def relu(", "def ramp(")
    with pytest.raises(MicrogptError, match=r"There is no Tensor\.relu in this source to put tan"):
        redefine(text, "class Tensor:\n    def tan(self): return self\n")


@given(st.text(max_size=200))
@example("\0")
@example("(" * 300)
@example("\ufefflr = 1")
def test_any_text_at_all_is_taken_or_refused_in_a_sentence(text: str) -> None:
    try:
        redefine(ORIGINAL, text)
    except MicrogptError as error:
        assert error.message  # noqa: PT017 - or no error at all


# ---- Two edits as one ----

ITEMS = ["a", "b", "", "a b", "  a", "f(a, b)"]
few_lines = st.lists(st.sampled_from(ITEMS), max_size=8).map("\n".join)

Hunk = tuple[int, int, list[str]]  # as in source.edits: first line, lines removed, lines added


@given(few_lines, few_lines)
def test_what_one_side_leaves_alone_is_as_the_other_has_it(base: str, other: str) -> None:
    assert merge(base, base, other) == other
    assert merge(base, other, base) == other


@given(few_lines, few_lines)
def test_what_both_change_alike_is_changed_once(base: str, other: str) -> None:
    assert merge(base, other, other) == other


def applied(base: Sequence[str], hunks: Sequence[Hunk]) -> str:
    """Lines with some replaced, from the last to the first."""
    lines = list(base)
    for first, removed, added in sorted(hunks, reverse=True):
        lines[first - 1 : first - 1 + removed] = added
    return "\n".join(lines)


@st.composite
def apart(draw: Callable[..., int]) -> tuple[list[str], list[Hunk], list[Hunk]]:
    """Lines that are all different, and changes of two sides that share none of them."""
    base = [f"line {i}" for i in range(draw(st.integers(1, 20)))]
    sides: tuple[list[Hunk], list[Hunk]] = [], []
    at, count = draw(st.integers(0, 3)), itertools.count()
    while at < len(base):
        removed = min(draw(st.integers(0, 3)), len(base) - at)
        added = draw(st.integers(0 if removed else 1, 3))
        side = draw(st.integers(0, 1))
        rows = [f"new {next(count)} of {'ours' if side == 0 else 'theirs'}" for _ in range(added)]
        sides[side].append((at + 1, removed, rows))
        at += removed + draw(st.integers(1, 4))
    return [*base, "end"], *sides


@given(apart())
def test_changes_of_different_lines_are_all_made(
    case: tuple[list[str], list[Hunk], list[Hunk]],
) -> None:
    lines, *hunks = case
    base, ours, theirs = "\n".join(lines), applied(lines, hunks[0]), applied(lines, hunks[1])
    both = sorted(source.edits(base, ours) + source.edits(base, theirs))
    assert both == sorted(hunks[0] + hunks[1])  # that is what they are
    expected = source.apply_edits(base, both)
    assert expected == applied(lines, hunks[0] + hunks[1])
    assert merge(base, ours, theirs) == merge(base, theirs, ours) == expected


@given(st.integers(0, 6), st.integers(1, 3), st.integers(1, 3))
def test_lines_added_at_one_place_stand_in_order(place: int, many: int, more: int) -> None:
    base = [f"line {i}" for i in range(6)]
    ours, theirs = [f"ours {i}" for i in range(many)], [f"theirs {i}" for i in range(more)]
    one, other = ("\n".join(base[:place] + new + base[place:]) for new in (ours, theirs))
    both, turned = (
        "\n".join(base[:place] + new + base[place:]) for new in (ours + theirs, theirs + ours)
    )
    assert merge("\n".join(base), one, other) == both
    assert merge("\n".join(base), other, one) == turned


words = st.lists(
    st.text(string.ascii_lowercase, min_size=1, max_size=4), unique=True, min_size=3, max_size=7
)


def at(items: Sequence[str], place: int, new: str) -> list[str]:
    return [*items[:place], new, *items[place + 1 :]]


@given(words, st.data())
def test_different_words_of_a_line_are_all_changed(row: list[str], data: st.DataObject) -> None:
    one = data.draw(st.integers(0, len(row) - 1))
    other = data.draw(st.integers(0, len(row) - 1).filter(lambda i: i != one))
    above, below = ["x = 1", "y = 2"], ["z = 3"]
    text = {
        name: "\n".join([*above, " ".join(items), *below])
        for name, items in {
            "base": row,
            "ours": at(row, one, "OURS"),
            "theirs": at(row, other, "THEIRS"),
            "both": at(at(row, one, "OURS"), other, "THEIRS"),
        }.items()
    }
    assert merge(text["base"], text["ours"], text["theirs"]) == text["both"]
    assert merge(text["base"], text["theirs"], text["ours"]) == text["both"]


names = st.lists(
    st.text(string.ascii_lowercase, min_size=1, max_size=4), unique=True, min_size=3, max_size=8
)


@given(names, st.data())
def test_arguments_added_at_one_place_stand_in_order(named: list[str], data: st.DataObject) -> None:
    first, second = sorted(data.draw(st.tuples(*[st.integers(1, len(named) - 1)] * 2)))
    assume(first < second)
    old, ours, theirs = named[:first], named[first:second], named[second:]

    def call(*arguments: str) -> str:
        return f"# {{}}\ndef f({', '.join(arguments)}):\n    return f({', '.join(arguments)}) + 1"

    made = merge(call(*old), call(*old, *ours), call(*old, *theirs))
    assert made == call(*old, *ours, *theirs)


def test_an_argument_with_a_default_is_added_after_another() -> None:
    base = "def gpt(ids, blocks):  # a score for each"
    ours = "def gpt(ids, blocks, gains):  # a score for each"
    theirs = "def gpt(ids, blocks, drop=None):  # a score for each"
    assert (
        merge(base, ours, theirs) == "def gpt(ids, blocks, gains, drop=None):  # a score for each"
    )


@given(
    st.lists(st.sampled_from(["above", "", "  more"]), max_size=4),
    words,
    st.integers(0, 6),
    st.lists(st.just("added"), max_size=3),
)
def test_the_same_word_changed_in_two_ways_is_refused_at_its_line(
    above: list[str], row: list[str], place: int, more: list[str]
) -> None:
    """Line and text are those of the base, whatever is added above and below."""
    place %= len(row)
    line = "    " + " ".join(row)
    base = "\n".join([*above, line, "below"])
    ours = "\n".join([*more, *above, "    " + " ".join(at(row, place, "OURS")), "below"])
    theirs = "\n".join([*above, "    " + " ".join(at(row, place, "THEIRS")), "below", *more])
    for one, other in ((ours, theirs), (theirs, ours)):
        with pytest.raises(ConflictError) as caught:
            merge(base, one, other)
        assert caught.value.line == len(above) + 1
        assert caught.value.text == line.strip()
        assert caught.value.message == f"Both change line {len(above) + 1}: {line.strip()}"


def test_the_line_of_a_conflict_is_found_within_a_block() -> None:
    base = "one\ntwo two\nthree three\nfour"
    ours = "ONE\nTWO two\nthree 3\nfour"
    theirs = "one\ntwo 2\nthree THREE\nfour"
    with pytest.raises(ConflictError) as caught:
        merge(base, ours, theirs)
    assert (caught.value.line, caught.value.text) == (3, "three three")


def test_what_one_changes_and_the_other_takes_out_is_refused() -> None:
    for ours, theirs in (("one\nTWO\nthree", "one\nthree"), ("one", "one\ntwo\nmore\nthree")):
        with pytest.raises(ConflictError):
            merge("one\ntwo\nthree", ours, theirs)
        with pytest.raises(ConflictError):
            merge("one\ntwo\nthree", theirs, ours)


@st.composite
def edited(draw: Callable[..., int], side: str, base: list[str]) -> list[str]:
    """Lines with some changes anywhere; what is new is marked with its side."""
    lines, count = list(base), itertools.count()
    for _ in range(draw(st.integers(0, 3))):
        first = draw(st.integers(0, len(lines)))
        last = draw(st.integers(first, min(first + 2, len(lines))))
        lines[first:last] = [f"{side}{next(count)}" for _ in range(draw(st.integers(0, 2)))]
    return lines


BASE = [f"base{i}" for i in range(8)]


@given(edited("ours", BASE), edited("theirs", BASE))
def test_nothing_is_lost_and_nothing_comes_back(ours: list[str], theirs: list[str]) -> None:
    """All lines that either adds are there in its order, and none that either took out; only
    changes that meet are ever refused."""
    base = "\n".join(BASE)
    sides = [source.edits(base, "\n".join(lines)) for lines in (ours, theirs)]
    try:
        made = merge(base, "\n".join(ours), "\n".join(theirs)).split("\n")
    except ConflictError:
        assert any(
            max(one[0], other[0]) < min(one[0] + one[1], other[0] + other[1])
            or one[0] <= other[0] < one[0] + one[1]
            or other[0] <= one[0] < other[0] + other[1]
            for one, other in itertools.product(*sides)
        )
        return
    for lines in (ours, theirs):
        new = [line for line in lines if line not in BASE]
        assert [line for line in made if line in new] == new
    kept = [line for line in BASE if line in ours and line in theirs]
    assert [line for line in made if line in BASE] == kept
    assert len(made) == len(kept) + len(set(ours) - set(BASE)) + len(set(theirs) - set(BASE))


@given(
    st.lists(st.sampled_from(ITEMS), max_size=6),
    st.lists(st.sampled_from(ITEMS), max_size=6),
    st.lists(st.sampled_from(ITEMS), max_size=6),
)
def test_any_three_texts_are_merged_or_refused_at_a_line_of_the_first(
    base: list[str], ours: list[str], theirs: list[str]
) -> None:
    try:
        merge(*("\n".join(lines) for lines in (base, ours, theirs)))
    except ConflictError as conflict:
        there = "\n".join(base).split("\n")[(conflict.line or 0) - 1]
        assert there.strip() == conflict.text  # noqa: PT017 - or no error at all

"""The data room: what loads, what is refused and how it is said, the split, and the tasks."""

from __future__ import annotations

import itertools
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from microgpt import data
from microgpt.data.tasks import TASKS, generate
from microgpt.errors import MicrogptError

ROOT = Path(__file__).resolve().parent.parent
TASK_NAMES = sorted(TASKS)

# Any line that can be a document: nothing that breaks lines, no control characters.
LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])).filter(
    lambda line: bool(line.strip()) and not line.startswith("\ufeff")
)


def refusal(argument: object) -> str:
    """The one sentence with which `load` refuses."""
    with pytest.raises(MicrogptError) as caught:
        data.load(argument)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message[0].isupper() or message[0] in "'\""
    assert message.endswith((".", "?"))
    assert "\n" not in message
    assert len(message) < 300
    assert caught.value.__cause__ is None
    return message


# ---- Names ----


def test_the_names_are_thousands_distinct_and_plain() -> None:
    raw = (ROOT / "microgpt" / "data" / "names.txt").read_bytes()
    assert raw.endswith(b"\n")
    names = raw.decode("ascii").split("\n")[:-1]
    assert len(names) >= 8000
    assert len(set(names)) == len(names)
    assert not [name for name in names if not re.fullmatch("[a-z]{2,13}", name)]
    assert data.load("names").docs == tuple(names)


def test_the_names_are_in_no_alphabetical_order() -> None:
    # `python gpt.py` reads only the first thousand: they must be a fair sample of all.
    names = data.load("names").docs
    rising = sum(a < b for a, b in itertools.pairwise(names)) / (len(names) - 1)
    assert 0.47 < rising < 0.53
    first = {name[0] for name in names[:1000]}
    assert len(first) >= 24


def test_the_split_of_the_names_is_close_to_a_tenth() -> None:
    # The names were chosen by a hash of each; the split must not follow that choice.
    learn, held_out = data.split(data.load("names").docs)
    assert 0.09 < len(held_out) / (len(learn) + len(held_out)) < 0.11


# ---- The list of data sets ----


def test_every_data_set_is_described_in_one_sentence_and_loads() -> None:
    assert list(data.DATASETS) == [
        "names", "copy", "reverse", "sort", "addition", "brackets", "recall"
    ]  # fmt: skip
    for name, about in data.DATASETS.items():
        corpus = data.load(name)
        assert (
            (corpus.name, corpus.title) == (name, about["title"]) == (about["name"], corpus.title)
        )
        assert corpus.separator == about["separator"]
        assert about["description"].endswith(".")
        assert about["description"].count(". ") == 0
        assert about["steps"] >= 1
        assert about["batch"] >= 1


def test_the_example_of_the_names_is_one_of_them() -> None:
    assert data.DATASETS["names"]["example"] in data.load("names").docs


# ---- Tasks: each solved again here, in another way ----


def closes(prompt: str) -> str:
    """What closes the brackets: pairs are struck out until only open ones are left."""
    while prompt != (shorter := re.sub(r"\(\)|\[\]|\{\}", "", prompt)):
        prompt = shorter
    return prompt[::-1].translate(str.maketrans("([{", ")]}"))


def total(prompt: str) -> str:
    left, _, right = prompt.partition("+")
    return f"{int(left) + int(right):0>2}"[::-1]


def by_counting(prompt: str) -> str:
    return "".join(letter * prompt.count(letter) for letter in "abcdefgh")


def looked_up(prompt: str) -> str:
    pairs, _, key = prompt.partition("?")
    return key + dict(zip(pairs[::2], pairs[1::2], strict=True))[key]


SOLVE: dict[str, tuple[str, Callable[[str], str]]] = {
    "copy": (r"[a-h]{5}", lambda prompt: prompt),
    "reverse": (r"[a-h]{5}", lambda prompt: "".join(reversed(prompt))),
    "sort": (r"[a-h]{5}", by_counting),
    "addition": (r"[0-4]\d\+[0-4]\d", total),
    "brackets": (r"[][(){}]{4,6}", closes),
    "recall": (r"a\db\dc\d\?[abc]", looked_up),
}


@pytest.mark.parametrize("name", TASK_NAMES)
def test_every_document_of_a_task_is_right_distinct_and_short(name: str) -> None:
    shape, solve = SOLVE[name]
    for seed in (0, 1):
        corpus = data.load(name, seed=seed)
        assert len(set(corpus.docs)) == len(corpus.docs) == TASKS[name].size
        for doc in (*corpus.docs, TASKS[name].example):
            assert len(doc) <= 13
            assert doc.count(TASKS[name].separator) == 1
            assert doc == corpus.question(doc) + corpus.answer(doc)
            assert corpus.question(doc) == corpus.prompt(doc) + TASKS[name].separator
            assert re.fullmatch(shape, corpus.prompt(doc)), doc
            assert corpus.answer(doc) == solve(corpus.prompt(doc)), doc


@pytest.mark.parametrize("name", TASK_NAMES)
def test_a_prompt_has_one_answer_and_none_is_on_both_sides(name: str) -> None:
    corpus = data.load(name)
    prompts = [corpus.prompt(doc) for doc in corpus.docs]
    assert len(set(prompts)) == len(prompts)
    learn, held_out = data.split(corpus.docs)
    assert not {corpus.prompt(doc) for doc in learn} & {corpus.prompt(doc) for doc in held_out}
    assert len(held_out) >= 150


@pytest.mark.parametrize("name", TASK_NAMES)
def test_a_task_uses_every_letter_it_may_on_both_sides_of_its_answer(name: str) -> None:
    corpus = data.load(name)
    learn, held_out = data.split(corpus.docs)
    assert set("".join(held_out)) == set("".join(learn))  # no token is met for the first time
    # Guessing the commonest answer does not solve the task.
    answers = [corpus.answer(doc) for doc in corpus.docs]
    assert max(map(answers.count, set(answers))) / len(answers) < 0.15


@pytest.mark.parametrize("name", TASK_NAMES)
def test_seeds_choose_other_documents(name: str) -> None:
    assert generate(name, 0) == generate(name, 0)
    assert generate(name, 0) != generate(name, 1)
    assert generate(name, 0) != generate(name, -1)


def test_the_seed_changes_nothing_but_generated_tasks() -> None:
    assert data.load("names", seed=5) == data.load("names")
    assert data.load("b\na", seed=5) == data.load("b\na")


@pytest.mark.parametrize("name", TASK_NAMES)
def test_a_document_of_a_task_fits_the_context_of_the_file(gpt: Any, name: str) -> None:
    vocab = gpt.vocabulary(data.load(name).docs)
    block_size = gpt.init(random.Random(0), len(vocab))["wpe"].shape[0]
    longest = max(data.load(name).docs, key=len)
    assert len(gpt.encode(longest, vocab)) <= block_size + 1


# ---- The same everywhere ----

DIGESTS = """
from microgpt import data
for name in data.DATASETS:
    docs = data.load(name, seed=3).docs
    print(name, data.fingerprint(docs), *map(data.fingerprint, data.split(docs)))
"""


@pytest.mark.skipif(sys.platform == "emscripten", reason="a browser has no processes")
def test_documents_and_splits_do_not_depend_on_the_hash_seed() -> None:
    here = [
        subprocess.run(
            [sys.executable, "-c", DIGESTS],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert here[0] == here[1]
    assert here[0].count("\n") == len(data.DATASETS)


# Printed once; another Python, platform or version must print the same. If a task is changed on
# purpose, results that were measured on it before no longer hold: change docs/DATA.md as well.
PINNED = {
    "copy": "7c9a1ba09bb6b1c1",
    "reverse": "b5998e4a62d8a3ba",
    "sort": "c70b4375552399b4",
    "addition": "9d8e298b485b4644",
    "brackets": "7317716522475fc0",
    "recall": "ee78ac66a2007c8b",
}


def test_the_tasks_are_those_that_were_measured() -> None:
    assert {name: data.fingerprint(data.load(name).docs)[:16] for name in TASK_NAMES} == PINNED


def test_the_split_is_the_one_that_is_written_down() -> None:
    # First eight hexadecimal digits of the hash, from another program:
    # printf 'held out? anna' | sha256sum
    places = {"anna": 0xDC134A08, "bela": 0xCF90F4D0}
    for name, place in places.items():
        docs = [name, *"abcdefgh"]
        assert name in data.split(docs, (place + 1) / 2**32)[1]
        assert name in data.split(docs, place / 2**32)[0]


# ---- Split ----

DOCS = st.lists(st.text(max_size=6), max_size=30)
SHARES = st.floats(0, 1, exclude_min=True, exclude_max=True)


@given(DOCS, SHARES)
@example(["a", "b"], 1e-9)
@example(["a", "b"], 1 - 1e-9)
@example(["a", "a"], 1 - 1e-9)
@example(["\ud800", "a"], 0.5)
def test_a_split_loses_nothing_shares_nothing_and_leaves_no_side_empty(
    docs: list[str], share: float
) -> None:
    learn, held_out = data.split(docs, share)
    assert sorted(learn + held_out) == sorted(docs)
    assert not set(learn) & set(held_out)
    assert list(learn) == [doc for doc in docs if doc in set(learn)]
    assert list(held_out) == [doc for doc in docs if doc in set(held_out)]
    if len(set(docs)) > 1:
        assert learn
        assert held_out
    else:
        assert not held_out


@given(DOCS, SHARES, st.randoms(use_true_random=False))
def test_a_split_does_not_depend_on_order_or_repetition(
    docs: list[str], share: float, rng: random.Random
) -> None:
    sides = [set(side) for side in data.split(docs, share)]
    mixed = docs + rng.choices(docs, k=5) if docs else []
    rng.shuffle(mixed)
    assert [set(side) for side in data.split(mixed, share)] == sides


@given(st.integers(0, 10**6), st.sets(st.text(max_size=6)))
def test_other_documents_do_not_move_a_document(first: int, new: set[str]) -> None:
    old = {f"{first + number}" for number in range(40)}
    before, after = data.split(sorted(old), 0.5), data.split(sorted(old | new), 0.5)
    assert set(before[0]) <= set(after[0])
    assert set(before[1]) <= set(after[1])


def test_the_share_that_is_held_out_is_about_the_one_asked_for() -> None:
    docs = [f"{number}" for number in range(20_000)]
    for share in (0.01, 0.1, 0.5, 0.9):
        found = len(data.split(docs, share)[1]) / len(docs)
        assert abs(found - share) < 4.5 * (share * (1 - share) / len(docs)) ** 0.5


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
def test_a_share_that_holds_out_nothing_or_all_is_refused(share: float) -> None:
    with pytest.raises(MicrogptError, match="above 0 and below 1"):
        data.split(["a", "b"], share)


# ---- Fingerprint ----


@given(DOCS, DOCS)
@example(["ab"], ["a", "b"])
@example([], [""])
@example(["1:a"], ["", "a"])
def test_a_fingerprint_tells_lists_apart(left: list[str], right: list[str]) -> None:
    assert re.fullmatch("[0-9a-f]{64}", data.fingerprint(left))
    assert (data.fingerprint(left) == data.fingerprint(right)) == (left == right)


def test_a_fingerprint_is_the_one_that_is_written_down() -> None:
    # From another program: printf '4:anna2:\303\251' | sha256sum
    wanted = "5c331ba7c7e36240e67fb1777e38a3ec"
    assert data.fingerprint(["anna", "é"]).startswith(wanted)


# ---- Loading ----


@given(st.lists(LINES, min_size=2, max_size=9), st.sampled_from(["\n", "\r\n", "\r"]))
def test_text_comes_back_line_by_line(lines: list[str], end: str) -> None:
    text = end.join(lines)
    if len(set(lines)) == 1:
        assert "only one distinct document" in refusal(text)
    else:
        for variant in (text, text + end, end + text, "\ufeff" + text, text + end + "  " + end):
            corpus = data.load(variant)
            assert corpus.docs == tuple(lines)
            assert (corpus.name, corpus.separator) == ("text", None)


@given(
    lines=st.lists(LINES, min_size=2, max_size=9, unique=True),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_a_file_comes_back_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, mark: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "poem.txt"
    path.write_bytes(mark + (end + end).join(lines).encode())
    for argument in (path, str(path)):
        corpus = data.load(argument)
        assert corpus == data.Corpus("poem.txt", "poem.txt", tuple(lines), None)


def test_spaces_tabs_and_repeated_lines_are_kept() -> None:
    assert data.load(" a\tb \n a\tb \n\nc").docs == (" a\tb ", " a\tb ", "c")


def test_a_document_without_a_separator_is_all_answer() -> None:
    corpus = data.load("a=b\nc=d")
    assert (corpus.prompt("a=b"), corpus.question("a=b"), corpus.answer("a=b")) == ("", "", "a=b")


def test_a_single_character_can_be_learnt_from_when_lengths_differ() -> None:
    assert data.load("a\naa\naaa").docs == ("a", "aa", "aaa")


def test_a_file_called_like_a_data_set_is_reached_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copy").write_text("one\ntwo\n")
    monkeypatch.chdir(tmp_path)
    assert data.load("./copy").docs == data.load(Path("copy")).docs == ("one", "two")
    assert data.load("copy").separator == ">"


# ---- What is refused, and how it is said ----


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n \r\n\t\n", "only blank lines"),
        (b"\xef\xbb\xbf\n", "only blank lines"),
        (b"a", "only one distinct document"),
        (b"anna\nanna\nanna\n", "only one distinct document"),
        (b"\x89PNG\r\n\x1a\n", r"not UTF-8 \(byte 0x89 on line 1\)"),
        (b"anna\nb\xf6rn\n", r"not UTF-8 \(byte 0xf6 on line 2\)"),
        (b"anna\nbj\xc3", r"not UTF-8 \(byte 0xc3 on line 2\)"),
        ("anna\nbela".encode("utf-16"), r"UTF-16 \(byte 0xff"),
        (b"anna\nbe\0la\n", r"not plain text \(character U\+0000 on line 2\)"),
        (b"anna\rbe\x1bla\r", r"not plain text \(character U\+001B on line 2\)"),
        (b"anna\nbe\xc2\x85la\n", r"not plain text \(character U\+0085 on line 2\)"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "poem.txt"
    path.write_bytes(content)
    message = refusal(path)
    assert re.search(says, message)
    assert "poem.txt" in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n", "only blank lines"),
        ("\r\n \r", "only blank lines"),
        ("anna\n", "only one distinct document"),
        ("anna\nbe\x07la", r"U\+0007 on line 2"),
        ("anna\nbe\udcffla", r"U\+DCFF on line 2"),
        ("", "No data is named"),
        ("  ", "No data is named"),
    ],
)
def test_a_text_that_cannot_be_used_says_why(text: str, says: str) -> None:
    assert re.search(says, refusal(text))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    assert "is a folder" in refusal(str(tmp_path))


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("nmaes", "did you mean 'names'?"),
        ("Names", "did you mean 'names'?"),
        ("coppy", "did you mean 'copy'?"),
        ("revers", "did you mean 'reverse'?"),
        ("add", "did you mean 'addition'?"),
        ("bracket", "did you mean 'brackets'?"),
        ("xyzzy", "the names are names, copy, reverse, sort, addition, brackets or recall."),
        ("anna bela", "is neither a data set nor a file"),
        ("be\0la", "is neither a data set nor a file"),
        ("\udcff", "is neither a data set nor a file"),
        ("x" * 5000, "is neither a data set nor a file"),
        (
            "names.txt",
            "There is no file 'names.txt': check the path, or name the data set 'names'.",
        ),
        ("poems/winter.txt", "There is no file 'poems/winter.txt': check the path."),
        ("poems\\winter", "There is no file"),
        ("./names", "or name the data set 'names'"),
    ],
)
def test_what_is_not_there_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refusal(typed)


def test_a_path_under_a_file_and_a_path_object_are_missing_files(tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_text("a\nb\n")
    assert "There is no file" in refusal(str(tmp_path / "poem.txt" / "x"))
    assert "There is no file" in refusal(Path("nowhere"))


def test_a_file_that_cannot_be_read_gives_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "poem.txt"
    path.write_text("a\nb\n")

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)
    assert "cannot be read (Permission denied)" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs symbolic links")
def test_a_link_to_itself_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be read" in refusal(tmp_path / "loop")


def test_a_file_of_a_hundred_megabytes_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    before = time.process_time()
    assert "more than 20 million bytes" in refusal(path)
    assert time.process_time() - before < 0.1
    # A file whose size is not told beforehand, such as a pipe, is not swallowed either.
    monkeypatch.setattr(data, "LIMIT", 2_000_000)
    if os.path.exists("/dev/zero"):
        assert "more than 2 million bytes" in refusal("/dev/zero")


def test_the_limit_itself_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "LIMIT", 4)
    (tmp_path / "four").write_text("a\nbc")
    (tmp_path / "five").write_text("a\nbcd")
    assert data.load(tmp_path / "four").docs == ("a", "bc")
    assert "more than" in refusal(tmp_path / "five")
    assert data.load("a\nbc").docs == ("a", "bc")
    assert "more than" in refusal("a\nbcd")


@pytest.mark.parametrize("argument", [None, 3, ["anna", "bela"], b"names"])
def test_what_is_neither_name_path_nor_text_is_refused(argument: object) -> None:
    assert f"of type {type(argument).__name__}" in refusal(argument)

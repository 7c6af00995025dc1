"""Generated tasks: short documents in which the part after the separator can be worked out.

Each task is one function that draws one document from a random source. All documents fit the
default context of the file (16), and the default model (1 layer, 4 heads, 16 channels) can learn
each of them; docs/DATA.md says how well, as measured.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

LETTERS = "abcdefgh"
CLOSING = {"(": ")", "[": "]", "{": "}"}


def copy(rng: random.Random) -> str:
    """Five letters from a to h, then the same letters: ``hcade>hcade``."""
    word = _word(rng)
    return f"{word}>{word}"


def reverse(rng: random.Random) -> str:
    """Five letters from a to h, then the same letters from last to first: ``hcade>edach``."""
    word = _word(rng)
    return f"{word}>{word[::-1]}"


def sort(rng: random.Random) -> str:
    """Five letters from a to h, then the same letters in alphabetical order: ``hcade>acdeh``."""
    word = _word(rng)
    return f"{word}>{''.join(sorted(word))}"


def addition(rng: random.Random) -> str:
    """Two numbers from 0 to 49, then the digits of their sum, ones first: ``18+34=25`` (52).

    All three have two digits. The ones come first, as in adding on paper, because they decide
    what is carried; with the tens first, some seeds do not learn it in the same number of steps.
    """
    a, b = rng.randrange(50), rng.randrange(50)
    tens, ones = divmod(a + b, 10)
    return f"{a:02}+{b:02}={ones}{tens}"


def brackets(rng: random.Random) -> str:
    """Four to six brackets of three kinds, some still open, then what closes them: ``([]{|})``.

    Each bracket opens with three chances in four and otherwise closes the newest open one; a draw
    that closes nothing, or leaves nothing open, is drawn again.
    """
    size = rng.randrange(4, 7)
    while True:
        text, expected = "", ""  # expected: what would close the text, the newest first
        for _ in range(size):
            bracket = rng.choice("([{)")
            if bracket in CLOSING:
                text, expected = text + bracket, CLOSING[bracket] + expected
            elif expected:
                text, expected = text + expected[0], expected[1:]
            else:
                break
        if len(text) == size and expected:
            return f"{text}|{expected}"


def recall(rng: random.Random) -> str:
    """Three keys with a digit each, then one key and its digit again: ``a7b3c9?b=b3``.

    The keys always stand in the order a, b, c. One layer can then look up by place; in a random
    order it would have to join each key to its digit first.
    """
    digits = {key: rng.randrange(10) for key in "abc"}
    asked = rng.choice("abc")
    pairs = "".join(f"{key}{digit}" for key, digit in digits.items())
    return f"{pairs}?{asked}={asked}{digits[asked]}"


def _word(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(5))


@dataclass(frozen=True)
class Task:
    """A task, as the list of data sets shows it.

    Attributes:
        title: a few words.
        description: one sentence.
        example: one of its documents.
        separator: what stands between prompt and answer, exactly once in each document.
        draw: one random document.
        size: how many distinct documents a corpus of it holds; fewer than there are.
        steps: how many steps of eight documents the default model needs to learn it.
    """

    title: str
    description: str
    example: str
    separator: str
    draw: Callable[[random.Random], str]
    size: int
    steps: int


TASKS: dict[str, Task] = {
    "copy": Task(
        "Copy",
        "Five letters from a to h, and after > the same letters again.",
        "hcade>hcade",
        ">",
        copy,
        5000,
        1000,
    ),
    "reverse": Task(
        "Reverse",
        "Five letters from a to h, and after > the same letters from last to first.",
        "hcade>edach",
        ">",
        reverse,
        5000,
        1000,
    ),
    "sort": Task(
        "Sort",
        "Five letters from a to h, and after > the same letters in alphabetical order.",
        "hcade>acdeh",
        ">",
        sort,
        5000,
        1500,
    ),
    "addition": Task(
        "Addition",
        "Two numbers from 0 to 49, and after = the two digits of their sum, ones first: 52 is 25.",
        "18+34=25",
        "=",
        addition,
        2000,
        3000,
    ),
    "brackets": Task(
        "Brackets",
        "Four to six brackets of three kinds, and after | those that close what is still open.",
        "([]{|})",
        "|",
        brackets,
        2000,
        3000,
    ),
    "recall": Task(
        "Key-value recall",
        "Three keys with a digit each and a question for one key, and after = that key and its "
        "digit.",
        "a7b3c9?b=b3",
        "=",
        recall,
        2000,
        3000,
    ),
}


def generate(name: str, seed: int = 0) -> tuple[str, ...]:
    """Distinct documents of a task in random order; the same on every platform for a seed.

    Args:
        name: one of `TASKS`.
        seed: any whole number.
    """
    task = TASKS[name]
    rng = random.Random(f"{name} {seed}")  # a text seeds the same everywhere, unlike hash()
    docs: dict[str, None] = {}
    while len(docs) < task.size:
        docs[task.draw(rng)] = None
    return tuple(docs)

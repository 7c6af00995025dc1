"""A source, compiled: its programs for the kernel.

What executes them is elsewhere: `fast` in Python, JavaScript in the page.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from microgpt.engines.program import Program, build
from microgpt.engines.record import (
    Expression,
    Recorder,
    at,
    computed,
    record_update,
    refusal,
    unedited,
)
from microgpt.engines.rehearse import Course
from microgpt.errors import LeavesContract

ROWS_AT_A_TIME = 128  # tokens that are done together, when their documents are short
MOST_DOCUMENTS = 32  # documents that are


class Compiled:
    """A source, compiled: what it does in training, measuring and sampling.

    Args:
        source: the text of `gpt.py`, or of an edit of it.
        namespace: what that source defines.
        params: weights as its `init` makes them; only their shapes matter.
        vocab: the V tokens.
        context: the most tokens that the model reads at once.
        course: what a training step is; only its batch, scale and update matter.

    Attributes:
        vocab, context: as given.
        batch: documents of a training step.
        training: the program that trains.
        parameters: how many weights there are.
        mark: the number of the token that begins and ends a document, where the source's `encode`
            is the file's; else None.

    Raises:
        LeavesContract: in words, why this source cannot be compiled.
    """

    def __init__(
        self,
        source: str,
        namespace: dict[str, Any],
        params: Any,
        vocab: list[str],
        context: int,
        course: Course,
    ) -> None:
        self.vocab, self.context, self.batch = vocab, context, course.batch
        self._index = {token: i for i, token in reversed(list(enumerate(vocab)))}
        edited = unedited(source, "encode") is not None
        self._encode = namespace["encode"] if edited else None
        self.mark = None if edited else self._index.get("\n")
        self._source = source
        self._recorder = Recorder(source, params, namespace)
        self._chunk = max(1, min(MOST_DOCUMENTS, self.batch, ROWS_AT_A_TIME // context))

        def loss(space: Any, params: Any, ids: Any, targets: Any) -> Any:
            return space["cross_entropy"](space["gpt"](ids, **params), targets) * course.scale

        with _memory_enough():
            tape = self._recorder.record(loss, context, len(vocab))
            update = record_update(self._recorder, *course.update)
            self.training = build(tape, update, self._chunk, len(vocab))
        self.parameters = sum(rows * columns for rows, columns in self._recorder.shapes)
        self._known: dict[str, tuple[int, ...]] = {}
        self._programs: dict[str, Program] = {}

    def ids(self, doc: str) -> tuple[int, ...]:
        """A document as the kernel reads it: as many tokens as the context holds, and the next one.

        Raises:
            LeavesContract: the source's `encode` gives something other than numbers of tokens.
        """
        if doc in self._known:
            return self._known[doc]
        if self._encode is None:
            found = [self._index.get(char, -1) for char in f"\n{doc}\n"]
        else:
            found = list(self._encode(doc, self.vocab))
        tokens = range(len(self.vocab))
        if len(found) < 2 or not all(type(i) is int and i in tokens for i in found):
            raise LeavesContract("its encode gives something other than numbers of tokens")
        self._known[doc] = tuple(found[: self.context + 1])
        return self._known[doc]

    def program(self, name: str) -> Program:
        """The program that measures, or the one that samples.

        Args:
            name: `measure`: what each next token weighs, after each token of a document; `sample`:
                the same after the last one alone, at the temperature that is its only symbol.

        Raises:
            LeavesContract: why there is none.
        """
        if name not in self._programs:
            with _memory_enough():
                self._programs[name] = self._other(name)
        return self._programs[name]

    def _other(self, name: str) -> Program:
        measures, tokens = name == "measure", len(self.vocab)
        if not measures:
            self._follow_sample()
        function = _probabilities if measures else _drawing
        tape = self._recorder.record(function, self.context, tokens, twice=False)
        result = tape.nodes[tape.result]
        rows, columns = (
            [at(size, length) for length in (1, self.context)]
            for size in (result.rows, result.columns)
        )
        if columns != [tokens] * 2 or (measures and rows != [1, self.context]):
            raise refusal("its model does not score every next token after each", result.line)
        made = build(tape, None, self._chunk if measures else 1, tokens)
        if made.weights != self.training.weights:
            raise LeavesContract("it reads its weights in another way when it does not train")
        return made

    def _follow_sample(self) -> None:
        """Refuse a source whose samples are not drawn as the file does it."""
        changed = unedited(self._source, "encode", "sample")
        if changed is not None:
            raise LeavesContract(f"it changes {changed}")
        if self.mark is None or any(len(token) != 1 for token in self.vocab):
            raise LeavesContract("its tokens are not single characters")


@contextlib.contextmanager
def _memory_enough() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise LeavesContract("compiling it takes more memory than there is") from None


def _probabilities(space: Any, params: Any, ids: Any, targets: Any) -> Any:
    """As a held-out loss has it: what each next token weighs."""
    logits = space["gpt"](ids, **params)
    softmax = space.get("softmax")
    return softmax(logits) if callable(softmax) else (logits - logits.amax(-1, keepdim=True)).exp()


def _drawing(space: Any, params: Any, ids: Any, targets: Any) -> Any:
    """As `sample` has it."""
    logits = space["gpt"](ids, **params)[-1:] / Expression("symbol", "temperature")
    return space["softmax"](logits)


def step_numbers(e: Expression, numbers: Sequence[tuple[float, ...]]) -> list[float]:
    """What an expression of symbols is in each step; nan where it cannot be computed.

    Args:
        numbers: what each step moves the weights with, as a course tells it.
    """
    if not numbers:
        return []
    symbols = {str(i): list(column) for i, column in enumerate(zip(*numbers))}
    try:
        return computed(e, [], len(numbers), symbols=symbols)
    except (ArithmeticError, ValueError):
        return [math.nan] if len(numbers) == 1 else [step_numbers(e, [n])[0] for n in numbers]

"""The fast engine: the program that a source describes, executed by the compiled kernel.

`Fast` records a source and writes programs for the kernel, one that trains, one that measures and one
that samples; what it cannot do it refuses at once, with the reason in words, and the reference engine
does the work. `Fast.open` gives memory for one run, or for several side by side in the lanes of the
processor's vectors, each with weights, seed and documents of its own.
"""

from __future__ import annotations

import ctypes
import os
import random
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from microgpt.engines.kernel import Kernel, kernel
from microgpt.engines.program import Program, build
from microgpt.engines.record import (
    Expression, LeavesContract, Recorder, evaluate, record_update, unedited,
)  # fmt: skip
from microgpt.engines.rehearse import Rehearsal, Schedule, Steps
from microgpt.errors import MicrogptError

ROWS_AT_A_TIME = 256  # tokens that are done together, when their documents are short
MOST_DOCUMENTS = 32  # documents that are
SLACK = 128  # numbers after the last one of a part of memory, which vectors may touch
LARGEST_IN_LANES = 20_000  # weights: a larger model fills the vectors by itself
WORTH_THREADS = (
    100_000  # weights times tokens of a step: below it, meeting costs more than it saves
)

Matrix = list[list[float]]
Moments = list[tuple[Matrix, Matrix]]


class _Memory:
    """Numbers that the kernel works on: 4 bytes each (8 in tests), at a multiple of 64 bytes."""

    def __init__(self, count: int, double: bool) -> None:
        size, self._code = (8, "d") if double else (4, "f")
        try:
            self._owner = (ctypes.c_char * (count * size + 64))()
        except (MemoryError, OverflowError, ValueError):
            raise MicrogptError(
                f"This model takes {count * size / 2**30:.1f} GiB of memory, more than there is; make it smaller."
            ) from None
        start = ctypes.addressof(self._owner)
        shift = -start % 64
        self.address = start + shift
        part = memoryview(self._owner).cast("B")[shift : shift + count * size]
        self.numbers = part.cast("d" if double else "f")

    def write(self, place: int, numbers: Sequence[float], step: int = 1) -> None:
        self.numbers[place : place + len(numbers) * step : step] = array(self._code, numbers)

    def read(self, place: int, count: int, step: int = 1) -> list[float]:
        return self.numbers[place : place + count * step : step].tolist()


class _Loaded:
    """A program, and the memory that only it uses."""

    def __init__(self, program: Program, double: bool, lanes: int = 1, threads: int = 1) -> None:
        self.program = program
        self.code = (ctypes.c_int32 * len(program.code)).from_buffer(program.code)
        self.own_size = (program.own + program.longest + 1 + program.scratch) * lanes + SLACK
        self.own = _Memory(self.own_size * threads, double)
        self.fixed = _Memory(program.fixed * lanes + SLACK, double)
        self.numbers = _Memory(len(program.numbers) * (program.longest + 1), double)
        self.numbers.write(0, [x for row in program.numbers for x in row])
        for place, flat in program.constants:
            for lane in range(lanes):
                self.fixed.write(place * lanes + lane, flat, lanes)

    def pointers(self, shared: _Memory) -> list[int]:
        own, fixed, numbers = (memory.address for memory in (self.own, self.fixed, self.numbers))
        return [ctypes.addressof(self.code), shared.address, own, fixed, numbers]

    def set(self, **symbols: float) -> None:
        """Give each scalar that depends on a symbol its number, for every length."""
        width = self.program.longest + 1
        for slot, e in zip(self.program.slots, self.program.scalars):
            self.numbers.write(slot * width, [evaluate(e, symbols)] * width)


class Fast:
    """A source, compiled: what it does in training, measuring and sampling.

    Args:
        source: the text of `gpt.py`, or of an edit of it.
        namespace: what that source defines.
        params: weights as its `init` makes them; only their shapes matter.
        vocab: the tokens.
        context: the most tokens that the model reads at once.
        schedule: what a training step is; only its batch, scale and update matter.
        library: the kernel to use; this machine's when None.
        double: whether that kernel works with 8 bytes a number, as only tests do.

    Raises:
        LeavesContract: in words, why this source cannot be compiled, or why there is no kernel here.
    """

    def __init__(
        self, source: str, namespace: dict[str, Any], params: Any, vocab: list[str], context: int,
        schedule: Schedule | Rehearsal, library: Kernel | None = None, double: bool = False,
    ) -> None:  # fmt: skip
        found = library or kernel()
        if isinstance(found, str):
            raise LeavesContract(found)
        self.kernel, self.double = found, double
        self.vocab, self.context, self.batch = vocab, context, schedule.batch
        self._namespace = namespace
        self._plain_encode = unedited(source, "encode") is None
        self._plain_sample = self._plain_encode and unedited(source, "sample") is None
        self._index = {token: i for i, token in enumerate(vocab)}
        self.recorder = Recorder(source, params, namespace)

        def loss(space: Any, params: Any, ids: Any, targets: Any) -> Any:
            return space["cross_entropy"](space["gpt"](ids, **params), targets) * schedule.scale

        self.chunk = max(1, min(MOST_DOCUMENTS, self.batch, ROWS_AT_A_TIME // context))
        tape = self.recorder.record(loss, context, len(vocab))
        update = record_update(self.recorder, *schedule.update)
        self.training = build(tape, update, self.chunk, len(vocab))
        self._known: dict[str, tuple[int, ...]] = {}
        self.parameters = sum(rows * columns for rows, columns in self.recorder.shapes)
        self._programs: dict[str, Program] = {}

    def open(self, runs: int = 1, threads: int | None = None) -> State:
        """Memory for so many runs of this program.

        Args:
            runs: how many, each in a lane of its own.
            threads: how many train one run together; None lets the size of a step decide.
        """
        return State(self, runs, threads)

    @property
    def most_runs(self) -> int:
        """How many runs are best trained side by side: a small model leaves room in the vectors."""
        if self.parameters > LARGEST_IN_LANES or not self.training.laned:
            return 1
        return self.kernel.lanes[0]

    def ids(self, doc: str) -> tuple[int, ...]:
        """A document as the kernel reads it: as many tokens as the context holds, and the next one.

        Raises:
            LeavesContract: the source's `encode` gives something other than numbers of tokens.
        """
        if doc in self._known:
            return self._known[doc]
        if self._plain_encode:
            found = [0, *[self._index[char] for char in doc], 0]
        else:
            found = list(self._namespace["encode"](doc, self.vocab))
            if (
                not all(type(i) is int and 0 <= i < len(self.vocab) for i in found)
                or len(found) < 2
            ):
                raise LeavesContract("its encode gives something other than numbers of tokens")
        self._known[doc] = tuple(found[: self.context + 1])
        return self._known[doc]

    def program(self, name: str) -> Program:
        """The program that measures, or the one that samples.

        Raises:
            LeavesContract: why there is none.
        """
        if name not in self._programs:
            function, chunk = {"measure": (_probabilities, self.chunk), "sample": (_drawing, 1)}[
                name
            ]
            if name == "sample" and not self._plain_sample:
                raise LeavesContract("it changes sample")
            tape = self.recorder.record(function, self.context, len(self.vocab))
            self._programs[name] = build(tape, None, chunk, len(self.vocab))
            if self._programs[name].weights != self.training.weights:
                raise LeavesContract("it reads its weights in another way when it samples")
        return self._programs[name]


def _probabilities(space: Any, params: Any, ids: Any, targets: Any) -> Any:
    logits = space["gpt"](ids, **params)
    softmax = space.get("softmax")
    return softmax(logits) if callable(softmax) else (logits - logits.amax(-1, keepdim=True)).exp()


def _drawing(space: Any, params: Any, ids: Any, targets: Any) -> Any:
    """As `sample` has it."""
    logits = space["gpt"](ids, **params)[-1:] / Expression("symbol", "temperature")
    return space["softmax"](logits)


@dataclass
class Plan:
    """Some training steps of several runs, ready for the kernel."""

    schedules: Sequence[Schedule | Rehearsal]
    steps: list[Steps]
    scalars: array[float]


class State:
    """Runs of one program: their weights and moments, in the kernel's memory.

    Attributes:
        fast: the program.
        runs: how many.
        lanes: how many the memory is laid out for: 1, or at least `runs`.
        threads: how many train together.
    """

    def __init__(self, fast: Fast, runs: int = 1, threads: int | None = None) -> None:
        self.fast, self.runs = fast, runs
        self.lanes = 1 if runs == 1 else next((n for n in fast.kernel.lanes if n >= runs), 0)
        if self.lanes == 0:
            raise MicrogptError(
                f"At most {fast.kernel.lanes[-1]} runs are trained side by side, not {runs}."
            )
        if self.lanes > 1 and not fast.training.laned:
            raise LeavesContract("its runs cannot be trained side by side")
        if threads is None:
            work = fast.parameters * fast.batch * fast.context
            threads = min(os.cpu_count() or 1, fast.batch) if work >= WORTH_THREADS else 1
        self.threads = max(1, min(threads, fast.batch))
        self._functions = fast.kernel.functions(self.lanes)
        self._plain = fast.kernel.functions()
        program = fast.training
        self.shared = _Memory(3 * program.parameters * self.lanes + SLACK, fast.double)
        self.training = _Loaded(program, fast.double, self.lanes, self.threads)
        self._others: dict[str, _Loaded] = {}
        self._stop = ctypes.c_int32(0)

    # ---- Weights ----

    def load(self, run: int, weights: list[Matrix], moments: Moments | None) -> None:
        """Take over a run's weights, and its moments, which are zero when there are none."""
        program = self.fast.training
        lanes = [run] if run else [0, *range(self.runs, self.lanes)]  # idle lanes do as the first
        for i, (place, stride, rows, columns) in enumerate(program.weights):
            parts = [weights[i], *(moments[i] if moments else ([[0.0] * columns] * rows,) * 2)]
            for part, grid in enumerate(parts):
                for r, row in enumerate(grid):
                    for lane in lanes:
                        start = part * program.parameters + place + r * stride
                        self.shared.write(start * self.lanes + lane, row, self.lanes)

    def store(self, run: int = 0) -> tuple[list[Matrix], Moments]:
        """A run's weights and moments as they are now."""
        program = self.fast.training
        return self._grids(self.shared, 0, run), list(
            zip(*(self._grids(self.shared, k * program.parameters, run) for k in (1, 2)))
        )

    def _grids(self, memory: _Memory, start: int, run: int) -> list[Matrix]:
        return [
            [
                memory.read((start + place + r * stride) * self.lanes + run, columns, self.lanes)
                for r in range(rows)
            ]
            for place, stride, rows, columns in self.fast.training.weights
        ]

    def gradients(self, documents: Sequence[tuple[int, ...]]) -> tuple[float, list[Matrix]]:
        """The loss of a first step on these documents and its gradient in every weight of the first run."""
        loaded = self.training
        code, loaded.code = loaded.code, (ctypes.c_int32 * len(loaded.code))(*loaded.code)
        loaded.code[2] = loaded.code[4]  # the program ends before its update
        steps = Steps(list(documents), [(1.0,) * 8])
        try:
            loss = self._call(
                [steps] * self.runs, array("d", [0.0] * (1 + len(loaded.program.scalars)))
            )
        finally:
            loaded.code = code
        found = self._grids(loaded.own, 0, 0)
        for rank in range(self.threads):
            loaded.own.write(
                rank * loaded.own_size, [0.0] * (loaded.program.parameters * self.lanes)
            )
        return loss[0][0], found

    # ---- Training ----

    def train(self, schedules: Sequence[Schedule | Rehearsal], count: int) -> list[list[float]]:
        """Train every run for so many steps, as its schedule says.

        Returns:
            for each step the loss of each run. Fewer steps than asked for when `stop` was called. A single run
            whose loss is not a finite number ends with that step, and its weights are those before it.

        Raises:
            LeavesContract: the schedules do not go together, or one cannot be followed further.
        """
        return self.perform(self.plan(schedules, count))

    def plan(self, schedules: Sequence[Schedule | Rehearsal], count: int) -> Plan:
        """What the next `count` steps are, or fewer where a schedule cannot be followed further.

        Raises:
            LeavesContract: the schedules do not go together, or one cannot be followed at all.
        """
        steps = [schedule.take(count) for schedule in schedules]
        if any(other.numbers != steps[0].numbers for other in steps[1:]):
            raise LeavesContract("its runs do not move their weights alike")
        scalars = array("d")
        for numbers in steps[0].numbers:
            symbols = {str(i): x for i, x in enumerate(numbers)}
            scalars.extend([_evaluated(e, symbols) for e in self.fast.training.scalars])
        return Plan(schedules, steps, scalars or array("d", [0.0]))

    def perform(self, plan: Plan) -> list[list[float]]:
        """Train as planned; what is not done is given back to the schedules."""
        losses = self._call(plan.steps, plan.scalars)
        for schedule in plan.schedules:
            schedule.back(len(plan.steps[0].numbers) - len(losses))
        return losses

    def _call(self, steps: Sequence[Steps], scalars: array[float]) -> list[list[float]]:
        count, batch = len(steps[0].numbers), self.fast.batch
        tokens, starts, order = (
            array("i"),
            array("q", [0]),
            array("i", bytes(4 * count * batch * self.lanes)),
        )
        places: dict[tuple[int, ...], int] = {}
        for run in range(self.lanes):
            for n, document in enumerate(steps[run if run < self.runs else 0].documents):
                place = places.get(document)
                if place is None:
                    place = places[document] = len(places)
                    tokens.extend(document)
                    starts.append(len(tokens))
                order[n * self.lanes + run] = place
        losses = array("d", bytes(8 * count * self.lanes))
        meetings, partial = (
            array("i", [0] * 6),
            array("d", [0.0] * ((self.lanes + 1) * self.threads)),
        )
        self._stop.value = 0
        loaded = self.training
        done = [0] * self.threads

        def work(rank: int) -> None:
            done[rank] = self._functions.train(
                *loaded.pointers(self.shared), *map(_of, (tokens, starts, order)), 0, count, batch,
                *map(_of, (scalars, losses)), ctypes.addressof(self._stop), rank, self.threads, loaded.own_size,
                *map(_of, (meetings, partial)),
            )  # fmt: skip

        others = [threading.Thread(target=work, args=(rank,)) for rank in range(1, self.threads)]
        for thread in others:
            thread.start()
        work(0)
        for thread in others:
            thread.join()
        known = done[0] if self._stop.value else min(done[0] + 1, count)
        flat = losses[: known * self.lanes].tolist()
        self._last = tokens, starts, order[(known - 1) * batch * self.lanes :]
        return [flat[i : i + self.runs] for i in range(0, len(flat), self.lanes)]

    def line_of_first_bad(self) -> int | None:
        """The line of the source that first makes something other than a finite number, in the last step."""
        number = self._functions.first_bad(
            *self.training.pointers(self.shared), *map(_of, self._last), self.fast.batch
        )  # fmt: skip
        return self.fast.training.lines[number] or None if number >= 0 else None

    def stop(self) -> None:
        """End a call that is under way in another thread, within one chunk of documents."""
        self._stop.value = 1

    # ---- Measuring and sampling ----

    def _weights_of(self, run: int) -> _Memory:
        """The weights of one run alone."""
        if self.lanes == 1:
            return self.shared
        n = self.fast.training.parameters
        memory = _Memory(n + SLACK, self.fast.double)
        memory.write(0, self.shared.read(run, n, self.lanes))
        return memory

    def _other(self, name: str) -> _Loaded:
        if name not in self._others:
            self._others[name] = _Loaded(self.fast.program(name), self.fast.double)
        return self._others[name]

    def surprise(self, docs: Sequence[str], run: int = 0) -> tuple[float, int]:
        """The surprise at all tokens of documents, in nats, added up, and how many they are.

        Raises:
            LeavesContract: why this program cannot measure.
        """
        loaded = self._other("measure")
        tokens, starts = array("i"), array("q", [0])
        for doc in docs:
            tokens.extend(self.fast.ids(doc))
            starts.append(len(tokens))
        order, found = array("i", range(len(docs))), array("d", [0.0])
        self._stop.value = 0
        weights = self._weights_of(run)
        count = self._plain.measure(
            *loaded.pointers(weights), *map(_of, (tokens, starts, order)), len(docs), _of(found),
            ctypes.addressof(self._stop),
        )  # fmt: skip
        return found[0], count

    def sample(self, rng: random.Random, temperature: float, text: str = "", run: int = 0) -> str:
        """One text, as the file's `sample` writes it: the same draws for the same random numbers, where the
        probabilities are the same.

        Raises:
            LeavesContract: why this program cannot sample.
        """
        loaded = self._other("sample")
        loaded.set(temperature=temperature)
        ids = array("i", self.fast.ids(text)[:-1])
        known, most = len(ids), self.fast.context + 1
        ids.extend([0] * (most + 1 - known))
        state = rng.getstate()
        chances = array("d", [rng.random() for _ in range(most - known)] or [0.0])
        weights = self._weights_of(run)
        count = self._plain.sample(
            *loaded.pointers(weights), _of(ids), known, most, 0, _of(chances)
        )  # fmt: skip
        rng.setstate(state)
        for _ in range(count - known):
            rng.random()
        return text + "".join(self.fast.vocab[i] for i in ids[known:count])


def _of(numbers: array[Any]) -> int:
    return numbers.buffer_info()[0]


def _evaluated(e: Expression, symbols: dict[str, float]) -> float:
    try:
        return evaluate(e, symbols)
    except (ArithmeticError, ValueError):
        return float("nan")

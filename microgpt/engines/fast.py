"""The fast engine: the program that a source describes, executed by the compiled kernel.

`Fast` compiles a source into programs for the kernel, one that trains, one that measures and one
that samples; what it cannot do as the file does it is refused, with the reason in words, and the
reference engine does the work. `Fast.open` gives memory for one run, or for several side by side
in the lanes of the processor's vectors, each with weights, seed and documents of its own.
"""

from __future__ import annotations

import ctypes
import os
import random
import threading
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from microgpt.engines.compiled import Compiled, step_numbers
from microgpt.engines.kernel import Functions, Kernel, kernel, rest
from microgpt.engines.program import SLACK, Program
from microgpt.engines.record import Matrix, evaluate
from microgpt.engines.rehearse import Course, Steps
from microgpt.errors import LeavesContract, MicrogptError

LARGEST_IN_LANES = 20_000  # weights: a larger model fills the vectors by itself
WORTH_THREADS = 100_000  # weights times tokens of a step: below, meeting costs more than it saves

Moments = list[tuple[Matrix, Matrix]]


class Fast(Compiled):
    """A compiled source and the kernel of this machine.

    Args:
        source, namespace, params, vocab, context, course: as of `Compiled`.
        library: the kernel to use; this machine's when None.
        double: whether that kernel works with 8 bytes a number, as only tests do.

    Attributes:
        kernel, double: which.

    Raises:
        LeavesContract: in words, why this source cannot be compiled, or why there is no kernel.
    """

    def __init__(
        self,
        source: str,
        namespace: dict[str, Any],
        params: Any,
        vocab: list[str],
        context: int,
        course: Course,
        library: Kernel | None = None,
        double: bool = False,
    ) -> None:
        found = library or kernel()
        if isinstance(found, str):
            raise LeavesContract(found)
        self.kernel, self.double = found, double
        super().__init__(source, namespace, params, vocab, context, course)

    def open(self, runs: int = 1, threads: int | None = None) -> State:
        """Memory for so many runs of this program.

        Args:
            runs: how many, each in a lane of its own.
            threads: how many train together; None lets the size of a step decide.

        Raises:
            LeavesContract: this program's runs cannot be trained side by side.
            MicrogptError: so many cannot, or there is too little memory.
        """
        return State(self, runs, threads)

    @property
    def most_runs(self) -> int:
        """How many runs are best trained side by side: a small model leaves room in the vectors."""
        if self.parameters > LARGEST_IN_LANES or not self.training.laned:
            return 1
        return self.kernel.lanes[0]


class _Memory:
    """Numbers that the kernel works on: 4 bytes each (8 in tests), at a multiple of 64 bytes."""

    def __init__(self, count: int, double: bool) -> None:
        size, self._code = (8, "d") if double else (4, "f")
        self.bytes = count * size
        try:
            self._owner = (ctypes.c_char * (count * size + 64))()
        except (MemoryError, OverflowError, ValueError):
            gigabytes = f"{count * size / 2**30:.1f} GiB"
            raise MicrogptError(
                f"This model takes {gigabytes} of memory, more than there is; make it smaller."
            ) from None
        start = ctypes.addressof(self._owner)
        shift = -start % 64
        self.address = start + shift
        part = memoryview(self._owner).cast("B")[shift : shift + count * size]
        self._numbers = part.cast("d" if double else "f")

    def write(self, place: int, numbers: Sequence[float], step: int = 1) -> None:
        self._numbers[place : place + len(numbers) * step : step] = array(self._code, numbers)

    def read(self, place: int, count: int, step: int = 1) -> list[float]:
        return list(self._numbers[place : place + count * step : step])


TRAIN, MEASURE, SAMPLE = range(3)  # what a program is for


class _Loaded:
    """A program, and the memory that only it uses.

    Raises:
        LeavesContract: the kernel's check says that the program is not safe to execute.
    """

    def __init__(
        self, program: Program, functions: Functions, double: bool, use: int,
        lanes: int = 1, threads: int = 1,
    ) -> None:  # fmt: skip
        self.program, self.use = program, use
        self._functions, self._lanes = functions, lanes
        self.code = array("i", program.code)
        self.own_size = program.own_numbers(lanes)
        self.own = _Memory(self.own_size * threads, double)
        self._fixed = _Memory(program.fixed * lanes + SLACK, double)
        self._numbers = _Memory(len(program.numbers) * (program.longest + 1), double)
        self._numbers.write(0, [x for row in program.numbers for x in row])
        for place, flat in program.constants:
            for lane in range(lanes):
                self._fixed.write(place * lanes + lane, flat, lanes)

        self.check(None)

    @property
    def bytes(self) -> int:
        """Of memory that it takes, the weights left out."""
        return sum(memory.bytes for memory in (self.own, self._fixed, self._numbers))

    def check(self, documents: _Documents | None, first: int = 0, count: int = 0) -> None:
        """Ask whether the kernel may do this program, on so many documents of an order from its
        number `first` on; without documents, whether it may at all."""
        p, lanes = self.program, self._lanes
        lists = documents.sized(first, count) if documents else [None, 0] * 3
        wrong = self._functions.check(
            _address(self.code), len(self.code), self.use, p.shared * lanes + SLACK, self.own_size,
            p.fixed * lanes + SLACK, len(p.numbers) * (p.longest + 1), self._fixed.address, *lists,
        )  # fmt: skip
        if wrong:
            raise LeavesContract(f"the kernel refuses its program (number {wrong})")

    def addresses(self, shared: _Memory) -> list[int]:
        """Of the program and its memory, as each function of the kernel begins with them."""
        memories = (shared, self.own, self._fixed, self._numbers)
        return [_address(self.code), *[memory.address for memory in memories]]

    def set(self, **symbols: float) -> None:
        """Give each scalar that depends on a symbol its number, for every length."""
        width = self.program.longest + 1
        for slot, e in zip(self.program.slots, self.program.scalars):
            self._numbers.write(slot * width, [evaluate(e, symbols)] * width)


@dataclass(frozen=True)
class Plan:
    """Some training steps of several runs, ready for the kernel.

    Attributes:
        courses: one for each run.
        steps: of each run.
        scalars: the numbers that each step sets anew, one step after another.
    """

    courses: Sequence[Course]
    steps: list[Steps]
    scalars: array[float]

    @property
    def count(self) -> int:
        """How many steps."""
        return len(self.steps[0].numbers)


class _Documents:
    """Documents as the kernel reads them: all tokens, where each begins, and in what order."""

    def __init__(self, order: Sequence[tuple[int, ...]]) -> None:
        places: dict[tuple[int, ...], int] = {}
        self.order = array("i", [places.setdefault(ids, len(places)) for ids in order])
        self.tokens, self.starts = array("i"), array("q", [0])
        for ids in places:
            self.tokens.extend(ids)
            self.starts.append(len(self.tokens))

    def addresses(self, first: int = 0) -> list[int]:
        """Of these lists; the order from its number `first` on."""
        start = _address(self.order) + first * self.order.itemsize
        return [_address(self.tokens), _address(self.starts), start]

    def sized(self, first: int, count: int) -> list[int]:
        """Each list with its length; of the order, `count` numbers."""
        tokens, starts, order = self.addresses(first)
        assert first + count <= len(self.order)
        return [tokens, len(self.tokens), starts, len(self.starts) - 1, order, count]


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
            most = fast.kernel.lanes[-1]
            raise MicrogptError(f"At most {most} runs are trained side by side, not {runs}.")
        if self.lanes > 1 and not fast.training.laned:
            raise LeavesContract("its runs cannot be trained side by side")
        if threads is None:
            work = fast.parameters * fast.batch * fast.context
            threads = min(os.cpu_count() or 1, fast.batch) if work >= WORTH_THREADS else 1
        self.threads = max(1, min(threads, fast.batch))
        self._functions = fast.kernel.functions(self.lanes)
        self._single = fast.kernel.functions()
        program = fast.training
        self._shared = _Memory(3 * program.parameters * self.lanes + SLACK, fast.double)
        self._training = _Loaded(
            program, self._functions, fast.double, TRAIN, self.lanes, self.threads
        )
        self._others: dict[str, _Loaded] = {}
        self._stop = ctypes.c_int32(0)
        self._last: tuple[_Documents, int] | None = None  # read by the last step, from where on

    @property
    def bytes(self) -> int:
        """Of memory that the runs take: weights, moments, gradients and what lies on the way."""
        loaded = [self._training, *self._others.values()]
        return self._shared.bytes + sum(one.bytes for one in loaded)

    # ---- Weights ----

    def load(self, run: int, weights: list[Matrix], moments: Moments | None) -> None:
        """Take over a run's weights, and its moments, which are zero when there are none."""
        program = self.fast.training
        lanes = [run] if run else [0, *range(self.runs, self.lanes)]  # idle lanes do as the first
        for i, (place, stride, rows, columns) in enumerate(program.weights):
            parts = [weights[i], *(moments[i] if moments else ([[0.0] * columns] * rows,) * 2)]
            for part, grid in enumerate(parts):
                for r, row in enumerate(grid):
                    start = part * program.parameters + place + r * stride
                    for lane in lanes:
                        self._shared.write(start * self.lanes + lane, row, self.lanes)

    def store(self, run: int = 0) -> tuple[list[Matrix], Moments]:
        """A run's weights and moments as they are now."""
        count = self.fast.training.parameters
        weights, first, second = (self._grids(self._shared, k * count, run) for k in range(3))
        return weights, list(zip(first, second))

    def _grids(self, memory: _Memory, start: int, run: int) -> list[Matrix]:
        return [
            [
                memory.read((start + place + r * stride) * self.lanes + run, columns, self.lanes)
                for r in range(rows)
            ]
            for place, stride, rows, columns in self.fast.training.weights
        ]

    def gradients(self, documents: Sequence[tuple[int, ...]]) -> tuple[float, list[Matrix]]:
        """The loss of a step of the first run on these documents, and its gradient in each weight;
        no weight is moved.

        Args:
            documents: as many as a step has, as `Fast.ids` gives them.
        """
        loaded, scalars = (
            self._training,
            array("d", bytes(8 + 8 * len(self._training.program.slots))),
        )
        code, loaded.code = loaded.code, array("i", loaded.code)
        loaded.code[2] = loaded.code[4]  # the program ends before its update
        steps = Steps(list(documents), [()])
        try:
            losses = self._train([steps] * self.runs, 1, scalars)
        finally:
            loaded.code = code
        found = self._grids(loaded.own, 0, 0)
        for rank in range(self.threads):
            start = rank * loaded.own_size
            loaded.own.write(start, [0.0] * (loaded.program.parameters * self.lanes))
        return losses[0][0], found

    # ---- Training ----

    def train(self, courses: Sequence[Course], count: int) -> list[list[float]]:
        """Train every run for so many steps, as its course says.

        Returns:
            for each step the loss of each run. Fewer steps than asked for when `stop` was called,
            or when a course cannot be followed further. A single run whose loss is not a finite
            number ends with that step, and its weights are those before it.

        Raises:
            LeavesContract: the courses do not go together, or one cannot be followed at all.
        """
        return self.perform(self.plan(courses, count))

    def plan(self, courses: Sequence[Course], count: int) -> Plan:
        """What the next `count` steps are, or fewer where a course cannot be followed further.

        Raises:
            LeavesContract: the courses do not go together, or one cannot be followed at all.
        """
        steps = [course.take(count) for course in courses]
        if any(other.numbers != steps[0].numbers for other in steps[1:]):
            raise LeavesContract("its runs do not move their weights alike")
        if any(len(ids) > self.fast.context + 1 for one in steps for ids in one.documents):
            raise LeavesContract("its train reads more tokens at once than the context holds")
        numbers = steps[0].numbers
        scalars = [step_numbers(e, numbers) for e in self.fast.training.scalars]
        return Plan(courses, steps, array("d", [x for step in zip(*scalars) for x in step]))

    def perform(self, plan: Plan) -> list[list[float]]:
        """Train as planned; what is not done is given back to the courses."""
        losses = self._train(plan.steps, plan.count, plan.scalars)
        for course in plan.courses:
            course.back(plan.count - len(losses))
        return losses

    def _train(
        self, steps: Sequence[Steps], count: int, scalars: array[float]
    ) -> list[list[float]]:
        """The losses of so many steps, and of one more that is not a finite number."""
        self._stop.value = 0
        batch, lanes, threads = self.fast.batch, self.lanes, self.threads
        each = [steps[lane if lane < self.runs else 0].documents for lane in range(lanes)]
        documents = _Documents([ids for column in zip(*each) for ids in column])
        self._training.check(documents, 0, len(documents.order))
        losses = array("d", bytes(8 * count * lanes))
        meetings, partial = array("i", bytes(4 * 6)), array("d", bytes(8 * (lanes + 1) * threads))
        done = [0] * threads
        all_here = threading.Barrier(threads)  # a thread in the kernel waits for the others

        def work(rank: int) -> None:
            all_here.wait()
            done[rank] = self._functions.train(
                *self._training.addresses(self._shared), *documents.addresses(), 0, count, batch,
                _address(scalars), _address(losses), ctypes.addressof(self._stop), rank, threads,
                self._training.own_size, _address(meetings), _address(partial), rest(),
            )  # fmt: skip

        others = [threading.Thread(target=work, args=(rank,)) for rank in range(1, threads)]
        try:
            for thread in others:
                thread.start()
        except RuntimeError:  # no more can be started
            all_here.abort()
            raise
        work(0)
        for thread in others:
            thread.join()
        known = done[0] if self._stop.value else min(done[0] + 1, count)
        self._last = documents, max(0, known - 1) * batch * lanes
        flat = losses[: known * lanes].tolist()
        return [flat[i : i + self.runs] for i in range(0, len(flat), lanes)]

    def line_of_first_bad(self) -> int | None:
        """The line of the source that first makes something other than a finite number in the last
        step; None when none does."""
        if self._last is None:
            return None
        documents, first = self._last
        number = self._functions.first_bad(
            *self._training.addresses(self._shared), *documents.addresses(first), self.fast.batch
        )
        return self.fast.training.lines[number] or None if number >= 0 else None

    def stop(self) -> None:
        """End a call that is under way in another thread, within one chunk of documents."""
        self._stop.value = 1

    # ---- Measuring and sampling ----

    def _weights_of(self, run: int) -> _Memory:
        """The weights of one run alone."""
        if self.lanes == 1:
            return self._shared
        count = self.fast.training.parameters
        memory = _Memory(count + SLACK, self.fast.double)
        memory.write(0, self._shared.read(run, count, self.lanes))
        return memory

    def _other(self, name: str) -> _Loaded:
        if name not in self._others:
            use = MEASURE if name == "measure" else SAMPLE
            self._others[name] = _Loaded(
                self.fast.program(name), self._single, self.fast.double, use
            )
        return self._others[name]

    def surprise(self, docs: Sequence[str], run: int = 0) -> tuple[float, int]:
        """The surprise at all tokens of documents, in nats, added up, and how many they are.

        Raises:
            LeavesContract: why this program cannot measure.
            MicrogptError: `stop` was called.
        """
        self._stop.value = 0
        loaded, documents = self._other("measure"), _Documents([self.fast.ids(doc) for doc in docs])
        found, weights = array("d", [0.0]), self._weights_of(run)
        loaded.check(documents, 0, len(docs))
        count = self._single.measure(
            *loaded.addresses(weights), *documents.addresses(), len(docs), _address(found),
            ctypes.addressof(self._stop),
        )  # fmt: skip
        if count < 0:
            raise MicrogptError("Measuring was stopped.")
        return found[0], count

    def sample(
        self, rng: random.Random, temperature: float, n: int = 1, text: str = "", run: int = 0
    ) -> list[str]:
        """Texts, as the file's `sample` writes them one after another: the same draws for the same
        random numbers, where the probabilities are the same.

        Args:
            rng: the random numbers; as many are drawn as the file draws.
            temperature: above 0.
            n: how many texts.
            text: what each begins with.

        Raises:
            LeavesContract: why this program cannot sample.
            MicrogptError: `stop` was called.
        """
        if n < 1 or text.endswith("\n") or len(text) >= self.fast.context:
            return [text] * n
        begin, letter = self.fast.ids(text)[:-1], self.fast.vocab.__getitem__
        drawn = self.tokens(rng, temperature, n, begin, run)
        return [text + "".join(map(letter, ids[len(begin) :])) for ids in drawn]

    def tokens(
        self, rng: random.Random, temperature: float, n: int, begin: tuple[int, ...], run: int = 0
    ) -> list[list[int]]:
        """The tokens of texts, as `sample` draws them; `begin` are those that each begins with, no
        more than the context holds."""
        self._stop.value = 0
        loaded, mark = self._other("sample"), self.fast.mark
        assert mark is not None  # or there is no such program
        loaded.set(temperature=temperature)
        most = self.fast.context + 1
        width = most + 1
        ids, lengths = array("i", [*begin, *[0] * (n * width - len(begin))]), array("q", [0] * n)
        state = rng.getstate()
        chances = array("d", [rng.random() for _ in range(n * (most - len(begin)))])
        weights = self._weights_of(run)
        drawn = self._single.sample(
            *loaded.addresses(weights), _address(ids), len(begin), most, mark,
            _address(chances), n, _address(lengths), ctypes.addressof(self._stop),
        )  # fmt: skip
        rng.setstate(state)
        for _ in range(max(0, drawn)):
            rng.random()
        if drawn < 0:
            raise MicrogptError("Sampling was stopped.")
        flat = ids.tolist()
        return [flat[i * width : i * width + length] for i, length in enumerate(lengths)]


def _address(numbers: array[Any]) -> int:
    return numbers.buffer_info()[0]

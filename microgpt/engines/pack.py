"""Training runs as one piece of bytes, which the page hands to the kernel.

In a browser the kernel is WebAssembly, and its memory is JavaScript's to fill. So all that it needs
is laid out here: the programs, the first weights, the documents in the order of training, the
numbers that each step moves weights with, and the random numbers that samples are drawn by. The
page only copies, calls and reads; it computes nothing.

A pack begins with 8 bytes, `MGPK` and the length of a JSON text (little-endian), then the text,
then the arrays that it names, each at a multiple of 8 bytes. Whole numbers take as few bytes as
they need; the page gives them the width that the kernel wants.
"""

from __future__ import annotations

import json
import math
import random
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from microgpt.engines.compiled import Compiled, step_numbers
from microgpt.engines.program import SLACK, Program
from microgpt.engines.record import Expression, Matrix, evaluate
from microgpt.errors import LeavesContract

MAGIC = b"MGPK"
SAMPLES = 6  # texts that there are random numbers for
MARKS = 10  # times that a run is measured, after the first steps and at the end
TYPES = {"B": "Uint8Array", "H": "Uint16Array", "i": "Int32Array", "f": "Float32Array",
         "d": "Float64Array"}  # fmt: skip

Numbers = Sequence[tuple[float, ...]]


@dataclass(frozen=True)
class Start:
    """One run as it begins.

    Attributes:
        weights: its first weights, in the order of `leaves`.
        documents: the tokens of each document that it reads, without repetition.
        order: for each step in turn the places of its documents in that list.
    """

    weights: Sequence[Matrix]
    documents: Sequence[tuple[int, ...]]
    order: Sequence[int]


class Writer:
    """Bytes that grow, and the arrays in them."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, numbers: array[Any]) -> list[Any]:
        """Where an array is: its type, the bytes before it, and how many numbers it has."""
        return self.put(prepared(numbers))

    def put(self, ready: tuple[str, bytes, int]) -> list[Any]:
        """The same for an array that was prepared before."""
        kind, content, count = ready
        place = [kind, self._size, count]
        self._parts.append(content)
        self._size += len(content)
        return place

    def finish(self, facts: dict[str, Any]) -> bytes:
        """The pack."""
        text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return b"".join([MAGIC, struct.pack("<I", len(text)), text, *self._parts])


def prepared(numbers: array[Any]) -> tuple[str, bytes, int]:
    """An array as it stands in a pack: whole numbers as narrow as they may be."""
    if numbers.typecode in "iq":
        low, high = (min(numbers), max(numbers)) if numbers else (0, 0)
        code = "B" if low >= 0 and high < 256 else "H" if low >= 0 and high < 65536 else "i"
        numbers = array(code, numbers)
    content = numbers.tobytes()
    return TYPES[numbers.typecode], content + bytes(-len(content) % 8), len(numbers)


def pack(
    compiled: Compiled,
    starts: Sequence[Start],
    numbers: Numbers,
    held_out: Sequence[tuple[int, ...]],
    facts: dict[str, Any],
    *,
    lanes: int = 1,
    seed: int = 0,
) -> bytes:
    """Runs of one program, for the kernel in the page.

    Args:
        compiled: the program.
        starts: one run, or as many as there are lanes, or fewer.
        numbers: for each step what it moves the weights of all runs with.
        held_out: the documents that the loss is measured on.
        facts: what else the page is told.
        lanes: how many runs are trained side by side: 1 or 4.
        seed: of the samples, as `Run.sample` has it.

    Raises:
        LeavesContract: the runs cannot be trained side by side.
    """
    training = compiled.training
    if lanes > 1 and not training.laned:
        raise LeavesContract("its runs cannot be trained side by side")
    writer = Writer()
    rows = [[*start.weights] for start in starts]
    told = facts | {
        "lanes": lanes, "runs": len(starts), "steps": len(numbers), "batch": compiled.batch,
        "every": max(1, round(len(numbers) / MARKS)), "parameters": training.parameters,
        "slack": SLACK, "texts": SAMPLES, "places": training.weights,
        "train": _program(writer, training, lanes),
        "scalars": writer.add(_scalars(training.scalars, numbers)),
        "weights": writer.add(_weights(training, rows, lanes)),
        "documents": _documents(writer, starts, lanes),
        "held_out": _documents(writer, [Start([], held_out, range(len(held_out)))], 1),
    }  # fmt: skip
    for name in ("measure", "sample"):
        try:
            program = compiled.program(name)
        except LeavesContract as why:
            told["lacks"] = [*told.get("lacks", []), why.message]
            continue
        told[name] = _program(writer, program, 1)
        if name == "sample":
            values = [evaluate(e, {"temperature": 1.0}) for e in program.scalars]
            told[name]["slots"] = [list(pair) for pair in zip(program.slots, values)]
            rng = random.Random(seed)
            chances = [rng.random() for _ in range(SAMPLES * (compiled.context + 1))]
            told |= {"chances": writer.add(array("d", chances)), "mark": compiled.mark}
    return writer.finish(told)


_kept: dict[int, tuple[Program, int, dict[str, Any], list[tuple[str, bytes, int]]]] = {}
MOST_KEPT = 12


def _program(writer: Writer, program: Program, lanes: int) -> dict[str, Any]:
    """A program and the memory that only it uses; what was made of it last time is used again."""
    found = _kept.get(id(program))
    if found is None or found[:2] != (program, lanes):
        if len(_kept) >= MOST_KEPT:
            _kept.clear()
        _kept[id(program)] = found = (program, lanes, *_laid_out(program, lanes))
    _, _, facts, arrays = found
    return facts | dict(zip(("code", "fixed", "numbers"), map(writer.put, arrays)))


def _laid_out(program: Program, lanes: int) -> tuple[dict[str, Any], list[tuple[str, bytes, int]]]:
    fixed = array("f", bytes(4 * program.fixed * lanes))
    for place, flat in program.constants:
        for lane in range(lanes):
            end = (place + len(flat)) * lanes + lane
            fixed[place * lanes + lane : end : lanes] = array("f", flat)
    numbers = array("f", [x for row in program.numbers for x in row])
    facts = {
        "own": program.own_numbers(lanes), "width": program.longest + 1,
        "lines": program.lines, "scalars": len(program.scalars),
    }  # fmt: skip
    return facts, [prepared(array("i", program.code)), prepared(fixed), prepared(numbers)]


def _scalars(expressions: Sequence[Expression], numbers: Numbers) -> array[float]:
    """What each step sets anew, one step after another; nan where it cannot be computed. The
    kernel reads them with 4 bytes."""
    flat = array("f", bytes(4 * len(expressions) * len(numbers)))
    for i, e in enumerate(expressions):
        flat[i :: len(expressions)] = array("f", map(_single, step_numbers(e, numbers)))
    return flat


def _single(x: float) -> float:
    """A number that 4 bytes can hold: what is larger is infinite there."""
    return x if -3.4e38 < x < 3.4e38 or x != x else math.copysign(math.inf, x)


def _weights(program: Program, runs: Sequence[Sequence[Matrix]], lanes: int) -> array[float]:
    """First weights; the moments after them are zero. An idle lane does as the first."""
    flat = array("f", bytes(4 * program.parameters * lanes))
    for lane in range(lanes):
        weights = runs[lane if lane < len(runs) else 0]
        for (place, stride, _, columns), rows in zip(program.weights, weights):
            for i, row in enumerate(rows):
                start = (place + i * stride) * lanes + lane
                flat[start : start + columns * lanes : lanes] = array("f", map(_single, row))
    return flat


def _documents(writer: Writer, starts: Sequence[Start], lanes: int) -> dict[str, Any]:
    tokens, lengths = array("i"), array("i")
    places: list[int] = []  # of each run's first document
    for start in starts:
        places.append(len(lengths))
        lengths.extend(array("i", map(len, start.documents)))
        for document in start.documents:
            tokens.extend(document)
    count = len(starts[0].order)
    order = array("i", bytes(4 * count * lanes))
    for lane in range(lanes):
        run = lane if lane < len(starts) else 0
        first = places[run]
        order[lane::lanes] = array("i", [first + i for i in starts[run].order])
    return {
        "tokens": writer.add(tokens), "lengths": writer.add(lengths), "order": writer.add(order),
        "count": count,
    }  # fmt: skip

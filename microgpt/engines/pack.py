"""A training run as one piece of bytes, which the page hands to the kernel.

In a browser the kernel is WebAssembly, and its memory is JavaScript's to fill. So all that it needs is
laid out here: the programs, the first weights, the documents in the order of training, the numbers
that each step moves weights with, and the random numbers that samples are drawn by. The page only
copies, calls and reads; it computes nothing.

A pack begins with 8 bytes, `MGPK` and the length of a JSON text (little-endian), then the text, then
the arrays that it names, each at a multiple of 8 bytes from the begin.
"""

from __future__ import annotations

import json
import random
import struct
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from microgpt.engines.compiled import Compiled
from microgpt.engines.program import Program
from microgpt.engines.record import Expression, evaluate
from microgpt.errors import LeavesContract

if TYPE_CHECKING:
    from microgpt.run import Run

MAGIC = b"MGPK"
SLACK = 128  # numbers after the last one of a part of memory, which vectors may touch
TYPES = {"i": "Int32Array", "q": "BigInt64Array", "f": "Float32Array", "d": "Float64Array"}
SAMPLES = 8  # texts that there are random numbers for


class _Writer:
    """The arrays of a pack, one after another."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, numbers: array[Any]) -> list[Any]:
        """Where an array is: its type, the bytes before it, and how many numbers it has."""
        place = [TYPES[numbers.typecode], self.size, len(numbers)]
        content = numbers.tobytes()
        content += bytes(-len(content) % 8)
        self.parts.append(content)
        self.size += len(content)
        return place


def pack(
    runs: Sequence[Run], *, lanes: int = 1, held_out: int = 50, seed: int = 0, temperature: float = 1
) -> bytes:
    """Runs of one program with first weights, for the kernel in the page.

    Args:
        runs: one run, or as many as there are lanes; of the same source, sizes and data.
        lanes: how many are trained side by side.
        held_out: the most documents that the loss is measured on.
        seed: of the samples, as `Run.sample` has it.
        temperature: of the samples.

    Raises:
        LeavesContract: the source cannot be compiled.
    """
    run = runs[0]
    schedules = [r.schedule(lambda doc: compiled.ids(doc)) for r in runs]
    assert run.context is not None
    compiled = Compiled(
        run.source, run.namespace, run.params, run.vocab, run.context, schedules[0]
    )
    if lanes > 1 and not compiled.training.laned:
        raise LeavesContract("its runs cannot be trained side by side")
    steps = (run.steps or 0) - run.step
    taken = [schedule.take(steps) for schedule in schedules]
    if any(other.numbers != taken[0].numbers for other in taken[1:]):
        raise LeavesContract("its runs do not move their weights alike")
    writer = _Writer()
    facts: dict[str, Any] = {
        "lanes": lanes, "runs": len(runs), "steps": len(taken[0].numbers), "batch": compiled.batch,
        "vocab": run.vocab, "context": run.context, "slack": SLACK, "baseline": run.baseline,
        "parameters": run.parameters,
    }  # fmt: skip
    training = compiled.training
    facts["train"] = _program(writer, training, lanes)
    facts["scalars"] = writer.add(_scalars(training, taken[0].numbers))
    facts["weights"] = writer.add(_weights(training, runs, lanes))
    facts["places"] = {
        name: list(place) for name, place in zip(run.named_weights(), training.weights)
    }
    facts["documents"] = _documents(writer, [steps.documents for steps in taken], lanes)
    docs = run._held_out(held_out) if run.held_out_docs else []
    facts["held_out"] = _documents(writer, [[compiled.ids(doc) for doc in docs]], 1)
    for name in ("measure", "sample"):
        try:
            program = compiled.program(name)
        except LeavesContract:
            continue
        facts[name] = _program(writer, program, 1)
        if name == "sample":
            value = [evaluate(e, {"temperature": max(temperature, 1e-9)}) for e in program.scalars]
            facts[name]["slots"] = [[slot, x] for slot, x in zip(program.slots, value)]
            rng = random.Random(seed)
            chances = array("d", [rng.random() for _ in range(SAMPLES * (run.context + 1))])
            facts["chances"] = writer.add(chances)
    text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([MAGIC, struct.pack("<I", len(text)), text, *writer.parts])


def _program(writer: _Writer, program: Program, lanes: int) -> dict[str, Any]:
    fixed = array("f", bytes(4 * (program.fixed * lanes)))
    for place, flat in program.constants:
        for lane in range(lanes):
            fixed[place * lanes + lane : (place + len(flat)) * lanes + lane : lanes] = array("f", flat)
    numbers = array("f", [x for row in program.numbers for x in row])
    return {
        "code": writer.add(program.code), "fixed": writer.add(fixed),
        "numbers": writer.add(numbers),
        "own": (program.own + program.longest + 1 + program.scratch) * lanes + SLACK,
        "shared": program.shared * lanes + SLACK, "width": program.longest + 1,
        "lines": program.lines,
    }  # fmt: skip


def _scalars(program: Program, numbers: Sequence[tuple[float, ...]]) -> array[float]:
    flat = array("d")
    for row in numbers:
        symbols = {str(i): x for i, x in enumerate(row)}
        flat.extend([_evaluated(e, symbols) for e in program.scalars])
    return flat


def _evaluated(e: Expression, symbols: dict[str, float]) -> float:
    try:
        return evaluate(e, symbols)
    except (ArithmeticError, ValueError):
        return float("nan")


def _weights(program: Program, runs: Sequence[Run], lanes: int) -> array[float]:
    """First weights; the moments after them are zero."""
    flat = array("f", bytes(4 * program.parameters * lanes))
    for lane in range(lanes):
        run = runs[lane if lane < len(runs) else 0]
        weights = [w.data for w in run.named_weights().values()]
        for (place, stride, _, columns), rows in zip(program.weights, weights):
            for i, row in enumerate(rows):
                start = (place + i * stride) * lanes + lane
                flat[start : start + columns * lanes : lanes] = array("f", row)
    return flat


def _documents(
    writer: _Writer, documents: Sequence[Sequence[tuple[int, ...]]], lanes: int
) -> dict[str, Any]:
    tokens, starts, places = array("i"), array("q", [0]), {}
    order = array("i", bytes(4 * len(documents[0]) * lanes))
    for lane in range(lanes):
        for n, document in enumerate(documents[lane if lane < len(documents) else 0]):
            if document not in places:
                places[document] = len(places)
                tokens.extend(document)
                starts.append(len(tokens))
            order[n * lanes + lane] = places[document]
    return {
        "tokens": writer.add(tokens), "starts": writer.add(starts), "order": writer.add(order),
        "count": len(documents[0]),
    }  # fmt: skip

"""Runs for the page's kernel, again and again while a number is dragged.

A pack (`engines.pack`) holds a run as the kernel begins it. Most of what a pack costs is finding
out what the source does, and most changes leave that as it was: another learning rate, another
spread of the first weights, more steps, another seed. So what was recorded is kept, under all that
it was made of, and only the numbers are computed anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from microgpt import source as file
from microgpt.data import Corpus
from microgpt.engines.compiled import Compiled
from microgpt.engines.pack import Start, pack
from microgpt.engines.rehearse import NUMBERS, Course, told
from microgpt.errors import LeavesContract
from microgpt.run import Run, about, expected_weights

HELD_OUT = 50  # documents that the page's held-out loss is measured on
MOST_STEPS = 200_000
MOST_READ = 2_000_000  # documents, over all steps
KEPT = 6  # sources, and programs of each

# Where the numbers of train and init may be read otherwise than by a call that is given them.
_ELSEWHERE = re.compile(r"\b(?:init|train|__defaults__|__kwdefaults__|inspect|globals)\b")


@dataclass
class _Known:
    """A source, apart from the numbers of its `train` and `init`, and what was compiled of it."""

    run: Run
    compiled: dict[Any, Compiled]


class Packer:
    """Packs runs, and keeps what it has compiled."""

    def __init__(self) -> None:
        self._known: dict[Any, _Known] = {}

    def pack(
        self,
        source: str,
        corpus: Corpus,
        seeds: Sequence[int] = (42,),
        *,
        lanes: int = 1,
        sampled: int = 0,
        most: int | None = None,
    ) -> bytes | None:
        """Runs of a source, ready for the kernel.

        Args:
            source: the text of the file, or of an edit of it.
            corpus: the documents.
            seeds: one for each run; several are trained side by side in the lanes.
            lanes: 1 or 4.
            sampled: the seed of the samples.
            most: the most weights that are worth it; with more there is no pack, and None.

        Raises:
            LeavesContract: in words, why the kernel cannot train this source.
            MicrogptError: the source fails.
        """
        knobs = [k for k in file.knobs(source) if _free(k)]
        sizes = {k.name: k.value for k in knobs if k.function == "init"}
        expected = expected_weights(sizes, len(set("".join(corpus.docs))) + 1)
        if most is not None and expected is not None and expected > most:
            return None
        known = self._recall(source, knobs, corpus, seeds[0])
        starts, numbers, last = [], None, None
        for seed in seeds:
            run = known.run if seed == known.run.seed else known.run.again(seed=seed)
            _trainable(run)
            compiled, course = _compile(known, run)
            start, moves = _start(run, compiled, course)
            if numbers not in (None, moves):
                raise LeavesContract("its runs do not move their weights alike")
            starts.append(start)
            numbers, last = moves, compiled
        assert numbers is not None
        assert last is not None
        run = known.run
        docs = run._held_out(HELD_OUT) if run.held_out_docs else []
        held_out = [last.ids(doc) for doc in docs]
        facts = {"run": about(run), "seeds": list(seeds)}
        return pack(last, starts, numbers, held_out, facts, lanes=lanes, seed=sampled)

    def _recall(self, source: str, knobs: Sequence[file.Knob], corpus: Corpus, seed: int) -> _Known:
        """What is known of a source; its run is one with these numbers and this seed."""
        key = _without(source, knobs), id(corpus)
        known = self._known.pop(key, None)
        if known is None:
            known = _Known(Run(source, corpus, seed=seed), {})
        elif (source, seed) != (known.run.source, known.run.seed):
            values = {(k.function, k.name): k.value for k in knobs}
            known.run = known.run.again(source, values, seed)
        self._known[key] = known  # the last one that was used
        if len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
        return known


def _free(knob: file.Knob) -> bool:
    """Whether a program stays as it is when this number of it changes."""
    if knob.function == "train":
        return knob.name in NUMBERS and told(knob)
    return knob.function == "init"


def _without(source: str, knobs: Sequence[file.Knob]) -> str:
    """A source in which the numbers of `train` and `init` are all alike; the source itself where
    they may matter for more than a run that is told them."""
    lines = source.split("\n")
    for knob in sorted(knobs, key=lambda k: (k.line, -k.column)):
        row = lines[knob.line - 1].encode()
        kind = b"<whole>" if type(knob.value) is int else b"<number>"  # as no source has it
        lines[knob.line - 1] = (row[: knob.column - 1] + kind + row[knob.end_column - 1 :]).decode()
    text = "\n".join(lines)
    program, _, _ = text.partition("\nif __name__ ==")
    return text if len(_ELSEWHERE.findall(program)) == 2 else source


def _trainable(run: Run) -> None:
    """Refuse a run that is too long for the page, or without an end."""
    run._need_data()
    if run.context is None:
        raise LeavesContract("it has no limit to the tokens that it reads at once")
    if run.steps is None:
        raise LeavesContract("its train does not say how many steps there are")
    if not 1 <= run.steps <= MOST_STEPS or run.steps * (run.batch or 1) > MOST_READ:
        raise LeavesContract(f"it is not trained for 1 to {MOST_STEPS:,} steps")


def _compile(known: _Known, run: Run) -> tuple[Compiled, Course]:
    """The program of a run and its course; compiled before, where nothing of that has changed."""
    compiled: Compiled | None = None
    course = run.schedule(lambda doc: compiled.ids(doc) if compiled else ())
    assert run.context is not None
    shapes = tuple(tuple(w.shape) for w in run._weights)
    key = shapes, run.context, course.batch, course.scale, course.update
    compiled = known.compiled.get(key)
    if compiled is None:
        compiled = Compiled(run.source, run.namespace, run._params, run.vocab, run.context, course)
        if len(known.compiled) >= KEPT:
            del known.compiled[next(iter(known.compiled))]
        known.compiled[key] = compiled
    return compiled, course


def _start(
    run: Run, compiled: Compiled, course: Course
) -> tuple[Start, Sequence[tuple[float, ...]]]:
    """How a run begins, and what each of its steps moves the weights with."""
    assert run.steps is not None
    weights = [w.data for w in run._weights]
    taken = course.take(run.steps)
    if len(taken.numbers) < run.steps:
        course.take(1)  # says why there are no more
    if any(len(ids) > compiled.context + 1 for ids in taken.documents):
        raise LeavesContract("its train reads more tokens at once than the context holds")
    places: dict[tuple[int, ...], int] = {}
    order = [places.setdefault(ids, len(places)) for ids in taken.documents]
    return Start(weights, list(places), order), taken.numbers

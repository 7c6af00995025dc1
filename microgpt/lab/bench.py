"""A bench: it performs the runs that are wanted, and keeps them, so that none is made twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from microgpt import data
from microgpt.data import Corpus
from microgpt.errors import MicrogptError
from microgpt.lab.records import Ledger, Record, identity, record
from microgpt.lab.trials import Result, Trial, perform

FIRST_SEED = 42  # as everywhere else
SEEDS = 8
Spread = Callable[[Sequence[Trial]], Iterable[tuple[int, list[Result]]]]


@dataclass(frozen=True)
class Wanted:
    """Runs that are wanted.

    Attributes:
        trial: the program, its data, and all its seeds.
        program: what it is called.
        baseline: what the one is called that it is compared with, or None.
    """

    trial: Trial
    program: str
    baseline: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far a bench is: runs done, of those that are known to be wanted, and the newest."""

    done: int
    wanted: int
    newest: Record


class Bench:
    """Performs runs and keeps them.

    Args:
        results: a file to keep them in; what is in it is not run again.
        spread: what performs the trials: here, or on several processes.
        budget: seconds from now after which no further run is begun, or None.

    Attributes:
        used: records of all that was wanted so far, by `id`.
        left_out: what was wrong with the file, a sentence for each line.
        over: whether the budget was used up before all was done.

    Raises:
        MicrogptError: the file cannot be used.
    """

    def __init__(
        self, results: Path | None, spread: Spread | None, budget: float | None = None
    ) -> None:
        self._ledger = Ledger.open(results) if results is not None else None
        self._known: dict[str, Record] = dict(self._ledger.records) if self._ledger else {}
        self._spread = spread or here
        self._end = None if budget is None else time.monotonic() + budget
        self.used: dict[str, Record] = {}
        self.left_out = self._ledger.left_out if self._ledger else []
        self.over = False

    def find(self, trial: Trial, seed: int) -> Record | None:
        """The record of a run that was wanted and is done."""
        return self.used.get(identity(trial, seed))

    def perform(self, wanted: Sequence[Wanted]) -> Iterator[Progress]:
        """Make the runs that are not there yet, in parts that one call of the kernel does."""
        parts = [part for one in self._missing(wanted) for part in _parts(one)]
        done = len(self.used)
        total = done + sum(len(part.trial.seeds) for part in parts)
        for place, results in self._spread([part.trial for part in parts]):
            part = parts[place]
            # All that is finished is kept before anybody hears of it, and may stop.
            for new in [self._keep(part, result) for result in results]:
                done += 1
                yield Progress(done, total, new)
            if self._end is not None and time.monotonic() > self._end and done < total:
                self.over = True
                return

    def _missing(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """The same, once each and without what is known."""
        found: dict[tuple[str, str | None, int], tuple[Wanted, list[int]]] = {}
        for one in wanted:
            trial = one.trial
            key = trial.source, trial.like, id(trial.corpus)
            _, seeds = found.setdefault(key, (one, []))
            for seed in trial.seeds:
                name = identity(trial, seed)
                if name in self._known:
                    self.used.setdefault(name, self._known[name])
                elif seed not in seeds:
                    seeds.append(seed)
        return [
            Wanted(with_seeds(one.trial, seeds), one.program, one.baseline)
            for one, seeds in found.values()
            if seeds
        ]

    def _keep(self, part: Wanted, result: Result) -> Record:
        new = record(part.trial, result, part.program, part.baseline)
        self._known[new["id"]] = self.used[new["id"]] = new  # first: a Ctrl-C may come in between
        if self._ledger is not None:
            self._ledger.add(new)
        return new


def with_seeds(trial: Trial, seeds: Sequence[int]) -> Trial:
    """The same trial with other seeds."""
    return Trial(trial.source, trial.corpus, tuple(seeds), trial.like, trial.engine)


def _parts(one: Wanted) -> Iterator[Wanted]:
    size = _beside()
    for i in range(0, len(one.trial.seeds), size):
        part = with_seeds(one.trial, one.trial.seeds[i : i + size])
        yield Wanted(part, one.program, one.baseline)


def _beside() -> int:
    """How many runs the kernel of this machine does side by side."""
    from microgpt.engines.kernel import Kernel, kernel

    found = kernel()
    return found.lanes[0] if isinstance(found, Kernel) else SEEDS


def here(trials: Sequence[Trial]) -> Iterator[tuple[int, list[Result]]]:
    """One trial after another, in this process."""
    for place, trial in enumerate(trials):
        yield place, perform(trial)


def seeds_of(asked: int | Sequence[int]) -> list[int]:
    """Seeds, where it was said how many, or which.

    Raises:
        MicrogptError: there is none, or they are no whole numbers.
    """
    if isinstance(asked, int):
        if isinstance(asked, bool) or asked < 1:
            raise MicrogptError(f"At least 1 seed is needed, not {asked}.")
        return list(range(FIRST_SEED, FIRST_SEED + asked))
    found = list(dict.fromkeys(asked))
    if not found:
        raise MicrogptError("At least 1 seed is needed, and none is given.")
    if not all(type(seed) is int for seed in found):
        raise MicrogptError("Seeds are whole numbers.")
    return found


def corpora(tasks: Sequence[str | Corpus]) -> list[Corpus]:
    """Corpora, by name or as they are, each once.

    Raises:
        MicrogptError: there is none, or one cannot be read.
    """
    found = [data.load(task) if isinstance(task, str) else task for task in tasks]
    if not found:
        raise MicrogptError("There are no data to train on.")
    return list({id(corpus): corpus for corpus in found}.values())

"""Trials on several processes, or on a cluster: whatever joblib can reach."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

from microgpt.lab.trials import Result, Trial, perform

WORTH_IT = 3.0  # seconds of work that are left, below which no process is started
Found = tuple[int, list[Result]]


def spread(jobs: int | None = None) -> Callable[[Sequence[Trial]], Iterator[Found]]:
    """What performs trials, for `Experiment`.

    Args:
        jobs: how many processes; 0 for one on each core, where the work is worth it; None for what
            `joblib.parallel_config` says, or else this process alone.
    """

    def performed(trials: Sequence[Trial]) -> Iterator[Found]:
        from joblib import Parallel, delayed
        from joblib.parallel import get_active_backend

        count, first = jobs, 0
        if jobs is None and get_active_backend()[1] is None:
            count = 1
        if jobs == 0:
            began = time.perf_counter()
            if trials:
                yield 0, perform(trials[0])
                first = 1
            left = (time.perf_counter() - began) * (len(trials) - 1)
            count = (os.cpu_count() or 1) if left > WORTH_IT else 1
        if count == 1 or len(trials) - first < 2:
            for place in range(first, len(trials)):
                yield place, perform(trials[place])
            return
        todo = (delayed(_one)(place, trials[place]) for place in range(first, len(trials)))
        pool = Parallel(n_jobs=count, return_as="generator_unordered", pre_dispatch="2*n_jobs")
        yield from pool(todo)

    return performed


def _one(place: int, trial: Trial) -> Found:
    return place, perform(trial)

"""CPU time of a training step: the file in Python against the same program in the fast engine.

    python benchmarks/fast.py [--repeats 7] [--json]

Each round trains, from the same weights on the same names, one name a step: the file for 40
steps, the fast engine for 1,000, and eight seeds side by side in it for 1,000. Their first 40
losses are compared. Times are CPU microseconds for one step of one run; recording and compiling
the program, which happens once, is timed apart. So is, by the clock on the wall, the way from the
text of an edit to the losses of its 1,000 steps: reading it, first weights, recording, training.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.step import machine, spread  # noqa: E402
from microgpt.engines.fast import Fast  # noqa: E402
from microgpt.run import Run  # noqa: E402
from microgpt.source import ORIGINAL  # noqa: E402

FEW, STEPS, SEEDS = 40, 1000, 8


def seconds(work: Any) -> tuple[float, Any]:
    """CPU seconds that something takes in this thread, and what it gives."""
    start = time.thread_time()
    result = work()
    return time.thread_time() - start, result


def compiled(run: Run) -> Fast:
    fast: Fast

    def ids(doc: str) -> tuple[int, ...]:
        return fast.ids(doc)

    schedule = run.schedule(ids)
    assert run.context is not None
    fast = Fast(run.source, run.namespace, run.params, run.vocab, run.context, schedule)
    return fast


def from_edit(exponent: int) -> float:
    """Milliseconds from the text of an edit, which was never seen before, to its training curve."""
    source = ORIGINAL.replace("(x @ fc).relu()", f"(x @ fc).relu() ** {exponent}")
    start = time.perf_counter()
    run = Run(source, steps=STEPS, engine="fast")
    losses = run.advance_by(STEPS)
    taken = time.perf_counter() - start
    if len(losses) < STEPS or run.engine_note:
        raise SystemExit(run.engine_note or "The edit was not trained.")
    return taken * 1e3


def one_round(number: int) -> dict[str, float]:
    runs = [Run(seed=seed) for seed in range(SEEDS)]
    compiling, fast = seconds(lambda: compiled(runs[0]))
    times = {"compiling, ms": compiling * 1e3}
    schedules = [run.schedule(fast.ids) for run in runs]
    for name, count in (("fast", 1), (f"fast, {SEEDS} seeds", SEEDS)):
        state = fast.open(count)
        for i, run in enumerate(runs[:count]):
            state.load(i, [w.data for w in run.named_weights().values()], run.moments)
        plan = state.plan(schedules[:count], STEPS)
        taken, losses = seconds(lambda state=state, plan=plan: state.perform(plan))
        times[name] = taken / STEPS / count * 1e6
        schedules = [run.schedule(fast.ids) for run in runs]
    taken, expected = seconds(lambda: [runs[0].advance() for _ in range(FEW)])
    times["file"] = taken / FEW * 1e6
    if any(abs(a - b[0]) > 1e-5 * a for a, b in zip(expected, losses)):
        raise SystemExit("The losses differ.")
    times["edit to curve, ms"] = from_edit(2 + number)
    times["file / fast"] = times["file"] / times["fast"]
    return times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    one_round(0)  # the interpreter and the processor warm up
    rounds = [one_round(1 + i) for i in range(options.repeats)]
    table = {name: spread([r[name] for r in rounds]) for name in rounds[0]}
    tokens = statistics.mean(len(doc) + 1 for doc in Run(seed=0).train_docs[:STEPS])
    if options.json:
        facts = {"date": datetime.date.today().isoformat(), "machine": machine()}
        print(json.dumps(facts | {"tokens_per_step": tokens, "rounds": table}, indent=2))
        return
    print(f"Python {platform.python_version()} on {machine()}, {datetime.date.today()}")
    print(
        f"names, one a step of {tokens:.2f} predictions, {options.repeats} rounds; CPU "
        "microseconds for a step of one run"
    )
    print(f"\n{'':20}{'min':>10}{'median':>10}{'max':>10}")
    for name, row in table.items():
        print(f"  {name:18}" + "".join(f"{row[key]:10.1f}" for key in ("min", "median", "max")))


if __name__ == "__main__":
    main()

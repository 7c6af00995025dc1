"""Time one peer at one size.

    python -m benchmarks.peers PEER SIZE [--threads N] [--seconds S] [--json]

PEER is one of microgpt, microgpt-lanes (many runs at once, timed for each), numpy, torch,
torch-compile, jax and numba. SIZE is tiny, small, nano or medium, timed per
training step, or sample-tiny or sample-small, timed per token drawn. The first call, in which a
peer compiles what it compiles, is told apart; then the same work is repeated for about S seconds.
At tiny a repetition is the whole run of 1000 steps, from the first weights each time; elsewhere
training goes on. Times are of the clock on the wall. `cores` is CPU time over it: more than N would
be a peer with more threads than it was given, and less than 1 a machine that was busy with others.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.step import machine

if TYPE_CHECKING:
    from benchmarks.peers import Peer

SAMPLES = {"sample-tiny": 10_000, "sample-small": 2_000}  # tokens of one repetition
LEAST = 4  # repetitions, however long they take
SHOWN = 5  # losses, of the first steps
LAST = 100  # steps whose mean loss is told at tiny


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("peer", choices=peers.PEERS)
    parser.add_argument("size", choices=[*peers.SIZES, *SAMPLES])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5, help="of timed repetitions")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.threads < 1:
        parser.error("--threads must be at least 1")

    peers.limit_threads(options.threads, options.peer)
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # every first call compiles afresh
    start = time.perf_counter()
    try:
        peer = peers.load(options.peer)
    except ImportError as error:
        raise SystemExit(f"{options.peer} cannot run here: {error}") from None
    report: dict[str, Any] = {
        "peer": options.peer,
        "size": options.size,
        "threads": options.threads,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "library": peers.version(options.peer),
        "import_s": time.perf_counter() - start,
    }
    timed = sampling if options.size in SAMPLES else training
    report |= timed(peer, options.size, options.seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report["peak_mb"] = peak / (1e6 if sys.platform == "darwin" else 1e3)
    print(json.dumps(report) if options.json else told(report))


def training(peer: Peer, size: str, seconds: float) -> dict[str, Any]:
    """Milliseconds per step, and the losses."""
    steps = peers.SIZES[size].repetition
    problem = peers.problem(size)
    start = time.perf_counter()
    run = peer.prepare(problem)
    losses = run.step_many(steps).tolist()
    first = time.perf_counter() - start
    done = steps

    def prepared() -> None:  # a repetition must not run beyond the last step
        nonlocal done
        if done + steps > peers.STEPS:
            run.reset()
            done = 0

    def repeated() -> None:
        nonlocal done
        found = run.step_many(steps)
        if done == len(losses) < SHOWN:
            losses.extend(found.tolist())
        done += steps

    parts = steps * getattr(run, "runs", 1)
    report = {"first_s": first} | repetitions(repeated, parts, 1e3, seconds, prepared)
    report |= {"unit": "ms/step", "steps": steps, "losses": losses[:SHOWN]}
    if steps == peers.STEPS:
        report["last_100"] = statistics.fmean(losses[-LAST:])
    return report


def sampling(peer: Peer, size: str, seconds: float) -> dict[str, Any]:
    """Microseconds per token, drawn from the first weights of a size."""
    weights = peers.problem(size.removeprefix("sample-")).weights
    n = SAMPLES[size]

    def repeated() -> None:
        peer.generate(weights, n, seed=0)

    start = time.perf_counter()
    repeated()
    first = time.perf_counter() - start
    report = {"first_s": first} | repetitions(repeated, n, 1e6, seconds)
    return report | {"unit": "us/token", "steps": n, "tokens_per_s": 1e6 / report["median"]}


def repetitions(
    work: Callable[[], object],
    parts: int,
    scale: float,
    seconds: float,
    before: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Time the work again and again; `before` is left out of the time. Per part of the work."""
    times: list[float] = []
    cpu = 0.0
    end = time.perf_counter() + seconds
    while len(times) < LEAST or time.perf_counter() < end:
        before()
        start, start_cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - start) / parts * scale)
        cpu += time.process_time() - start_cpu
    return {
        "min": min(times),
        "median": statistics.median(times),
        "max": max(times),
        "times": times,
        "repetitions": len(times),
        "cores": cpu / (sum(times) * parts / scale),
    }


def told(report: dict[str, Any]) -> str:
    r = report
    lines = [
        f"{r['peer']} {r['library']} at {r['size']}, {r['threads']} thread(s); Python {r['python']}"
        f" on {r['machine']}, load {r['load']}, {r['date']}",
        f"  import      {r['import_s']:10.2f} s",
        f"  first call  {r['first_s']:10.2f} s   compilation included",
        *(f"  {key:11} {r[key]:10.4f} {r['unit']}" for key in ("min", "median", "max")),
        f"  repetitions {r['repetitions']:10}     of {r['steps']}; {r['cores']:.2f} cores busy",
        f"  peak memory {r['peak_mb']:10.0f} MB",
    ]
    if "tokens_per_s" in r:
        lines.append(f"  tokens      {r['tokens_per_s']:10.0f} /s  at the median")
    if "losses" in r:
        lines.append("  losses      " + " ".join(f"{loss:.5f}" for loss in r["losses"]))
    if "last_100" in r:
        lines.append(f"  last 100    {r['last_100']:10.4f}     the mean loss of the last 100 steps")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

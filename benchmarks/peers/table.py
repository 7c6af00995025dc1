"""Every peer at every size, side by side: one table for each size.

    python -m benchmarks.peers.table [--sizes tiny small ...] [--threads 1 2] [--rounds 3] [--json]

Each round runs every peer once, each in a process of its own (`python -m benchmarks.peers`), so
that a busy minute of the machine does not fall on one of them alone. A peer's figure is the median
of its repetitions in all rounds; beside it stand the smallest and the largest. The floor is the
number of operations that a step cannot do without, over what NumPy's matrix product reaches on this
machine, on as many threads.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
from typing import Any

from benchmarks import peers
from benchmarks.step import machine

SAMPLES = ("sample-tiny", "sample-small")
SEVERAL = "microgpt-lanes"  # many runs of one program at once, timed per run
PEAK = """
import time, numpy as np
best = 0
for n in (256, 512, 1024):
    a = b = np.random.rand(n, n).astype(np.float32)
    end, k = time.perf_counter() + 1, max(1, int(1e9 / n**3 / 2))
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(k):
            a @ b
        best = max(best, 2 * n**3 * k / (time.perf_counter() - start) / 1e9)
print(best)
"""


def operations(name: str) -> float:
    """What a step of a size cannot do without: multiplications and additions of its products, there
    and back, of a token with those before it only; without Adam. At tiny the mean of all steps."""
    problem, size = peers.problem(name), peers.SIZES[name]
    layers, c, v = size.n_layer, size.n_embd, len(problem.weights["wte"])
    used = problem.lengths[: peers.STEPS * size.batch].astype(float)
    tokens, pairs = used.sum() / peers.STEPS, (used * (used + 1) / 2).sum() / peers.STEPS
    return float(6 * tokens * (12 * c * c * layers + v * c) + 12 * c * layers * pairs)


def peak(threads: int) -> float:
    """Thousand million operations a second, of NumPy's matrix product."""
    start = f"from benchmarks import peers; peers.limit_threads({threads})\n"
    done = subprocess.run(
        [sys.executable, "-c", start + PEAK], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def timed(name: str, size: str, threads: int, seconds: float) -> dict[str, Any] | None:
    """One report of `python -m benchmarks.peers`; None where that peer cannot run."""
    command = [sys.executable, "-m", "benchmarks.peers", name, size, "--json"]
    command += ["--threads", str(threads), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  {name} at {size}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def table(size: str, rows: list[dict[str, Any]], floors: dict[int, float]) -> str:
    """One size's table, fastest first, a row for each peer and number of threads."""
    unit = rows[0]["unit"]
    rows = sorted(rows, key=lambda r: r["median"])
    others = [r["median"] for r in rows if not r["peer"].startswith("microgpt")]
    lines = [f"{size}, {unit}" + (
        "; the floor is " + ", ".join(f"{f:.4g} on {t}" for t, f in floors.items()) + " threads"
        if floors else ""
    )]  # fmt: skip
    lines.append(
        f"  {'':16}{'threads':>8}{'min':>10}{'median':>10}{'max':>10}{'to floor':>10}"
        f"{'to best':>10}{'first call':>12}{'memory':>9}"
    )
    for r in rows:
        floor = f"{r['median'] / floors[r['threads']]:.2f}" if floors else ""
        best = f"{min(others) / r['median']:.2f}" if others else ""
        lines.append(
            f"  {r['peer']:16}{r['threads']:8}{r['min']:10.4g}{r['median']:10.4g}{r['max']:10.4g}"
            f"{floor:>10}{best:>10}{r['first_s']:10.2f} s{r['peak_mb']:6.0f} MB"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    sizes = (*peers.SIZES, *SAMPLES)
    parser.add_argument("--peers", nargs="+", choices=peers.PEERS, default=peers.PEERS)
    parser.add_argument("--sizes", nargs="+", choices=sizes, default=sizes)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each peer in each round")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()

    peaks = {threads: peak(threads) for threads in options.threads}
    work = [
        (size, name, threads)
        for size in options.sizes
        for threads in options.threads
        if not (threads > 1 and size in ("tiny", *SAMPLES))  # a step of one short text, one token
        for name in options.peers
        if not (name == SEVERAL and size != "tiny")
    ]
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for round_ in range(options.rounds):
        for size, name, threads in work:
            print(f"  round {round_ + 1}: {name} at {size}, {threads}", end="\r", file=sys.stderr)
            report = timed(name, size, threads, options.seconds)
            if report is not None:
                found.setdefault((size, name, threads), []).append(report)
    rows = [
        reports[0]
        | {
            "median": statistics.median(t for r in reports for t in r["times"]),
            "min": min(r["min"] for r in reports),
            "max": max(r["max"] for r in reports),
            "first_s": min(r["first_s"] for r in reports),
            "peak_mb": max(r["peak_mb"] for r in reports),
            "times": [t for r in reports for t in r["times"]],
        }
        for reports in found.values()
    ]
    facts = {"date": datetime.date.today().isoformat(), "machine": machine(), "peak": peaks}
    if options.json:
        print(json.dumps(facts | {"rows": rows}))
        return
    print(" " * 60, end="\r", file=sys.stderr)
    print(f"Python {platform.python_version()} on {machine()}, {datetime.date.today()}")
    told = [f"{value:.0f} GFLOP/s on {threads} thread(s)" for threads, value in peaks.items()]
    print(f"NumPy's matrix product: {', '.join(told)}; {options.rounds} rounds")
    for size in options.sizes:
        here = [row for row in rows if row["size"] == size]
        floors = (
            {t: operations(size) / peaks[t] / 1e6 for t in {r["threads"] for r in here}}
            if size in peers.SIZES
            else {}
        )
        if here:
            print("\n" + table(size, here, floors))


if __name__ == "__main__":
    main()

"""CPU time of a training step: the file against the same model with one node per number.

    python benchmarks/step.py [--docs 20] [--repeats 5] [--json]

Each round trains one and then the other from the same weights on the same documents, one document
a step, in one process, and compares their losses. Times are CPU milliseconds per step, averaged
over the documents of a round. The garbage collector is left as Python has it, then turned off.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

gpt: Any = importlib.import_module("microgpt.gpt")
scalar: Any = importlib.import_module("benchmarks.scalar")


def machine() -> str:
    """The processor and its cores, as the system names them."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def timed(run: Iterator[float]) -> tuple[float, list[float]]:
    """Run to the end: the CPU milliseconds per step, and the losses."""
    start = time.process_time()
    losses = list(run)
    return (time.process_time() - start) / len(losses) * 1e3, losses


def one_round(docs: list[str], vocab: list[str]) -> tuple[float, float]:
    """CPU milliseconds per step of the file and of the scalar graph, over the same documents."""
    params = gpt.init(random.Random(42), len(vocab))
    matrices, losses = timed(gpt.train(params, docs, vocab, steps=len(docs)))
    params = scalar.copy(gpt.init(random.Random(42), len(vocab)))
    numbers, same = timed(scalar.train(params, docs, vocab, steps=len(docs)))
    for doc, a, b in zip(docs, losses, same, strict=True):
        if abs(a - b) > 1e-9:
            raise SystemExit(f"The losses differ on {doc!r}: {a!r} and {b!r}.")
    return matrices, numbers


def spread(values: list[float]) -> dict[str, float]:
    middle = statistics.median(values)
    return {"min": min(values), "median": middle, "max": max(values)}


def measure(docs: list[str], vocab: list[str], repeats: int) -> dict[str, dict[str, float]]:
    one_round(docs[:2], vocab)  # the interpreter warms up
    rounds = [one_round(docs, vocab) for _ in range(repeats)]
    return {
        "file": spread([a for a, _ in rounds]),
        "scalar": spread([b for _, b in rounds]),
        "ratio": spread([b / a for a, b in rounds]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=20, help="documents, and so steps, per round")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.docs < 1 or options.repeats < 1:
        parser.error("--docs and --repeats must be at least 1")

    names = (ROOT / "microgpt" / "data" / "names.txt").read_text(encoding="utf-8").split()
    vocab = gpt.vocabulary(names)
    docs = names[: options.docs]
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "machine": machine(),
        "docs": len(docs),
        "tokens_per_step": statistics.mean(len(doc) + 1 for doc in docs),
        "repeats": options.repeats,
        "collector_on": measure(docs, vocab, options.repeats),
    }
    gc.collect()
    gc.disable()
    report["collector_off"] = measure(docs, vocab, options.repeats)
    gc.enable()

    if options.json:
        print(json.dumps(report, indent=2))
        return
    print(f"Python {report['python']} on {report['machine']}, {report['date']}")
    print(
        f"{len(docs)} documents of names.txt, {report['tokens_per_step']:.2f} predictions each, "
        f"{options.repeats} rounds; CPU milliseconds per step"
    )
    for title in ("collector_on", "collector_off"):
        print(f"\n{title.replace('_', ' '):16}{'min':>9}{'median':>9}{'max':>9}")
        for row, unit in (("file", "ms"), ("scalar", "ms"), ("ratio", "times")):
            cells = "".join(f"{report[title][row][key]:9.2f}" for key in ("min", "median", "max"))
            print(f"  {row:14}{cells} {unit}")


if __name__ == "__main__":
    main()

"""Memory of a training run in the fast engine: what it takes, and what the formula says.

    python benchmarks/memory.py [--json]

For each size a process of its own trains three steps with one thread. *engine* is what the engine
asks for, *process* by how much the process grew from before the engine's memory was laid out to
its peak, and *formula* is that of docs/FAST.md, in bytes:

    4 (P (3 + threads) + threads n (30 L C + L H T + 5 C + 6 V))

for P weights and n tokens that are done at a time; C channels, H heads, L layers, T context, V
tokens of the vocabulary.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.step import machine  # noqa: E402
from microgpt.engines.fast import Fast  # noqa: E402
from microgpt.engines.rehearse import Schedule  # noqa: E402
from microgpt.run import Run  # noqa: E402

SIZES: dict[str, dict[str, int]] = {
    "tiny": {},
    "small": {"n_layer": 4, "n_embd": 64, "block_size": 64, "batch": 32},
    "nano": {"n_layer": 4, "n_embd": 128, "block_size": 64, "batch": 12},
    "wide": {"n_layer": 6, "n_embd": 256, "n_head": 8, "block_size": 256, "batch": 8},
}


def formula(fast: Fast, threads: int, layers: int, channels: int, heads: int) -> int:
    """Bytes, as docs/FAST.md has it."""
    tokens, v = fast.training.chunk * fast.context, len(fast.vocab)
    each = 30 * layers * channels + layers * heads * fast.context + 5 * channels + 6 * v
    return 4 * (fast.parameters * (3 + threads) + threads * tokens * each)


def peak() -> int:
    """Of this process, in bytes."""
    kibibytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kibibytes


def measured(name: str) -> dict[str, Any]:
    """One size, in this process."""
    run = Run(steps=10, **{"n_layer": 1, "n_embd": 16, "n_head": 4} | SIZES[name])
    assert run.context is not None
    schedule = run.schedule(lambda doc: fast.ids(doc))
    fast = Fast(run.source, run.namespace, run.params, run.vocab, run.context, schedule)
    full = "".join(run.train_docs[: run.context])  # texts so long that all memory is touched
    texts = [full[i : i + run.context] for i in range(64)]
    assert run.batch is not None and run.lr is not None
    course = Schedule(texts, fast.ids, run.batch, 10, run.lr)
    before = peak()
    state = fast.open(threads=1)
    state.load(0, [w.data for w in run.named_weights().values()], None)
    state.train([course], 3)
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 4} | SIZES[name]
    told = formula(fast, 1, sizes["n_layer"], sizes["n_embd"], sizes["n_head"])
    return {
        "size": name, "weights": fast.parameters, "tokens": fast.training.chunk * fast.context,
        "formula": told, "engine": state.bytes, "process": peak() - before,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--size", choices=SIZES, help="measure this one alone, in this process")
    options = parser.parse_args()
    if options.size:
        print(json.dumps(measured(options.size)))
        return
    rows = []
    for name in SIZES:
        command = [sys.executable, __file__, "--size", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout))
    if options.json:
        facts = {"date": datetime.date.today().isoformat(), "machine": machine()}
        print(json.dumps(facts | {"rows": rows}))
        return
    print(f"Python {platform.python_version()} on {machine()}, {datetime.date.today()}; MB")
    print(f"\n  {'':8}{'weights':>10}{'tokens':>8}{'formula':>10}{'engine':>10}{'process':>10}")
    for r in rows:
        numbers = "".join(f"{r[key] / 1e6:10.2f}" for key in ("formula", "engine", "process"))
        print(f"  {r['size']:8}{r['weights']:10,}{r['tokens']:8}{numbers}")


if __name__ == "__main__":
    main()

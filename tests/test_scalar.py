"""The scalar graph of the benchmarks is the same model: same losses, same gradients, no litter."""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scalar

DOCS = ["anna", "bob", "cecilia", "d", ""]


@pytest.mark.parametrize("n_layer", [1, 2])
def test_the_losses_and_the_weights_are_those_of_the_file(gpt: Any, n_layer: int) -> None:
    vocab = gpt.vocabulary(DOCS)
    sizes = {"n_layer": n_layer, "n_head": 2, "n_embd": 8, "block_size": 6}
    params = gpt.init(random.Random(1), len(vocab), **sizes, std=0.3)
    copied = scalar.copy(params)
    expected = list(gpt.train(params, DOCS, vocab, steps=12))
    losses = list(scalar.train(copied, DOCS, vocab, steps=12))
    assert losses == pytest.approx(expected, abs=1e-9)
    cells = [x for w in gpt.leaves(params) for row in w.data for x in row]
    assert [w.data for w in scalar.leaves(copied)] == pytest.approx(cells, abs=1e-9)


def test_every_gradient_is_that_of_the_file(gpt: Any) -> None:
    params = gpt.init(random.Random(2), 5, n_embd=4, n_head=2, block_size=6, std=0.5)
    copied = scalar.copy(params)
    ids = [0, 4, 2, 2, 0]
    targets = gpt.Tensor([[j == t for j in range(5)] for t in ids[1:]])
    gpt.backward(gpt.cross_entropy(gpt.gpt(ids[:-1], **params), targets))
    scalar.cross_entropy(scalar.gpt(ids[:-1], **copied), ids[1:]).backward()
    cells = [g for w in gpt.leaves(params) for row in w.grad for g in row]
    assert [w.grad for w in scalar.leaves(copied)] == pytest.approx(cells, abs=1e-12)


def test_a_value_used_twice_gets_both_gradients() -> None:
    x, y = scalar.Value(3.0), scalar.Value(2.0)
    z = x * x * y + x + y**3
    z.backward()
    assert (z.data, x.grad, y.grad) == (29.0, 13.0, 21.0)


def test_a_step_leaves_no_reference_cycles(gpt: Any) -> None:
    vocab = gpt.vocabulary(DOCS)
    params = scalar.copy(gpt.init(random.Random(3), len(vocab), n_embd=4, n_head=1, block_size=6))
    gc.collect()
    gc.disable()
    try:
        list(scalar.train(params, DOCS, vocab, steps=3))
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_the_benchmark_runs_and_reports_both(path: Path) -> None:
    """One short round; how the two compare is a matter for a quiet machine, not for a test."""
    script = path.parent.parent / "benchmarks" / "step.py"
    command = [sys.executable, str(script), "--docs", "2", "--repeats", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    report = json.loads(done.stdout)
    assert report["docs"] == 2
    assert report["machine"]
    assert report["python"]
    for part in ("collector_on", "collector_off"):
        for row in ("file", "scalar", "ratio"):
            spread = report[part][row]
            assert 0 < spread["min"] <= spread["median"] <= spread["max"]

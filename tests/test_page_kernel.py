"""The compiled kernel in the page's worker: it trains as it does natively, and always stops."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import test_engine
from engines import edited, library

from microgpt.run import Run
from microgpt.source import ORIGINAL

Page = test_engine.Page
address, visit, page = test_engine.address, test_engine.visit, test_engine.page  # fixtures

SOON = 3000  # ms, on a busy machine


def trained(page: Page, source: str | None = None, **arguments: Any) -> Any:
    """What came of a run; of the one that came with the page when there is no source."""
    asked = None if source is None else {"source": source, **arguments}
    return page.page.evaluate("asked => trainNow(asked)", asked)


def natively(source: str = ORIGINAL, **arguments: Any) -> tuple[list[float], float, list[str]]:
    """Losses, held-out loss and samples of the same run, here."""
    library()
    run = Run(source, engine="fast", **arguments)
    assert run.steps is not None
    losses = run.advance_by(run.steps)
    return losses, run.held_out_loss(50), run.sample(6, seed=0)


def alike(found: Any, source: str = ORIGINAL, **arguments: Any) -> None:
    """The same numbers but for rounding, which grows with the steps."""
    losses, held_out, _ = natively(source, **arguments)
    assert found["losses"][:20] == pytest.approx(losses[:20], rel=1e-4)
    assert found["losses"] == pytest.approx(losses, rel=0.05)
    assert found["heldOut"][-1]["losses"] == [pytest.approx(held_out, rel=0.01)]


@pytest.fixture
def alone(visit: test_engine.Visit) -> Page:
    """A page in which Python is never started."""
    opened = visit()
    opened.open("#wait")
    return opened


def test_the_run_that_comes_with_the_page_is_trained_without_python(alone: Page) -> None:
    found = trained(alone)
    alike(found)
    assert found["steps"] == 1000
    assert [mark["step"] for mark in found["heldOut"]] == [*range(0, 1001, 100)]
    assert [mark["step"] for mark in found["samples"]] == [*range(0, 1001, 100)]
    assert found["snapshots"] == [*range(0, 1001, 100)]
    assert found["samples"][0]["texts"] == Run(engine="fast").sample(6, seed=0)
    assert all(len(mark["texts"]) == 6 for mark in found["samples"])
    assert not [url for url in alone.requests if "pyodide" in url]
    assert alone.troubles == []


def test_edits_are_trained_as_they_are_natively(page: Page) -> None:
    for source in (
        edited(("steps=1000", "steps=150"), ("lr=0.01", "lr=0.02")),
        edited(("steps=1000", "steps=60"), ("batch=1", "batch=5"), ("n_layer=1", "n_layer=2")),
        edited(("steps=1000", "steps=120"), ("hidden = (x @ fc).relu()", "hidden = x @ fc")),
        edited(("steps=1000", "steps=90"), ("lr * (1 - step / steps)", "lr if step < 9 else 1e-3")),
    ):  # fmt: skip
        alike(trained(page, source), source)
    found = trained(page, edited(("steps=1000", "steps=50")), seed=3)
    alike(found, edited(("steps=1000", "steps=50")), seed=3)
    assert found["run"]["seed"] == 3
    assert page.troubles == []


def test_four_seeds_side_by_side(page: Page) -> None:
    source = edited(("steps=1000", "steps=80"))
    found = trained(page, source, seeds=[1, 2, 3, 4], lanes=4)
    for i, seed in enumerate((1, 2, 3, 4)):
        losses, held_out, _ = natively(source, seed=seed)
        assert found["losses"][i::4][:20] == pytest.approx(losses[:20], rel=1e-4)
        assert found["heldOut"][-1]["losses"][i] == pytest.approx(held_out, rel=0.01)


def test_what_cannot_be_followed_is_refused_in_a_sentence(page: Page) -> None:
    source = edited(("def flip(a): return", "def flip(a, b=0): return"))
    assert trained(page, source)["refused"] == (
        "This edit is trained by Python itself, which is slower: it changes flip, which the fast "
        "engine has a copy of (line 14)."
    )


def test_a_loss_that_is_no_number_ends_the_run_with_its_step_and_line(page: Page) -> None:
    found = trained(page, edited(("lr=0.01", "lr=1e30")))
    assert found["steps"] == len(found["losses"]) < 10
    assert all(map(math.isfinite, found["losses"]))
    assert found["diverged"]["loss"] in ("NaN", "Infinity")
    line = ORIGINAL.splitlines()[found["diverged"]["line"] - 1]
    assert "def norm" in ORIGINAL[: ORIGINAL.index(line)]  # in the model, or what is made of it


LONG = """async () => {
    const seen = [];
    kernel.on("report", ({ id, step, done }) => seen.push({ id, step, done }));
    kernel.start();
    const answer = await fetch("first.pack.gz");
    const unfolded = answer.body.pipeThrough(new DecompressionStream("gzip"));
    const bytes = await new Response(unfolded).arrayBuffer();
    // the same steps many times over: a run that takes long, as nothing in the page's own does
    const length = new DataView(bytes).getUint32(4, true);
    const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length)));
    window.packed = (change) => {
        const told = structuredClone(facts);
        change(told);
        let text = JSON.stringify(told);
        text += " ".repeat((8 - (new TextEncoder().encode(text).length % 8)) % 8);
        const head = new TextEncoder().encode(text);
        const pack = new Uint8Array(8 + head.length + bytes.byteLength - 8 - length);
        pack.set(new Uint8Array(bytes, 0, 8));
        new DataView(pack.buffer).setUint32(4, head.length, true);
        pack.set(head, 8);
        pack.set(new Uint8Array(bytes, 8 + length), 8 + head.length);
        return pack.buffer;
    };
    window.told = seen;
}"""


def until(page: Page, expression: str, most: int = SOON) -> Any:
    """The value of an expression once it is true; the page's policy forbids Playwright's own."""
    end = time.monotonic() + most / 1000
    while time.monotonic() < end:
        found = page.page.evaluate(expression)
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {most} ms: {expression}: {page.page.evaluate('told')}")


def test_a_newer_run_takes_the_place_of_the_older_and_stop_ends_it(alone: Page) -> None:
    """Fifty runs are asked for at once: only the last is reported to its end."""
    alone.page.evaluate(LONG)
    last = alone.page.evaluate(
        "() => { let id; for (let i = 0; i < 50; i++) id = kernel.train(packed(() => {}));"
        " return id; }"
    )
    until(alone, f"told.some((r) => r.id === {last} && r.done)")
    assert alone.page.evaluate("[...new Set(told.map((r) => r.id))]") == [last]
    # held-out text is read a thousand times at every step: slow enough to be stopped on the way
    alone.page.evaluate("kernel.train(packed((facts) => { facts.every = 1; }))")
    alone.page.evaluate("setTimeout(() => kernel.stop(), 30)")
    end = until(alone, "told.at(-1).id !== told[0].id && told.at(-1).done && told.at(-1)")
    assert 0 < end["step"] < 1000
    again = alone.page.evaluate("kernel.train(packed(() => {}))")
    until(alone, f"told.some((r) => r.id === {again} && r.done && r.step === 1000)")
    assert alone.troubles == []


def test_too_much_memory_is_a_sentence_and_the_next_run_goes_well(alone: Page) -> None:
    alone.page.evaluate(LONG)
    alone.page.evaluate("void kernel.on('refused', ({ message }) => (window.refused = message))")
    alone.page.evaluate("kernel.train(packed((facts) => { facts.train.own = 2e9; }))")
    assert until(alone, "window.refused") == (
        "This model takes 7.5 GiB of memory, more than there is; make it smaller."
    )
    again = alone.page.evaluate("kernel.train(packed(() => {}))")
    until(alone, f"told.some((r) => r.id === {again} && r.done)")
    assert alone.troubles == []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (None, "The fast engine could not be loaded; Python does the training."),
        (b"\0asm\1\0\0\0\x7f",
         "This browser is too old for the fast engine; Python does the training."),
    ],
    ids=["not there", "not understood"],
)  # fmt: skip
def test_without_a_kernel_there_is_a_sentence(
    visit: test_engine.Visit, body: bytes | None, sentence: str
) -> None:
    opened = visit()
    opened.page.route(
        "**/kernel-*.wasm",
        lambda route: route.fulfill(status=404) if body is None else route.fulfill(body=body),
    )
    opened.open("#wait")
    assert trained(opened)["problem"] == sentence

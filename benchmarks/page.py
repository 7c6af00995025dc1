"""How light the walk's chapters are, how soon they answer, and how fast the page trains: measured
in Chromium.

Each chapter is opened with an empty cache on a slow line (1.6 Mbit/s, 150 ms), served compressed as
a static host serves it. Told are the bytes before Python; when its text is first painted; when the
largest part of what is first seen stands there, so that it can be read; and when it is alive. Then,
on a fast line with Python there, how long it takes from an act of the reader until the page has
drawn the answer. Last the workbench: how soon the page that opens has trained its model; how long
the kernel takes for it, and Python to lay a run out for the kernel; and while a number is dragged,
from the move of the mouse to the curve that it leads to.

    python benchmarks/page.py            needs the built page (make site) and Chromium
    python benchmarks/page.py weight     only the first table; `answers` or `training`, only that
"""

from __future__ import annotations

import argparse
import gzip
import http.server
import itertools
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from microgpt import source as file  # noqa: E402

BUILT = Path(os.environ.get("MICROGPT_SITE", ROOT / "microgpt" / "site" / "built"))
SLOW = {
    "offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 200_000,
}  # fmt: skip
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
COMPRESSED = {".html", ".css", ".js", ".mjs", ".json", ".svg"}
REST = 1500  # ms after a page is alive, for what comes later


class Compressing(http.server.SimpleHTTPRequestHandler):
    """Hands out text compressed, as GitHub Pages does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.suffix not in COMPRESSED or not path.is_file():
            return super().do_GET()
        body = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        self.send_header("content-type", self.guess_type(str(path)))
        self.send_header("content-encoding", "gzip")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Says nothing of a browser that was closed while it read."""

    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass


def chapters() -> list[str]:
    """The chapters' names, in order."""
    text = (BUILT / "walk" / "index.html").read_text(encoding="utf-8")
    return re.findall(r'data-chapter="([^"]+)"', text)


# ---- Weight, and the first seconds on a slow line ----

WATCH = """
addEventListener("DOMContentLoaded", () => {
  const look = () => {
    const bar = document.querySelector(".step-bar");
    if (bar && !bar.hidden) window.alive = performance.now();
    else requestAnimationFrame(look);
  };
  look();
});
"""
TIMES = """() => new Promise((told) => {
  const first = performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? NaN;
  new PerformanceObserver((list) => told([first, list.getEntries().at(-1).startTime, window.alive]))
    .observe({ type: "largest-contentful-paint", buffered: true });
})"""


def slow(browser: Browser, address: str) -> tuple[float, float, float, float]:
    """Kilobytes before Python; when text was painted, could be read, was alive, in seconds."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.add_init_script(WATCH)
        devtools = context.new_cdp_session(page)
        devtools.send("Network.enable")
        devtools.send("Network.emulateNetworkConditions", SLOW)
        received: dict[str, float] = {}
        urls: dict[str, str] = {}
        devtools.on(
            "Network.responseReceived",
            lambda event: urls.update({event["requestId"]: event["response"]["url"]}),
        )
        devtools.on(
            "Network.loadingFinished",
            lambda event: received.update({event["requestId"]: event["encodedDataLength"]}),
        )
        held: list[Route] = []  # Python comes afterwards, and is not what is measured here
        for python in ("**/python-*/**", "**/trained.safetensors"):
            page.route(python, lambda route: held.append(route))
        page.goto(address, wait_until="load")
        page.locator(".step-bar:not([hidden])").wait_for()
        page.wait_for_timeout(REST)
        painted, readable, alive = page.evaluate(TIMES)
        for route in held:
            route.abort()
    size = sum(size for key, size in received.items() if "/python-" not in urls.get(key, ""))
    return size / 1000, painted / 1000, readable / 1000, alive / 1000


def weigh(browser: Browser, base: str, rounds: int) -> None:
    """Print what each chapter weighs and how soon it can be read."""
    print(f"1.6 Mbit/s, 150 ms, empty cache; medians of {rounds}")
    print(f"{'chapter':20}{'before Python':>14}{'painted':>11}{'readable':>11}{'alive':>11}")
    for name in chapters():
        found = [slow(browser, f"{base}/walk/{name}.html") for _ in range(rounds)]
        size, *times = (statistics.median(column) for column in zip(*found))
        told = "".join(f"{seconds:9.2f} s" for seconds in times)
        print(f"{name:20}{size:11.0f} kB{told}", flush=True)


# ---- From an act to its answer ----

# Acts, and waits frame by frame until what `shown` names has another text; then for its drawing.
ANSWER = """async ([act, shown, value]) => {
  const frame = () => new Promise(requestAnimationFrame);
  const look = () => [...document.querySelectorAll(shown)].map((one) =>
    one.textContent + (one.getAttribute("class") ?? "") + (one.getAttribute("d") ?? "")).join();
  const target = document.querySelector(act);
  const before = look();
  await frame();
  const begun = performance.now();
  if (value === null) target.click();
  else {
    const event = value === "hover" ? new PointerEvent("pointerover", { bubbles: true })
      : new Event("input", { bubbles: true });
    if (value !== "hover") target.value = value;
    target.dispatchEvent(event);
  }
  while (look() === before) {
    await frame();
    if (performance.now() - begun > 20000) throw new Error(`${shown} did not change`);
  }
  await frame(); // it is drawn
  return performance.now() - begun;
}"""

TEXTS = ["emma", "noor", "mila", "hana", "otto", "lena", "ravi"]
DRAWING = "figure .drawing"

# What is done, in which chapter; where, what then changes, and with which values: None is a click.
ACTS: list[tuple[str, str, str, str, list[str | None]]] = [
    ("text: its tokens", "tokens", "#own-text", f"{DRAWING} .strip", [*TEXTS]),
    ("text: attention", "attention", "#own-text", f"{DRAWING} .attention .sentence", [*TEXTS]),
    ("text: a matrix", "feed-forward", "#own-text", f"{DRAWING} .matrix tbody", [*TEXTS]),
    ("text: the stream", "residual-and-norm", "#own-text", f"{DRAWING} .stream .rows", [*TEXTS]),
    ("text: surprise", "loss", "#own-text", f"{DRAWING} .surprise .facts", [*TEXTS]),
    ("text: every gradient", "backpropagation", "#own-text", f"{DRAWING} .backward .facts",
     [*TEXTS]),
    ("a score is dragged", "attention", f"{DRAWING} .softmax input", f"{DRAWING} .softmax .weight",
     ["1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7"]),
    ("an input of an expression", "autograd", f"{DRAWING} .expression .sliders input",
     f"{DRAWING} .expression svg .value", ["2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7"]),
    ("a weight is nudged", "backpropagation", f"{DRAWING} .nudge input[type=range]",
     f"{DRAWING} .nudge dd", ["-2", "-1.5", "-1", "-0.5", "-2.5", "-2.2", "-1.2"]),
    ("another seed", "language-model", f"{DRAWING} .writing .bar button:nth-child(3)",
     f"{DRAWING} .writing .now-drawn", [None] * 7),
    ("a head is chosen", "attention", f"{DRAWING} .heads [aria-pressed=false]",
     f"{DRAWING} .attention .sentence", [None] * 7),
    ("the next node back", "autograd", f"{DRAWING} .expression button.primary",
     f"{DRAWING} .expression .sentence", [None] * 3),
    ("pointing at a word", "attention", "article .brush:not(.lit)", ".pane [data-brush]",
     ["hover"] * 7),
    ("a cell is opened", "attention", f"{DRAWING} .matrix tbody td:not(.selected)",
     f"{DRAWING} .cellwalk .big", [None] * 7),
    ("Next", "attention", "[data-go=next]", "[data-where]", [None] * 6),
]  # fmt: skip


def ready(page: Page, address: str) -> None:
    """A chapter, all of it alive, with Python there."""
    page.goto(address)
    page.locator(".reader .dot.ready").wait_for(state="attached", timeout=90_000)
    page.evaluate(
        """async () => {
          for (const one of document.querySelectorAll("main [data-island]")) {
            one.scrollIntoView();
            while (one.dataset.island) await new Promise(requestAnimationFrame);
          }
          scrollTo(0, 0);
        }"""
    )
    page.wait_for_timeout(500)


def answers(browser: Browser, base: str) -> None:
    """Print how long the page takes to draw the answer to an act of the reader."""
    print("From the act to the drawn answer, Python there; milliseconds, frames of 17 included")
    print(f"{'act':28}{'first':>8}{'median':>8}{'max':>8}")
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        for what, chapter, act, shown, values in ACTS:
            ready(page, f"{base}/walk/{chapter}.html")
            times = []
            for value in values:
                times.append(page.evaluate(ANSWER, [act, shown, value]))
                page.wait_for_timeout(250)
            rest = times[1:]
            print(
                f"{what:28}{times[0]:8.0f}{statistics.median(rest):8.0f}{max(rest):8.0f}",
                flush=True,
            )


# ---- Training ----

ENGINE = ROOT / "web" / "generated" / "test-page"  # the page without views, for measuring its parts
ORIGINAL = file.ORIGINAL
EDIT = ORIGINAL.replace("(x @ fc).relu()", "(x @ fc) * 0.5")
COMPARED = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  const begun = performance.now();
  document.querySelector(".compared button").click();
  await frame();
  await frame();
  while (!document.querySelector(".compared b")) await frame();
  return performance.now() - begun;
}"""

# The moves of the mouse with the number that each leads to, and when the curve of it is drawn.
DRAGGED = """() => {
  const field = document.querySelector(".knobs input[id$=-lr]");
  const facts = document.querySelector(".train .facts");
  window.moved = new Map();
  window.drawn = new Map();
  addEventListener("pointermove", () => {
    if (!moved.has(Number(field.value))) moved.set(Number(field.value), performance.now());
  });
  new MutationObserver(() => requestAnimationFrame(() => {
    const now = Number(/learning rate ([\\d.e-]+)/.exec(facts.innerText)[1]);
    if (!drawn.has(now)) drawn.set(now, performance.now());
  })).observe(facts, { childList: true, subtree: true, characterData: true });
}"""


def row(what: str, values: list[float], unit: str = "ms") -> None:
    """One line of the table: the smallest, the middle and the largest."""
    told = "".join(f"{x:10.1f}" for x in (min(values), statistics.median(values), max(values)))
    print(f"{what:46}{told} {unit}   ({len(values)})", flush=True)


def opened(browser: Browser, base: str, rounds: int, python: bool) -> list[float]:
    """From the opening of the workbench until it shows that it has trained its model."""
    times = []
    held: list[Route] = []
    for _ in range(rounds):
        with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
            page = context.new_page()
            if not python:
                page.route("**/pyodide.asm.wasm", lambda route: held.append(route))
            page.goto(f"{base}/index.html#room=train", wait_until="commit")
            page.get_by_text("Trained here").wait_for()
            times.append(page.evaluate("performance.now()"))
            while held:
                held.pop().abort()
    return times


def parts(browser: Browser, address: str, rounds: int) -> None:
    """The kernel and the packing on their own."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        while page.evaluate("engine.status") != "ready":
            page.wait_for_timeout(50)

        def trained(source: str | None = None, **more: object) -> dict[str, float]:
            asked = None if source is None else {"source": source, **more}
            found: dict[str, float] = page.evaluate("asked => trainNow(asked)", asked)
            return found

        first = trained()
        row("the first 1,000 steps, Python there", [1000 * first["seconds"]])
        runs = [trained() for _ in range(4 * rounds)]
        row("1,000 steps, measured and sampled 11 times", [1000 * r["seconds"] for r in runs])
        rates = [ORIGINAL.replace("lr=0.01", f"lr=0.0{i}") for i in range(11, 11 + 2 * rounds)]
        trained(ORIGINAL)
        row("packing, another number of train or init", [trained(s)["packing"] for s in rates])
        edits = [EDIT.replace("0.5", f"0.{i}") for i in range(11, 11 + 2 * rounds)]
        row("packing, an edit of the model", [trained(s)["packing"] for s in edits])
        lanes = [trained(ORIGINAL, seeds=[1, 2, 3, 4], lanes=4) for _ in range(rounds + 1)][1:]
        row("four seeds in the lanes, measured once", [1000 * r["seconds"] for r in lanes])


def compared(browser: Browser, base: str, rounds: int) -> list[float]:
    """From the click until the page says how an edit compares with the original over eight seeds,
    which takes sixteen runs.
    """
    times = []
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.goto(f"{base}/index.html#room=train&{file.encode_link({'source': EDIT})}")
        page.get_by_role("button", name="Use this edit").click()
        button = page.get_by_role("button", name="Compare with the original")
        button.wait_for(timeout=90_000)
        page.wait_for_timeout(3000)
        for _ in range(rounds):
            times.append(page.evaluate(COMPARED))
            page.wait_for_timeout(500)
    return times


def dragging(browser: Browser, base: str) -> None:
    """While the learning rate is dragged: how often the curve is drawn, and how late."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.goto(f"{base}/index.html#room=train")
        page.locator(".engine .status", has_text="ready").wait_for(state="attached", timeout=90_000)
        page.wait_for_timeout(3000)
        box = page.locator(".knobs li label", has_text="lr").bounding_box()
        assert box is not None
        x, y = box["x"] + 10, box["y"] + 8
        page.evaluate(DRAGGED)
        page.mouse.move(x, y)
        page.mouse.down()
        for i in range(240):
            page.mouse.move(x + i, y)
            page.wait_for_timeout(16)
        page.mouse.up()
        page.wait_for_timeout(1000)
        moved, drawn = (dict(page.evaluate(f"[...{name}]")) for name in ("moved", "drawn"))
    late = [drawn[number] - moved[number] for number in drawn if number in moved]
    row("dragged: from the move to its curve", late)
    times = sorted(drawn.values())
    row("dragged: from a curve to the next", [b - a for a, b in itertools.pairwise(times)])


def training(browser: Browser, base: str, rounds: int) -> None:
    """Print how fast the workbench trains."""
    script = ROOT / "web" / "scripts" / "build.py"
    command = [sys.executable, str(script), "--mode", "test", "--out", str(ENGINE)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    handler = partial(Compressing, directory=str(ENGINE))
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"{'training the file on the names':46}{'min':>10}{'median':>10}{'max':>10}")
    row("opened: trained, before Python", opened(browser, base, rounds, python=False))
    row("opened: trained, Python loading beside it", opened(browser, base, rounds, python=True))
    parts(browser, f"http://127.0.0.1:{server.server_port}/engine-test.html", rounds)
    row("an edit and the original, eight paired seeds", compared(browser, base, 2 * rounds))
    dragging(browser, base)
    server.shutdown()


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "table", nargs="?", choices=["weight", "answers", "training"], help="only this one"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="loads of each chapter; the median is told"
    )
    chosen = parser.parse_args()
    handler = partial(Compressing, directory=str(BUILT))
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    own = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=own, args=FLAGS)
        load = os.getloadavg()[0]
        print(
            f"Chromium {browser.version}, {platform.machine()}, {os.cpu_count()} cores "
            f"(load {load:.1f}), {time.strftime('%Y-%m-%d')}"
        )
        if chosen.table in (None, "weight"):
            weigh(browser, base, chosen.rounds)
        if chosen.table in (None, "answers"):
            print("" if chosen.table else "\n", end="")
            answers(browser, base)
        if chosen.table in (None, "training"):
            print("" if chosen.table else "\n", end="")
            training(browser, base, chosen.rounds)
        browser.close()
    server.shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The page's engine in a real browser: it starts, counts honestly, trains, and always stops."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from microgpt.run import Run
from microgpt.source import ORIGINAL

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

ROOT = Path(__file__).resolve().parent.parent
TEST_PAGE = ROOT / "web" / "generated" / "test-page"
PATIENCE = 90  # seconds for Python to start on a busy machine
ENDLESS = "while True: pass\n" + ORIGINAL


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Python's own file server, as a reader might use it."""

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # a browser that was closed while it read


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The engine's page without views, below a folder, as on a shared host."""
    script = ROOT / "web" / "scripts" / "build.py"
    build = [sys.executable, str(script), "--mode", "test", "--out", str(TEST_PAGE)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    top = tmp_path_factory.mktemp("host")
    (top / "some" / "where").mkdir(parents=True)
    (top / "some" / "where" / "page").symlink_to(TEST_PAGE)
    with Server(("127.0.0.1", 0), partial(Quiet, directory=str(top))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/some/where/page/engine-test.html"
        server.shutdown()


class Page:
    """The engine's page, and all that was complained of on it."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.troubles: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", self._console)
        page.on("request", lambda request: self.requests.append(request.url))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and "favicon.ico" not in message.location["url"]:
            self.troubles.append(message.text)

    def open(self, fragment: str = "") -> None:
        self.page.goto(self.address + fragment)

    def status(self) -> str:
        return str(self.page.evaluate("engine.status"))

    def wait_for(self, *statuses: str) -> str:
        """Until the engine has one of these; the page's policy forbids Playwright's own waiting."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            status = self.status()
            if status in statuses:
                return status
            time.sleep(0.02)
        raise AssertionError(f"still {status}: {self.troubles}")

    def ready(self) -> Page:
        self.open()
        assert self.wait_for("ready", "failed") == "ready", self.page.evaluate("engine.failure")
        return self

    def call(self, name: str, /, **arguments: Any) -> Any:
        return self.page.evaluate("([name, args]) => engine.call(name, args)", [name, arguments])

    def refused(self, name: str, /, **arguments: Any) -> Any:
        return self.page.evaluate(
            "([name, args]) => engine.call(name, args).then(() => null, "
            "({ message, line, kind }) => ({ message, line, kind }))",
            [name, arguments],
        )

    def seen(self, name: str) -> list[Any]:
        """What listeners were told under a name."""
        events = self.page.evaluate("seen")
        return [event["value"] for event in events if event["name"] == name]


Visit = Callable[..., Page]


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Visit]:
    contexts = []

    def open_context(**options: Any) -> Page:
        contexts.append(chromium.new_context(**options))
        return Page(contexts[-1].new_page(), address)

    yield open_context
    for context in contexts:
        context.close()


@pytest.fixture
def page(visit: Visit) -> Page:
    """A page in which Python is there."""
    return visit().ready()


# ---- Starting ----


def test_the_build_of_this_page_leaves_the_table_of_licences_alone(address: str) -> None:
    """It carries less than the real page does, whichever of the two was built last."""
    table = (ROOT / "web" / "generated" / "THIRD_PARTY.md").read_text(encoding="utf-8")
    assert "| svelte |" in table


def test_it_starts_from_its_own_folder_without_a_complaint(page: Page) -> None:
    assert page.page.evaluate("engine.boot.source") == ORIGINAL
    assert page.page.evaluate("engine.boot.python").startswith("3.14")
    assert page.page.evaluate("engine.boot.version") != "0.0.0"
    folder = page.address.rpartition("/")[0] + "/"
    host = folder.split("/some/")[0] + "/favicon.ico"
    assert [url for url in page.requests if not url.startswith(folder) and url != host] == []
    assert page.troubles == [], "a complaint here is often one of the page's policy"
    # CodeMirror's styles are there although the policy forbids <style> elements
    assert page.page.evaluate("document.querySelectorAll('style').length") == 0
    assert page.page.evaluate("document.adoptedStyleSheets.length") > 0
    assert (
        page.page.evaluate("getComputedStyle(document.querySelector('.cm-editor')).display")
        == "flex"
    )


def test_progress_counts_every_byte(page: Page) -> None:
    progress = page.seen("progress")
    files = next(TEST_PAGE.glob("assets/python-*"))
    total = sum(f.stat().st_size for f in files.iterdir() if f.suffix != ".mjs")
    assert {step["total"] for step in progress} == {total}
    loaded = [step["loaded"] for step in progress]
    assert loaded == sorted(loaded)
    assert loaded[-1] == total
    assert len(loaded) >= 5
    phases = [step["phase"] for step in progress]
    order = ["download", "python", "import"]
    assert phases == sorted(phases, key=order.index)
    assert set(phases) == set(order)


def test_calls_wait_until_python_is_there(visit: Visit) -> None:
    page = visit()
    page.open("#wait")
    assert page.status() == "idle"
    answer = page.page.evaluate(
        "async () => { const asked = engine.call('link', { state: { seed: 3 } }); engine.start();"
        " return [engine.status, (await asked).text]; }"
    )
    assert answer[0] == "loading"
    assert "3" in answer[1]


@pytest.mark.parametrize("what", ["pyodide.asm.wasm", "stdlib.zip", "core.zip", "pyodide.mjs"])
def test_no_connection_is_a_sentence_and_trying_again_works(visit: Visit, what: str) -> None:
    page = visit()
    page.page.context.route(f"**/{what}", lambda route: route.abort())
    page.open()
    assert page.wait_for("ready", "failed") == "failed"
    failure = page.page.evaluate("engine.failure")
    assert failure["message"].startswith("Python could not be downloaded. Check the connection")
    assert page.refused("boot") == failure, "a call says why, at once"
    page.page.context.unroute(f"**/{what}")
    page.page.evaluate("engine.start()")
    assert page.wait_for("ready", "failed") == "ready"


def test_a_missing_file_is_named(visit: Visit) -> None:
    page = visit()
    page.page.context.route("**/stdlib.zip", lambda route: route.fulfill(status=404))
    page.open()
    assert page.wait_for("ready", "failed") == "failed"
    message = page.page.evaluate("engine.failure.message")
    assert message == "Python could not be downloaded: the server answered 404 for stdlib.zip."


def test_a_damaged_file_is_told(visit: Visit) -> None:
    page = visit()
    page.page.context.route(
        "**/pyodide.asm.wasm", lambda route: route.fulfill(body=b"\0asm damaged")
    )
    page.open()
    assert page.wait_for("ready", "failed") == "failed"
    assert page.page.evaluate("engine.failure.message").startswith("Python did not start: ")


def test_a_wrong_type_from_the_server_does_no_harm(visit: Visit) -> None:
    page = visit()

    def as_text(route: Any) -> None:
        route.fulfill(response=route.fetch(), headers={"content-type": "text/plain"})

    page.page.context.route("**/pyodide.asm.wasm", as_text)
    page.ready()


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("delete globalThis.WebAssembly;", "This browser has no WebAssembly"),
        (
            "WebAssembly.instantiateStreaming = async () => {"
            " throw new RangeError('WebAssembly.Memory(): could not allocate memory'); };",
            "There is not enough memory for Python in this tab",
        ),
        ("throw new SyntaxError('an old browser');", "Python could not be loaded"),
    ],
)
def test_a_browser_that_cannot_run_it_is_told(visit: Visit, missing: str, words: str) -> None:
    page = visit()

    def lacking(route: Any) -> None:
        """Whichever worker is asked for, in a browser that lacks something."""
        worker = TEST_PAGE / "assets" / route.request.url.rsplit("/", 1)[1]
        body = missing + worker.read_text(encoding="utf-8")
        route.fulfill(body=body, content_type="text/javascript")

    page.page.context.route("**/worker-*.js", lacking)
    page.open()
    assert page.wait_for("ready", "failed") == "failed"
    assert page.page.evaluate("engine.failure.message").startswith(words)


# ---- Training ----


def test_training_reports_every_loss_and_the_numbers_are_those_of_the_file(page: Page) -> None:
    page.call("start", source=ORIGINAL, seed=42)
    page.page.evaluate("engine.train()")
    assert page.status() == "busy"
    while len(losses := [x for event in page.seen("train") for x in event["losses"]]) < 8:
        time.sleep(0.05)
    begun = time.monotonic()
    page.page.evaluate("engine.pause()")
    assert time.monotonic() - begun < 2
    assert page.wait_for("ready") == "ready"
    steps = page.seen("train")[-1]["step"]
    time.sleep(0.3)
    assert page.seen("train")[-1]["step"] == steps, "paused"
    native = Run(seed=42)
    for ours, theirs in zip([native.advance() for _ in range(8)], losses, strict=False):
        assert abs(ours - theirs) < 1e-5 * ours  # they travel with six digits
    # it goes on from there
    page.page.evaluate("engine.train()")
    while page.seen("train")[-1]["step"] <= steps:
        time.sleep(0.02)
    page.page.evaluate("engine.pause()")
    counted = [x for event in page.seen("train") for x in event["losses"]]
    assert len(counted) == page.seen("train")[-1]["step"], "no step is lost and none told twice"


def test_questions_are_answered_while_it_trains(page: Page) -> None:
    page.call("start", source=ORIGINAL, seed=1)
    page.page.evaluate("engine.train()")
    answer = page.call("measure", limit=3)
    assert answer["held_out"] > 0
    assert page.page.evaluate("engine.training") is True
    assert page.status() == "busy"
    page.page.evaluate("engine.pause()")


def test_training_ends_by_itself(page: Page) -> None:
    short = page.call("set_knob", source=ORIGINAL, name="steps", value=5)["source"]
    page.call("start", source=short, seed=1)
    page.page.evaluate("engine.train()")
    page.wait_for("ready")
    last = page.seen("train")[-1]
    assert last["done"]
    assert not last["running"]
    assert last["step"] == 5


def test_a_failing_program_ends_the_training_with_its_line(page: Page) -> None:
    lines = ORIGINAL.splitlines()
    at = next(i for i, line in enumerate(lines) if "return hidden @ proj" in line)
    broken = "\n".join([*lines[:at], "    return hidden @ fc", *lines[at + 1 :]])
    page.call("start", source=broken, seed=1)
    page.page.evaluate("engine.train()")
    page.wait_for("ready")
    error = page.seen("train")[-1]["error"]
    assert error["line"] == at + 1
    assert error["kind"] == "run"


# ---- Stop ----


def test_an_endless_loop_is_stopped_within_two_seconds(page: Page) -> None:
    told = page.page.evaluate(
        """async (source) => {
          const asked = engine.call("start", { source }).then(() => null, (error) => error.kind);
          await new Promise((resolve) => setTimeout(resolve, 300)); // the worker is in the loop now
          const begun = performance.now();
          const restarted = await engine.stop();
          const took = performance.now() - begun;
          return { restarted, took, asked: await asked, status: engine.status };
        }""",
        ENDLESS,
    )
    assert told["restarted"] is True
    assert told["took"] < 2000
    assert told["asked"] == "stopped"
    assert told["status"] == "loading"
    assert [reason["kind"] for reason in page.seen("restarted")] == ["stopped"]
    assert page.wait_for("ready", "failed") == "ready"
    assert page.call("start", source=ORIGINAL)["parameters"] == 4192


def test_an_endless_loop_inside_a_step_is_stopped_too(page: Page) -> None:
    lines = ORIGINAL.splitlines()
    at = next(i for i, line in enumerate(lines) if "return hidden @ proj" in line)
    endless = "\n".join([*lines[:at], "    while True: pass", *lines[at:]])
    page.call("start", source=endless)
    page.page.evaluate("void engine.train()")
    time.sleep(0.3)
    assert page.page.evaluate("engine.stop()") is True
    assert page.page.evaluate("engine.training") is False
    assert page.wait_for("ready", "failed") == "ready"


def test_stop_of_a_training_that_listens_needs_no_restart(page: Page) -> None:
    page.call("start", source=ORIGINAL)
    page.page.evaluate("engine.train()")
    assert page.page.evaluate("Promise.all([engine.stop(), engine.stop()])") == [False, False]
    assert page.status() == "ready"
    assert page.seen("restarted") == []
    assert page.call("measure", limit=2)["held_out"] > 0, "the run is still there"


# ---- Programs that misbehave ----


@pytest.fixture(scope="module")
def shared(chromium: Any, address: str) -> Iterator[Page]:
    """One page for all of these: each must leave it working for the next."""
    with chromium.new_context() as context:
        yield Page(context.new_page(), address).ready()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("print('x' * 10)\nwhile False: pass", None),
        ("def f(): return f()\nf()", "itself without end"),
        ("hog = [0] * 10**10", "more memory"),
        ("raise SystemExit(3)", None),
        ("import sys; sys.exit()", None),
        ("import js; js.postMessage('x')", None),
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("x = [" * 5000, None),
    ],
)
def test_a_program_that_misbehaves_leaves_the_engine_alive(
    shared: Page, line: str, words: str | None
) -> None:
    failure = shared.refused("start", source=f"{line}\n{ORIGINAL}")
    if words:
        assert words in failure["message"]
    assert shared.wait_for("ready", "failed") == "ready"
    assert shared.call("start", source=ORIGINAL)["parameters"] == 4192


@pytest.mark.parametrize("door", ["fetch", "XMLHttpRequest", "WebSocket", "indexedDB", "caches"])
def test_a_program_finds_no_door_to_the_network_or_to_what_the_browser_keeps(
    shared: Page, door: str
) -> None:
    text = f"import js\nassert not hasattr(js, {door!r}) or not js.{door}, 'open'\n{ORIGINAL}"
    assert shared.call("start", source=text)["parameters"] == 4192


def test_a_flood_of_print_does_not_drown_the_page(shared: Page) -> None:
    flood = "for i in range(100_000): print('line', i)\n"
    shared.refused("start", source=flood + ORIGINAL)
    printed = shared.seen("print")
    text = "\n".join(printed)
    assert "line 0\n" in text
    assert "more lines)" in text
    assert len(text) < 500_000, f"{len(text)} characters in {len(printed)} reports"
    assert shared.call("start", source=ORIGINAL)["parameters"] == 4192


def test_the_main_thread_carries_little_of_it() -> None:
    """The engine's part of the page's own script is small: it is there in the first second."""
    build = [sys.executable, str(ROOT / "web" / "scripts" / "build.py"), "--which-node"]
    node = subprocess.check_output(build, text=True).strip()
    script = (
        "import { rolldown } from 'rolldown';"
        "const bundle = await rolldown({ input: 'src/engine/client.ts', external: /worker/ });"
        "const { output } = await bundle.generate({ minify: true });"
        "console.log(Buffer.byteLength(output[0].code));"
    )
    done = subprocess.run(
        [node, "--input-type=module", "-e", script],
        cwd=ROOT / "web", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 1000 < int(done.stdout) < 6000

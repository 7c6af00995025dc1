"""A real browser on the built page, served as a folder below another, as any static host would.

Every page here is watched: an error in the console, a breach of the page's own security policy, or
a request to any other host fails the test that caused it.
"""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = Path(os.environ.get("MICROGPT_SITE", ROOT / "microgpt" / "site" / "built"))
FOLDER = "/a/folder/"  # the page must work below any path
READY = 90_000  # ms: Python's start on a busy machine
PATIENT = 15_000  # ms: what is expected may come late; a test of speed says its own limit
sync_api.expect.set_options(timeout=PATIENT)


def stop_takes() -> float:
    """Seconds that Stop may take until the page says so: two, and one for the test itself; more on
    a machine where more wants to run than there are processors."""
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 1
    return 3 * max(1, waiting)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Python's own file server, with the page in a folder and nothing above it."""

    def translate_path(self, path: str) -> str:
        if not path.startswith(FOLDER):
            return str(BUILT / "nothing-is-here")
        return super().translate_path(path.removeprefix(FOLDER.rstrip("/")))

    def log_message(self, *_: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # a browser that was closed while it read


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The page's address."""
    if not (BUILT / "index.html").is_file():
        pytest.fail("The page is not built: run `make site` first.")
    with _Server(("127.0.0.1", 0), partial(_Handler, directory=str(BUILT))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{FOLDER}"
        server.shutdown()


class Visit:
    """One visitor's page, and what went wrong on it."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.address = address
        self.troubles: list[str] = []
        self.held: list[Any] = []
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.troubles.append(f"request to elsewhere: {request.url}")

    def hold_python(self) -> None:
        """Python does not arrive until `release_python`."""
        self.page.route("**/pyodide.asm.wasm", lambda route: self.held.append(route))

    def release_python(self) -> None:
        for route in self.held:
            route.continue_()
        self.held.clear()
        self.page.unroute("**/pyodide.asm.wasm")

    def open(self, fragment: str = "") -> Any:
        """The page, once the editor is there."""
        self.page.goto(self.address + (f"#{fragment}" if fragment else ""))
        self.page.locator(".cm-content").wait_for(state="attached")
        return self.page

    def open_walk(self, name: str, query: str = "") -> Any:
        """A page of the walk, once its script has made it alive."""
        self.page.goto(f"{self.address}walk/{name}.html{query}")
        self.page.locator("[data-act=theme]:not([hidden])").wait_for(state="attached")
        return self.page

    def live(self) -> Any:
        """A page of the walk, once Python is there."""
        self.page.locator(".reader .dot.ready").wait_for(state="attached", timeout=READY)
        return self.page

    def ready(self) -> Any:
        """The page, once Python is there."""
        status = self.page.locator(".engine .status", has_text="ready")
        status.wait_for(state="attached", timeout=READY)
        return self.page


Open = Callable[..., AbstractContextManager[Visit]]


@pytest.fixture
def visitor(chromium: Any, address: str) -> Open:
    """Gives a fresh `Visit` to a `with`; its arguments are those of a browser context."""

    @contextmanager
    def visit(*, expect_trouble: bool = False, **context: Any) -> Iterator[Visit]:
        context.setdefault("viewport", {"width": 1280, "height": 800})
        with chromium.new_context(**context) as opened:
            visit = Visit(opened.new_page(), address)
            yield visit
            troubles = list(visit.troubles)
            for route in visit.held:
                route.abort()
        assert expect_trouble or troubles == []

    return visit


@pytest.fixture
def visit(visitor: Open) -> Iterator[Visit]:
    """A fresh visit on a laptop's screen."""
    with visitor() as one:
        yield one

"""The built page: where it is, a server for this machine, and a copy for any other server.

The page is static and runs Python in the browser, so this server only hands out files. It listens
on the loopback address alone and answers only to its own names, so that no other site can talk to
it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from microgpt.errors import MicrogptError

__all__ = ["FIRST_PORT", "Server", "built_folder", "export", "serve"]

FIRST_PORT = 8150  # the first that is tried when none is asked for
PORTS_TRIED = 50
HOST = "127.0.0.1"
OWN_NAMES = {"127.0.0.1", "localhost"}
EXPORT_MARK = ".microgpt-export"  # lists the files that an export wrote

TYPES = {  # written out, because the table of the operating system may say otherwise
    ".bin": "application/octet-stream",
    ".css": "text/css; charset=utf-8",
    ".gz": "application/gzip",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
    ".zip": "application/zip",
}

POLICY = "; ".join(  # as in the page itself; as a header it also holds in the worker
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self'",
        "connect-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def built_folder() -> Path:
    """The folder of the built page.

    Raises:
        MicrogptError: this is a checkout in which the page has not been built.
    """
    folder = Path(__file__).resolve().parent / "built"
    if not (folder / "index.html").is_file():
        raise MicrogptError(
            "The page has not been built yet: run `make site` in the checkout, then try again."
        )
    return folder


class Server(ThreadingHTTPServer):
    """Hands out the files of one folder on the loopback address.

    Args:
        folder: what to hand out.
        port: a port, or None for the first free one from 8150.

    Raises:
        MicrogptError: the port is taken or may not be used.
    """

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere it would let two servers share a port

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        if port is not None and not 0 <= port <= 65535:
            raise MicrogptError(f"Port {port} does not exist: choose one from 1024 to 65535.")
        tried = range(FIRST_PORT, FIRST_PORT + PORTS_TRIED) if port is None else [port]
        for candidate in tried:
            try:
                super().__init__((HOST, candidate), _Handler)
                return
            except OSError as error:
                reason = error
        if port is None:
            raise MicrogptError(
                f"No port from {FIRST_PORT} to {tried[-1]} is free: choose another with --port."
            ) from reason
        if reason.errno in (errno.EACCES, errno.EPERM):
            raise MicrogptError(
                f"Port {port} may not be used by you: choose one above 1023 with --port."
            ) from reason
        raise MicrogptError(
            f"Port {port} is in use: choose another with --port, or leave --port out."
        ) from reason

    @property
    def address(self) -> str:
        """Where the page is, as a browser takes it."""
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a browser that went away; it does so whenever a tab is closed."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "microgpt"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if name not in OWN_NAMES:  # another site's name that leads here: DNS rebinding
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, with_body)
            return
        file = self._file()
        if file is None:
            self._refuse(HTTPStatus.NOT_FOUND, with_body)
            return
        if file.is_dir():  # its links would lead beside it
            self._send_on(urlsplit(self.path).path.rpartition("/")[2])
            return
        with open(file, "rb") as body:
            kept = file.is_relative_to(self.server.folder.resolve() / "assets")
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", TYPES.get(file.suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(os.fstat(body.fileno()).st_size))
            self.send_header(
                # a file under assets/ has the hash of its contents in its name
                "Cache-Control", "max-age=31536000, immutable" if kept else "no-cache"
            )  # fmt: skip
            self._end_headers()
            if with_body:
                shutil.copyfileobj(body, self.wfile)

    def _file(self) -> Path | None:
        """The file that is asked for, if it is one of the page's: for a folder its index, or the
        folder itself when the slash at the end is missing.
        """
        path = unquote(urlsplit(self.path).path)
        if path.endswith("/"):
            path += "index.html"
        if "\0" in path or "\\" in path:
            return None
        try:
            file = (self.server.folder / path.lstrip("/")).resolve()
            inside = file.is_relative_to(self.server.folder.resolve())
            there = file.is_file() or (file / "index.html").is_file()
            return file if inside and there else None
        except OSError:  # such as a name that is too long
            return None

    def _send_on(self, name: str) -> None:
        """To the folder of that name beside here, with the slash that was missing."""
        self.send_response(HTTPStatus.MOVED_PERMANENTLY)
        self.send_header("Location", f"{name}/")
        self.send_header("Content-Length", "0")
        self._end_headers()

    def _refuse(self, status: HTTPStatus, with_body: bool) -> None:
        body = f"{status.value} {status.phrase}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self._end_headers()
        if with_body:
            self.wfile.write(body)

    def _end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the terminal shows the address and stays calm."""


def serve(port: int | None = None, open_browser: bool = True) -> None:
    """Serve the page on this machine and open it in the browser, until Ctrl-C.

    Args:
        port: a port, or None for the first free one from 8150.
        open_browser: whether to open a browser; where there is none, the printed address is enough.

    Raises:
        MicrogptError: the page is not built, or the port is taken.
    """
    with Server(built_folder(), port) as server:
        print(f"The explainer is at {server.address}", flush=True)
        print("Press Ctrl-C to end it.", flush=True)
        if open_browser and _has_screen():
            with contextlib.suppress(Exception):  # whatever a browser does, the address is printed
                webbrowser.open(server.address)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _has_screen() -> bool:
    """Whether a browser has a screen; without one, it would take over the terminal."""
    if sys.platform in ("win32", "darwin") or os.environ.get("BROWSER"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def export(folder: str | os.PathLike[str]) -> None:
    """Write the page to a folder, for any web server.

    An earlier export is replaced in one motion; files that others have put beside it are kept.

    Args:
        folder: a new or empty folder, or one that `export` wrote before.

    Raises:
        MicrogptError: the page is not built, the folder holds something else, or it cannot be
            written.
    """
    built = built_folder()
    target = Path(folder).resolve()
    if target.is_relative_to(built) or built.is_relative_to(target):
        raise MicrogptError(f"{folder} is where the package itself is: choose another folder.")
    try:
        earlier = _earlier_export(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _beside(target) as fresh:
            shutil.copytree(built, fresh, dirs_exist_ok=True)
            ours = sorted(p.relative_to(fresh).as_posix() for p in fresh.rglob("*") if p.is_file())
            (fresh / EXPORT_MARK).write_text("\n".join(ours) + "\n", encoding="utf-8")
            for name in _others(target, earlier):
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(target / name, fresh / name)
            fresh.chmod(0o755)
            with _beside(target) as old:
                if target.exists():
                    target.replace(old / "old")
                fresh.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise MicrogptError(f"The page could not be written to {folder}: {reason}.") from error


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A new folder next to the target, on the same disk, gone at the end if it is still there."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _earlier_export(target: Path) -> set[str]:
    """The files of an earlier export in the folder; none when it is new or empty."""
    if target.exists() and not target.is_dir():
        raise MicrogptError(f"{target} is a file: name a folder for the page.")
    mark = target / EXPORT_MARK
    if mark.is_file():
        return {*mark.read_text(encoding="utf-8", errors="replace").splitlines(), EXPORT_MARK}
    if target.exists() and any(target.iterdir()):
        raise MicrogptError(f"{target} is not empty: name a new folder, so that nothing is lost.")
    return set()


def _others(target: Path, ours: set[str]) -> list[str]:
    """Files in the folder that no export wrote, such as a CNAME."""
    if not target.exists():
        return []
    found = (path for path in target.rglob("*") if path.is_file())
    return [name for path in found if (name := path.relative_to(target).as_posix()) not in ours]

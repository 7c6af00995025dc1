"""The libraries of the compiled kernel: what is in them, what they need, and when they are built.

The readers of the four formats are written from their specifications, so that every system's
library is looked at on any system.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from microgpt.engines import kernel

ROOT = Path(__file__).resolve().parent.parent


def builder() -> ModuleType:
    """kernel/build.py, which is a script."""
    spec = importlib.util.spec_from_file_location("kernel_build", ROOT / "kernel" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


build = builder()
MINE = build.here()
ALL = [*build.TARGETS, *([build.doubled(MINE)] if MINE else [])]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="as Linux tells it")
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None, reason="there is no compiler"
)


@pytest.fixture(scope="module")
def mine() -> Path:
    """The library of this machine."""
    if MINE is None:
        pytest.skip("there is none for this machine")
    if importlib.util.find_spec("ziglang") is None and not build.current(MINE):
        pytest.skip("there is no compiler")
    build.build([MINE])
    return Path(build.BUILT / MINE.file)


# ---- What is in the libraries ----

Content = tuple[list[str], list[str]]  # names that it exports, and what it needs of others


def text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def elf(data: bytes) -> Content:
    """Linux: dynamic symbols that are defined; those that are not, and libraries."""
    start, size, count = struct.unpack_from("<Q10xHH", data, 0x28)
    places = range(start, start + size * count, size)
    sections = [struct.unpack_from("<4xI16xQQI", data, at) for at in places]
    exports, needs = [], []
    for kind, offset, length, link in sections:
        names = sections[link][1]
        if kind == 11:  # dynamic symbols, after an empty one
            for at in range(offset + 24, offset + length, 24):
                name, section = struct.unpack_from("<I2xH", data, at)
                (exports if section else needs).append(text(data, names + name))
        if kind == 6:
            for at in range(offset, offset + length, 16):
                tag, value = struct.unpack_from("<QQ", data, at)
                if tag == 1:
                    needs.append(text(data, names + value))
    return exports, needs


def mach(data: bytes) -> Content:
    """macOS: external symbols that are defined; libraries."""
    exports, needs, at = [], [], 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<II", data, at)
        if command == 0xC:
            needs.append(text(data, at + struct.unpack_from("<I", data, at + 8)[0]))
        if command == 0x2:
            symbols, count, names = struct.unpack_from("<III", data, at + 8)
            for place in range(symbols, symbols + 16 * count, 16):
                name, kind = struct.unpack_from("<IB", data, place)
                if kind & 0x1F == 0x0F:  # external, in a section
                    exports.append(text(data, names + name))
        at += size
    linker = {"___dso_handle", "__mh_dylib_header"}
    return [name.removeprefix("_") for name in exports if name not in linker], needs


def pe(data: bytes) -> Content:
    """Windows: the table of exports; whether there is one of imports."""
    header = struct.unpack_from("<I", data, 0x3C)[0]
    count, optional = struct.unpack_from("<H12xH", data, header + 6)
    table = header + 24 + 112
    exported, _, imported = struct.unpack_from("<III", data, table)

    def place(address: int) -> int:
        for at in range(header + 24 + optional, header + 24 + optional + 40 * count, 40):
            size, start, _, offset = struct.unpack_from("<IIII", data, at + 8)
            if start <= address < start + size:
                return int(address - start + offset)
        raise AssertionError(f"no section holds {address:#x}")

    number, names = struct.unpack_from("<I4xI", data, place(exported) + 24)
    addresses = struct.unpack_from(f"<{number}I", data, place(names))
    return [text(data, place(a)) for a in addresses], ["imports"] if imported else []


def wasm(data: bytes) -> Content:
    """WebAssembly: the names of exports; the section of imports, if there is one."""
    assert data[:8] == b"\0asm\1\0\0\0"

    def number(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 0x80:
                return value, at

    exports, needs, at = [], [], 8
    while at < len(data):
        section = data[at]
        size, at = number(at + 1)
        if section == 2:
            needs.append("imports")
        if section == 7:
            count, entry = number(at)
            for _ in range(count):
                length, entry = number(entry)
                exports.append(data[entry : entry + length].decode())
                _, entry = number(entry + length + 1)
        at += size
    return exports, needs


READERS: dict[str, Callable[[bytes], Content]] = {
    ".so": elf, ".dylib": mach, ".dll": pe, ".wasm": wasm,
}  # fmt: skip


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.file)
def test_a_library_has_its_functions_and_needs_no_other(target: build.Target, mine: Path) -> None:
    if not build.current(target):
        pytest.skip("it is not built here; make test builds it")
    end = Path(target.file).suffix
    exports, needs = READERS[end]((build.BUILT / target.file).read_bytes())
    page = ["__heap_base", "memory"] if end == ".wasm" else []
    assert sorted(exports) == sorted([*page, *build.exported(target)])
    assert needs == (["/usr/lib/libSystem.B.dylib"] if end == ".dylib" else [])


def test_the_functions_are_those_of_the_source() -> None:
    assert {"train", "measure", "sample"} <= set(build.functions())
    wanted = {"level", "version", "train_v4", "train_v4x8", "train_v3", "train_v2x4"}
    assert wanted <= set(build.exported(build.TARGETS[0]))


def test_nothing_else_of_the_build_is_packed() -> None:
    known = {target.file for target in ALL}
    there = {path.name for path in build.BUILT.iterdir()} if build.BUILT.is_dir() else set()
    assert there <= known


# ---- What fits this machine ----


@on_linux
def test_the_level_is_what_the_processor_can_run(mine: Path) -> None:
    level = ctypes.CDLL(str(mine)).level()
    if platform.machine() != "x86_64":
        assert level == 1
        return
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    second = {"pni", "ssse3", "sse4_1", "sse4_2", "cx16", "popcnt", "lahf_lm"}
    third = second | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
    fourth = third | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    assert level == 1 + sum(wanted <= flags for wanted in (second, third, fourth))


def test_every_level_of_the_loader_is_there(mine: Path) -> None:
    assert ctypes.CDLL(str(mine)).version() == kernel.VERSION == build.version()
    best = kernel.Kernel(mine)
    assert MINE
    assert best.level in {level.name for level in MINE.levels}
    for level in MINE.levels:
        found = kernel.Kernel(mine, level.name)
        for lanes in level.lanes:
            assert found.functions(lanes)


def test_the_loader_knows_the_same_levels() -> None:
    for target in build.TARGETS:
        if target.file != "kernel.wasm":
            machine = target.file.partition("-")[2].partition(".")[0]
            assert [level.name for level in target.levels] == list(kernel.LEVELS[machine])
        for level in target.levels:
            assert level.lanes == (1, *kernel.LANES[level.name])


@pytest.mark.parametrize("system", ["linux", "darwin", "win32", "freebsd14"])
@pytest.mark.parametrize("machine", ["x86_64", "AMD64", "aarch64", "arm64", "riscv64"])
def test_the_loader_looks_for_the_same_file(
    system: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    target = build.here()
    if target is not None:
        assert target.file == kernel.filename()
    else:
        assert kernel.filename() not in {t.file for t in build.TARGETS}


# ---- When they are built ----

SMALL = """
#include <stdint.h>
#define EXPORT __attribute__((visibility("default")))
EXPORT int64_t NAME(train)(int64_t x) { return x + WIDTH; }
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout with a small kernel in place of the real one; the file of its source."""
    folder = tmp_path / "kernel"
    folder.mkdir()
    for name in ("build.py", "level.c"):
        shutil.copy(ROOT / "kernel" / name, folder)
    (folder / "kernel.c").write_text(SMALL, encoding="utf-8")
    (folder / "check.c").write_text("", encoding="utf-8")
    monkeypatch.setattr(build, "HERE", folder)
    monkeypatch.setattr(build, "BUILT", tmp_path / "built")
    monkeypatch.setattr(build, "STATE", tmp_path / "state")
    yield folder / "kernel.c"
    assert not list((tmp_path / "built").glob(".*")), "an unfinished file was left"


@needs_compiler
def test_a_library_is_built_once_for_one_source(small: Path) -> None:
    if MINE is None:
        pytest.skip("there is none for this machine")
    assert build.build([MINE]) == [MINE.file]
    library = ctypes.CDLL(str(build.BUILT / MINE.file))
    for level in MINE.levels:
        train = getattr(library, f"train_{level.name}")
        train.restype = ctypes.c_int64
        assert train(ctypes.c_int64(2**40)) == 2**40 + level.width
    first = (build.BUILT / MINE.file).read_bytes()
    assert build.build([MINE]) == []
    small.write_text(SMALL + "\n", encoding="utf-8")
    assert build.build([MINE]) == [MINE.file]
    assert (build.BUILT / MINE.file).read_bytes() == first, "the same code is the same library"
    (build.BUILT / MINE.file).unlink()
    assert not build.current(MINE)


@needs_compiler
def test_a_mistake_in_the_source_is_told_and_the_old_library_stays(small: Path) -> None:
    target = build.TARGETS[-1]
    build.build([target])
    whole = (build.BUILT / target.file).read_bytes()
    small.write_text(SMALL.replace("return x", "return y"), encoding="utf-8")
    with pytest.raises(build.BuildError, match=r"^The fast engine could not be compiled") as told:
        build.build([target])
    assert "undeclared identifier 'y'" in str(told.value)
    small.write_text(SMALL.replace("{", "{ extern int puts(const char *); puts(0);"), "utf-8")
    with pytest.raises(build.BuildError, match=r"^The fast engine could not be linked") as told:
        build.build([target])
    assert "puts" in str(told.value)
    assert (build.BUILT / target.file).read_bytes() == whole
    assert not build.current(target)


def test_without_its_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise build.importlib.metadata.PackageNotFoundError(name)

    for version, words in ((missing, "is not installed"), (lambda _: "0.1", "is installed as 0.1")):
        monkeypatch.setattr(build.importlib.metadata, "version", version)
        with pytest.raises(build.BuildError, match=f"{words}: run `pip install ziglang==") as told:
            build.find_compiler()
        assert "\n" not in str(told.value)


def test_what_is_current_needs_no_compiler(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_compiler", lambda: pytest.fail("it was asked for"))
    assert build.build([MINE]) == []

"""The compiled kernel: which file of it fits this machine, and its functions.

The kernel is one C file (`kernel/kernel.c`), built for several systems and processors when the
package is made, and loaded here with `ctypes`. Where no build of it fits, there is none, and the
reference engine does the work.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("built")
VERSION = 2  # of the program format; a kernel of another version is not used
SYSTEMS = {"linux": ("linux", "so"), "darwin": ("macos", "dylib"), "win32": ("windows", "dll")}
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
LEVELS = {"x86_64": ("v4", "v3", "v2"), "aarch64": ("v1",)}  # of processors, the newest first
# How many runs a level of processor does side by side.
LANES = {"v4": (8, 16), "v3": (8,), "v2": (4,), "v1": (4,)}


def filename() -> str | None:
    """The name of the build for this system and processor; None where there is none."""
    system, machine = SYSTEMS.get(sys.platform), MACHINES.get(platform.machine().lower())
    if system is None or machine is None:
        return None
    return f"{system[0]}-{machine}.{system[1]}"


class Kernel:
    """One build of the kernel, for the newest processor that it and this machine know.

    Args:
        path: the file.
        level: the processor to use it as, such as `v3`; this machine's when None.

    Attributes:
        level: as given, or found.
        lanes: how many runs can be trained side by side, besides 1.

    Raises:
        OSError: it cannot be loaded, is of another version, or not for this processor.
    """

    def __init__(self, path: Path, level: str | None = None) -> None:
        library = ctypes.CDLL(str(path))
        if library.version() != VERSION:
            raise OSError(f"{path.name} is of another version than this package")
        best = library.level()
        levels = LEVELS[path.name.partition(".")[0].split("-")[1]]
        found = level or next((name for name in levels if int(name[1:]) <= best), None)
        if found is None:
            raise OSError(f"{path.name} is for newer processors than this one")
        self._library = library
        self.level, self.lanes = found, LANES[found]

    def functions(self, lanes: int = 1) -> Functions:
        """The kernel's functions for that many runs side by side: 1, or one of `lanes`."""
        return Functions(self._library, self.level + (f"x{lanes}" if lanes > 1 else ""))


class Functions:
    """What the kernel can do, for so many runs side by side; its comments say what each takes."""

    def __init__(self, library: Any, level: str) -> None:
        pointer, whole = ctypes.c_void_p, ctypes.c_int64

        def function(name: str, *arguments: Any) -> Any:
            found = getattr(library, f"{name}_{level}")
            found.argtypes, found.restype = arguments, whole
            return found

        program, documents = [pointer] * 5, [pointer] * 3
        numbers, threads = [pointer] * 3, [whole] * 3 + [pointer] * 3
        self.train = function("train", *program, *documents, *[whole] * 3, *numbers, *threads)
        self.forward = function("forward", *program, *documents, whole)
        self.first_bad = function("first_bad", *program, *documents, whole)
        self.measure = function("measure", *program, *documents, whole, pointer, pointer)
        texts = [pointer, whole, whole, ctypes.c_int32, pointer, whole, pointer, pointer]
        self.sample = function("sample", *program, *texts)
        lists = [pointer, whole] * 3
        self.check = function("check", pointer, *[whole] * 6, pointer, *lists)


@cache
def rest() -> int | None:
    """The address of a function that lets other threads have the processor; None where there is
    none to be found."""
    system = ("kernel32", "SwitchToThread") if sys.platform == "win32" else (None, "sched_yield")
    try:
        found = getattr(ctypes.CDLL(system[0]), system[1])
    except (OSError, AttributeError, TypeError):
        return None
    return ctypes.cast(found, ctypes.c_void_p).value


@cache
def kernel() -> Kernel | str:
    """The kernel of this machine, or a sentence that says why there is none."""
    name = filename()
    if name is None:
        return f"the fast engine is not built for {platform.system()} on {platform.machine()}"
    try:
        return Kernel(FOLDER / name)
    except (OSError, AttributeError, LookupError):
        return f"the fast engine's file {name} is missing or cannot be loaded"

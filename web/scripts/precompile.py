"""Runs inside Pyodide, during the build: trims and compiles its library, and zips the package.

Python in the page starts faster when it need not compile its own library: most of a plain start is
the compiler. Compiled files carry no check of their source ("unchecked hash"), because their source
is not there.
"""

import ast
import importlib
import importlib.util
import io
import marshal
import sys
import zipfile
from types import CodeType

STDLIB = "/lib/python314.zip"
WHEN = (1980, 1, 1, 0, 0, 0)  # a fixed date, so that the same input gives the same bytes


def without_columns(code: CodeType) -> CodeType:
    """The same code, whose instructions know their lines and not their columns, which are a third
    of it. The table is as Python's `Objects/locations.md` has it.
    """
    table, line = bytearray(), code.co_firstlineno
    for start, end, number in code.co_lines():
        units = (end - start) // 2  # an entry is for up to eight
        while units > 0:
            count = min(units, 8)
            units -= count
            if number is None:
                table.append(0x80 | 15 << 3 | count - 1)
                continue
            table.append(0x80 | 13 << 3 | count - 1)
            step = number - line
            line = number
            rest = -step << 1 | 1 if step < 0 else step << 1
            while rest >= 64:
                table.append(0x40 | rest & 63)
                rest >>= 6
            table.append(rest)
    parts = tuple(without_columns(x) if isinstance(x, CodeType) else x for x in code.co_consts)
    return code.replace(co_linetable=bytes(table), co_consts=parts)


def compiled(source: bytes, filename: str, optimize: int) -> bytes:
    """A .pyc file of the source. Flags 1: checked by hash, and told not to check."""
    code = compile(source, filename, "exec", dont_inherit=True, optimize=optimize)
    code = without_columns(code)
    header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
    return header + importlib.util.source_hash(source) + marshal.dumps(code)


def write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, WHEN)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data, compresslevel=9)


def imported(files: dict[str, bytes]) -> dict[str, str]:
    """Every module that the package imports from elsewhere, and a file that does so."""
    found: dict[str, str] = {}
    for path, source in files.items():
        if not path.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(source)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            found |= {name: path for name in names if name.split(".")[0] != "microgpt"}
    return found


def trimmed_library(names: list[str], files: dict[str, bytes]) -> bytes:
    """The standard library as a zip of .pyc files: the named modules and all that they import.

    Raises:
        SystemExit: the package imports something that would not be in it.
    """
    for name in names:
        importlib.import_module(name)
    kept = set()
    for module in list(sys.modules.values()):
        file = str(getattr(module, "__file__", None) or "")
        if file.startswith(STDLIB + "/"):
            kept.add(file[len(STDLIB) + 1 :])
    present = {*sys.modules, *sys.builtin_module_names}
    for name, path in imported(files).items():
        if name not in present:
            raise SystemExit(f"{path} imports {name}, which is not in web/scripts/stdlib.txt.")
    buffer = io.BytesIO()
    with zipfile.ZipFile(STDLIB) as library, zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(kept):
            # Docstrings and asserts of the library are left out; Pyodide reads its own docstrings.
            optimize = 0 if name.startswith(("pyodide/", "_pyodide/")) else 2
            write(archive, name + "c", compiled(library.read(name), f"{STDLIB}/{name}", optimize))
    return buffer.getvalue()


def package(files: dict[str, bytes], home: str) -> bytes:
    """The package as a zip of its files, each Python file with its compiled form beside it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(files.items()):
            write(archive, name, data)
            if name.endswith(".py"):
                folder, _, base = name.rpartition("/")
                cache = f"{folder}/__pycache__/{base[:-3]}.{sys.implementation.cache_tag}.pyc"
                write(archive, cache, compiled(data, f"{home}/{name}", 0))
    return buffer.getvalue()

"""Imports point one way, and the core imports only the standard library."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "microgpt"
CORE = {
    "gpt", "errors", "files", "source", "data", "engines", "run", "xray", "checkpoint", "lessons",
    "live", "lab", "bridge",
}  # fmt: skip
BUILD = {"parse.py", "facts.py", "listing.py", "__main__.py"}  # of lessons: the browser has none
TERMINAL = {"parallel.py", "pictures.py"}  # of the lab: likewise
ALLOWED = {
    "gpt": set(),
    "errors": set(),
    "files": {"errors"},
    "source": {"errors"},
    "data": {"errors", "data"},
    "engines": {"errors", "source", "engines"},
    "run": {"errors", "source", "data", "engines"},
    "xray": {"errors", "source"},
    "checkpoint": {"errors", "files", "source", "data", "run"},
    "lessons": {"errors", "source", "data", "run", "xray", "checkpoint", "lessons"},
    "lab": {"errors", "files", "source", "data", "engines", "run", "lab", "__init__"},
    "live": {"errors", "source", "data", "engines", "run"},
    "bridge": {
        "errors",
        "source",
        "data",
        "run",
        "xray",
        "checkpoint",
        "lab",
        "lessons",
        "live",
        "__init__",
    },
    "site": {"errors", "site"},
    "__init__": {"errors", "source", "data", "run", "checkpoint"},
}


def imports(path: Path) -> set[str]:
    """The full names of all that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules() -> dict[str, list[Path]]:
    rooms: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if not {"built", "collection"} & set(parts):
            rooms.setdefault(parts[0], []).append(path)
    return rooms


def room(name: str) -> str | None:
    """The room that `microgpt.room…` names; `microgpt.__version__` and its like are the package
    itself.
    """
    parts = name.split(".")
    if parts[0] != "microgpt":
        return None
    if len(parts) == 1 or parts[1] not in {*ALLOWED, "cli", "__main__"}:
        return "__init__"
    return parts[1]


def test_imports_point_one_way() -> None:
    for name, paths in modules().items():
        if name in ("cli", "__main__"):
            continue
        for path in paths:
            used = {r for r in map(room, imports(path)) if r is not None}
            assert used <= ALLOWED[name], f"{path.name} imports {sorted(used - ALLOWED[name])}"


def test_the_core_imports_only_the_standard_library() -> None:
    for name, paths in modules().items():
        if name in CORE:
            for path in paths:
                if path.name in {"lessons": BUILD, "lab": TERMINAL}.get(name, ()):
                    continue
                outside = (
                    {i.split(".")[0] for i in imports(path)}
                    - {"microgpt"}
                    - set(sys.stdlib_module_names)
                )
                assert not outside, f"{path.name} imports {sorted(outside)}"


def test_every_room_is_in_the_table() -> None:
    assert set(modules()) - {"cli", "__main__"} <= set(ALLOWED)


def test_the_browsers_part_of_the_lessons_imports_nothing_of_the_builds() -> None:
    for path in modules()["lessons"]:
        if path.name not in BUILD:
            used = {name.split(".")[2] for name in imports(path) if name.count(".") > 1}
            assert not used & {Path(name).stem for name in BUILD}, path.name

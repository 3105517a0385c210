"""umoci: no store at all, it unpacks an image into one plain directory."""

from __future__ import annotations

from typing import ClassVar

import attrs

from lamina_bench.engines.engine import Command, Engine
from lamina_bench.image import TAG, Image


@attrs.frozen
class Umoci(Engine):
    """A bundle."""

    programs: ClassVar[tuple[str, ...]] = ("umoci",)

    @property
    def name(self) -> str:
        """Its command."""
        return "umoci unpack"

    @property
    def stores(self) -> str:
        """All layers in one tree, which is less than a copy a layer, and more than it writes of an overlay."""
        return "copies"

    @property
    def durability(self) -> str:
        """It never flushes."""
        return "nothing"

    def load(self, image: Image) -> Command:
        """It also writes an mtree manifest, to know later what has changed: its form of a snapshot."""
        return ("umoci", "unpack", "--image", f"{image.layout}:{TAG}", str(self.room / "bundle"))

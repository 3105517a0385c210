"""buildah in a storage of its own, to build images with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from lamina_bench.cleaning import clear
from lamina_bench.measuring import run


class Buildah:
    """A storage that vanishes at the end of the `with`."""

    def __init__(self, place: Path) -> None:
        """Remember."""
        self._place = place

    def __enter__(self) -> Self:
        self._place.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        clear(self._place)

    def add_layer(self, parent: str | None, name: str, change: Callable[[Path], object]) -> None:
        """The image `name` is its parent plus one layer: what `change` does to the tree."""
        container = self._ask("from", parent or "scratch")
        change(Path(self._ask("mount", container)))
        self._ask("umount", container)
        self._ask("commit", "--quiet", "--rm", container, name)

    def push(self, name: str, layout: Path, tag: str) -> None:
        """Write the image as an OCI layout with gzip layers."""
        self._ask("push", "--quiet", "--compression-format", "gzip", name, f"oci:{layout}:{tag}")

    def _ask(self, *words: str) -> str:
        storage = ["--root", f"{self._place}/root", "--runroot", f"{self._place}/run", "--storage-driver", "overlay"]
        return run(["buildah", *storage, *words]).strip()

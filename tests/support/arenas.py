"""A tree to unpack into, and the world around it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import attrs


class Tar(Protocol):
    """Makes a tar of entries."""

    def __call__(self, *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> io.BytesIO: ...


@attrs.frozen
class Arena:
    """A tree, the way in which tars get into it, and the world around."""

    tree: Path
    outside: Path
    unpack: Callable[[io.BytesIO], object]

    def names(self) -> set[str]:
        """Everything in the tree."""
        return {str(path.relative_to(self.tree)) for path in self.tree.rglob("*")}

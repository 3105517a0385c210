"""A container's whole tree as a tar."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from lamina.archive import write_layer
from lamina.diff import compare

if TYPE_CHECKING:
    from lamina.snapshotter import Snapshotter


def export(snapshots: Snapshotter, key: str, out: BinaryIO) -> None:
    """Everything that is to be seen in the snapshot, as if it had been added to an empty directory."""
    with snapshots.look(key) as root:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            write_layer(fd, compare(None, fd), out)
        finally:
            os.close(fd)

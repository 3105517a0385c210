"""The rules of a union, pure: what a directory shows when several layers have it.

Layers are numbered by their ids. An entry of a layer is told by one number, its *reference*: the layer's id and the row
in its index. For files it is the inode number at the same time, so it is the same in every mount.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

from lamina_fuse.index import OPAQUE, WHITEOUT

ROOT: Final = 1
SHIFT: Final = 32
ROW_MASK: Final = (1 << SHIFT) - 1
OWN: Final = 1 << 62  # inode numbers of what only the writable layer has

Stack = tuple[int, ...]  # references of one directory in several layers, the topmost first
Below = dict[bytes, "int | Stack"]  # names to a file's reference, or to a directory's stack


class Entries(Protocol):
    """What the rules ask of a layer's index."""

    def children(self, number: int) -> Iterator[tuple[bytes, int, int, int]]:
        """Name, mode, flags, row of all that a directory holds."""

    def flags(self, number: int) -> int:
        """Flags of a row."""


def reference(layer: int, row: int) -> int:
    """The number of a row of a layer."""
    return layer << SHIFT | row


def merge(stack: Iterable[int], layers: Mapping[int, Entries]) -> Below:
    """What a directory shows that lies in several layers.

    The topmost layer that has a name decides: a whiteout hides what is below, a file too; a directory is joined with
    the directories below it, as far down as none of them is opaque and no file or whiteout comes between.
    """
    shown: Below = {}
    closed: set[bytes] = set()
    for each in stack:
        layer, row = each >> SHIFT, each & ROW_MASK
        index = layers[layer]
        high = layer << SHIFT
        for name, mode, flags, inode in index.children(row):
            if name in closed:
                continue
            if flags & WHITEOUT:
                closed.add(name)
            elif stat.S_ISDIR(mode):
                shown[name] = (*shown.get(name, ()), high | inode)  # type: ignore[misc]  # open names are directories
                if flags & OPAQUE:
                    closed.add(name)
            else:
                if name not in shown:
                    shown[name] = high | inode
                closed.add(name)
        if index.flags(row) & OPAQUE:
            break
    return shown


def bottom_of(stack: Iterable[int], layers: Mapping[int, Entries]) -> Stack:
    """The stack as far down as it shows: an opaque directory ends it."""
    kept = []
    for each in stack:
        kept.append(each)
        if layers[each >> SHIFT].flags(each & ROW_MASK) & OPAQUE:
            break
    return tuple(kept)

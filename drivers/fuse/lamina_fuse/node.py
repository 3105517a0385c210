"""What the server remembers of directories and of what the writable layer holds; a lower file needs no memory."""

from __future__ import annotations

import os

from lamina_fuse.union import Below, Stack


class Node:
    """A directory, or anything of the writable layer."""

    __slots__ = (
        "above",
        "below",
        "descriptor",
        "directory",
        "grave",
        "ino",
        "kids",
        "listed",
        "listing",
        "names",
        "plain",
        "read_at",
        "stack",
        "up",
    )

    def __init__(self, ino: int, *, directory: bool, up: bool, stack: Stack = ()) -> None:
        self.ino = ino
        self.directory = directory
        self.up = up  # the writable layer has it
        self.stack = stack  # the directories of lower layers that it joins
        self.names: list[tuple[Node, bytes]] = []  # directory and name; known ones only
        self.kids = 0  # how many names of nodes lie in it
        self.above: dict[bytes, int] | None = None  # the writable layer's names: inode, or 0 for a whiteout
        self.below: Below | None = None  # what the lower layers show here
        self.descriptor = -1  # of a directory in the writable layer, while it is kept open
        self.grave = -1  # of something without a known name: the way to it
        self.plain = False  # known to have no extended attributes
        self.listing: list[bytes] | None = None  # the order in which names are read; positions do not change
        self.listed: set[bytes] = set()
        self.read_at = 0.0  # when the listing was last read on from a position

    @property
    def dead(self) -> bool:
        """Without any name."""
        return self.grave >= 0

    def close(self) -> None:
        """Let go of descriptors."""
        for descriptor in (self.descriptor, self.grave):
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = self.grave = -1

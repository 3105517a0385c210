"""What the accelerator is told of inodes, so that it need not ask Python about them.

Each table has one place for many inodes. Who finds another one there goes without: that is only slower.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
from typing import Final

KINDS: Final = ("read", "write", "getattr", "setattr", "getxattr")
_OPEN: Final = 1 << 12  # as in accelerator.c
_PLAIN: Final = 1 << 16


class Hints:
    """Tables in the memory of the accelerator; where there is none, in some that nobody reads."""

    def __init__(self) -> None:
        """Empty tables."""
        self._library = ctypes.CDLL(None)
        self._inodes = self._table("lamina_fuse_inodes", _OPEN)
        self._descriptors = self._table("lamina_fuse_descriptors", _OPEN)
        self._plain = self._table("lamina_fuse_plain", _PLAIN)

    def _table(self, name: str, length: int) -> memoryview:
        try:
            shared = (ctypes.c_uint64 * length).in_dll(self._library, name)
        except ValueError:  # not preloaded
            return memoryview(array.array("Q", bytes(8 * length)))
        return memoryview(shared).cast("B").cast("Q")

    def opened(self, ino: int, descriptor: int) -> None:
        """A file of the writable layer is open: its attributes are those of the descriptor, and change with it."""
        place = ino % _OPEN
        if not self._inodes[place]:
            self._descriptors[place] = descriptor
            self._inodes[place] = ino

    def closed(self, ino: int) -> None:
        """It is open no more."""
        if self._inodes[ino % _OPEN] == ino:
            self._inodes[ino % _OPEN] = 0

    def plain(self, ino: int) -> None:
        """The inode has neither capabilities nor access lists."""
        self._plain[ino % _PLAIN] = ino

    def dressed(self, ino: int) -> None:
        """It may have some."""
        if self._plain[ino % _PLAIN] == ino:
            self._plain[ino % _PLAIN] = 0

    def served(self) -> dict[str, int]:
        """How many requests of each kind the accelerator has answered."""
        numbers = ctypes.c_ulong * len(KINDS)
        with contextlib.suppress(ValueError):
            return dict(zip(KINDS, numbers.in_dll(self._library, "lamina_fuse_counts"), strict=True))
        return {}

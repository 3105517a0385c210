"""What the accelerator is told of inodes, so that it need not ask Python about them.

Each table has one place for many inodes. Who finds another one there goes without: that is only slower.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Callable
from typing import Final

KINDS: Final = ("read", "write", "getattr", "setattr", "getxattr", "open", "release")
DESCRIPTORS: Final = 1 << 20  # a server may not have more of them
_OPEN: Final = 1 << 14  # this and what follows as in answers.c
_DIRECTORY: Final = 1 << 32
_LOWER: Final = 1 << 33
_STAYS_OPEN: Final = 1 << 30
_PLAIN: Final = 1 << 16
_SETTLED: Final = 1 << 12
_BACKING: Final = 1 << 16
_WANTED: Final = -2


class Hints:
    """Tables in the memory of the accelerator; where there is none, in some that nobody reads."""

    def __init__(self) -> None:
        """Empty tables."""
        self._library = ctypes.PyDLL(None)
        self._inodes = self._table("lamina_fuse_inodes", _OPEN)
        self._descriptors = self._table("lamina_fuse_descriptors", _OPEN)
        self._plain = self._table("lamina_fuse_plain", _PLAIN)
        self._settled = self._table("lamina_fuse_settled", _SETTLED)
        self._backing = self._table("lamina_fuse_backing", _BACKING // 2).cast("B").cast("i")
        self._users = self._table("lamina_fuse_users", DESCRIPTORS // 2).cast("B").cast("i")
        self._let_go = self._function("lamina_fuse_let_go", ctypes.c_int)
        self._acknowledge = self._function("lamina_fuse_acknowledge")

    def configure(self, *, passthrough: bool, look_out: int) -> None:
        """Before the mount: what the user has decided; microseconds."""
        for name, value in (("lamina_fuse_passthrough", passthrough), ("lamina_fuse_look_out", look_out * 1000)):
            with contextlib.suppress(ValueError):
                ctypes.c_long.in_dll(self._library, name).value = value

    def _table(self, name: str, length: int) -> memoryview:
        try:
            shared = (ctypes.c_uint64 * length).in_dll(self._library, name)
        except ValueError:  # not preloaded
            return memoryview(mmap.mmap(-1, 8 * length)).cast("Q")
        return memoryview(shared).cast("B").cast("Q")

    def _function(self, name: str, *arguments: type[ctypes.c_int]) -> Callable[..., object]:
        try:
            found = self._library[name]
        except AttributeError:  # likewise
            return lambda *_arguments: None
        found.argtypes, found.restype = arguments, None
        return found

    def acknowledge(self) -> None:
        """What was asked for (a name less, or another one) is done on disk: who asked need not wait for the rest."""
        self._acknowledge()

    def opened(self, ino: int, descriptor: int) -> None:
        """A file of the writable layer is open: its attributes are those of the descriptor, and change with it."""
        self._users[descriptor] &= ~_STAYS_OPEN
        self._note(ino, descriptor)

    def opened_directory(self, ino: int, descriptor: int) -> None:
        """Likewise; the descriptor is good for nothing else."""
        self._note(ino, descriptor | _DIRECTORY)

    def opened_lower(self, ino: int, descriptor: int) -> None:
        """A file of a lower layer is open, and stays so when its last user has closed it, for the next one."""
        self._users[descriptor] |= _STAYS_OPEN
        self._note(ino, descriptor | _LOWER)

    def _note(self, ino: int, what: int) -> None:
        place = ino % _OPEN
        if self._inodes[place] in (0, ino):
            self._descriptors[place] = what
            self._inodes[place] = ino

    def enter(self, descriptor: int) -> None:
        """One more uses it."""
        self._users[descriptor] += 1

    def leave(self, descriptor: int) -> int:
        """One less; how many are left."""
        self._users[descriptor] -= 1
        return self.users(descriptor)

    def users(self, descriptor: int) -> int:
        """How many have it open."""
        return self._users[descriptor] & ~_STAYS_OPEN

    def closed(self, ino: int) -> None:
        """It is open no more, or will not be soon."""
        if self._inodes[ino % _OPEN] == ino:
            self._inodes[ino % _OPEN] = 0

    def passes_through(self, descriptor: int) -> None:
        """The kernel may read and write this file without asking, for as long as the descriptor is open."""
        if descriptor < _BACKING and not self._backing[descriptor]:
            self._backing[descriptor] = _WANTED

    def let_go(self, descriptor: int) -> None:
        """To be said before a file's descriptor is closed."""
        self._users[descriptor] = 0
        if descriptor < _BACKING and self._backing[descriptor]:
            self._let_go(descriptor)

    def settled(self, ino: int) -> None:
        """The attributes that are about to be told hold until something changes them here."""
        self._settled[ino % _SETTLED] = ino

    def changed(self, ino: int) -> None:
        """They hold no more."""
        if self._settled[ino % _SETTLED] == ino:
            self._settled[ino % _SETTLED] = 0

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

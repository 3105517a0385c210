"""Which journal a database keeps: the write-ahead log, or the older one where the log's index could kill us.

SQLite maps the index of its log (`-shm`) into memory and writes to it there. A file system that copies what is written
needs a free block each time a page of the map is first written to again, and where there is none the process gets
SIGBUS, also one that only reads. The rollback journal maps nothing: a full disk is an error like any other.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final, Literal

Journal = Literal["WAL", "TRUNCATE"]

_COPYING: Final = frozenset({0x9123683E, 0xCA451A4E})  # btrfs, bcachefs: linux/magic.h
_libc: Final = ctypes.CDLL(None, use_errno=True)


def journal_for(directory: Path | str) -> Journal:
    """What fits the file system of an existing directory."""
    # of those that map nothing the one that makes and removes no file for each transaction
    return "TRUNCATE" if _magic(directory) in _COPYING else "WAL"


def _magic(directory: Path | str) -> int:
    """The type of its file system as statfs(2) tells it."""
    told = (ctypes.c_long * 64)()  # the type is the first word of more than enough
    if _libc.statfs(os.fsencode(directory), ctypes.byref(told)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fspath(directory))
    return told[0] & 0xFFFFFFFF

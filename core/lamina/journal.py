"""Which journal a database keeps: the write-ahead log, or the older one where the log's index could kill us.

SQLite maps the index of its log (`-shm`) into memory and writes to it there. A file system that copies what is written
needs a free block each time a page of the map is first written to again, and where there is none the process gets
SIGBUS, also one that only reads. The rollback journal maps nothing: a full disk is an error like any other.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

Journal = Literal["WAL", "TRUNCATE"]

# bytes kept aside, so that a full disk can still be told what is removed from it. A btrfs whose data and metadata share
# their space truncates no journal with less
RESERVES: Final[Mapping[Journal, int]] = {"WAL": 256 << 10, "TRUNCATE": 2 << 20}

_PLENTY: Final = 1 << 30  # bytes beyond which we believe that there is some room
_LITTLE: Final = 256 << 10  # bytes, with which nobody can count on writing down a transaction
_COPYING: Final = frozenset({0x9123683E, 0xCA451A4E})  # btrfs, bcachefs: linux/magic.h
_WANT_OF_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_libc: Final = ctypes.CDLL(None, use_errno=True)


def journal_for(directory: Path) -> Journal:
    """What fits the file system of an existing directory."""
    # of those that map nothing the one that makes and removes no file for each transaction
    return "TRUNCATE" if _magic(directory) in _COPYING else "WAL"


def is_full(directory: Path) -> bool:
    """Whether there is hardly room for a transaction. Tried out where the count of free blocks is an estimate."""
    told = os.statvfs(directory)
    room = told.f_bavail * told.f_frsize
    if journal_for(directory) == "WAL":
        return room < _LITTLE
    return room < _PLENTY and not _can_allocate(directory)


def _can_allocate(directory: Path) -> bool:
    """Whether a file of that little can be made."""
    try:
        unnamed = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(unnamed, 0, _LITTLE)
        finally:
            os.close(unnamed)
    except OSError as error:
        return error.errno not in _WANT_OF_ROOM
    return True


def _magic(directory: Path) -> int:
    """The type of its file system as statfs(2) tells it."""
    told = (ctypes.c_long * 64)()  # the type is the first word of more than enough
    if _libc.statfs(os.fsencode(directory), ctypes.byref(told)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fspath(directory))
    return told[0] & 0xFFFFFFFF

"""Room kept aside, so that a full disk can still be told what is to be removed from it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lamina.journal import Journal, journal_for

# bytes. A btrfs whose data and metadata share their space truncates no journal with less
_SIZES: Final[Mapping[Journal, int]] = {"WAL": 256 << 10, "TRUNCATE": 2 << 20}
_PLENTY: Final = 1 << 30  # bytes beyond which we believe that there is some room
_LITTLE: Final = 256 << 10  # bytes with which nobody can count on writing down a transaction
_WANT_OF_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Reserve:
    """A file that takes room beside a database."""

    def __init__(self, path: Path) -> None:
        """Remember; `keep` makes the file."""
        self._path = path
        self._directory = os.fspath(path.parent)

    def keep(self) -> None:
        """Lay it aside, if there is room for it."""
        if self._path.exists():
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(descriptor, 0, _SIZES[journal_for(self._directory)])
        except OSError:  # no room, or a file system that promises none
            with contextlib.suppress(OSError):
                self._path.unlink()
        finally:
            os.close(descriptor)

    def spend(self) -> None:
        """On a full disk it is given up: for what makes room, which many file systems want some room for."""
        if is_full(self._directory):
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()


def is_full(directory: Path | str) -> bool:
    """Whether there is hardly room for a transaction. Tried out where the count of free blocks is an estimate."""
    told = os.statvfs(directory)
    room = told.f_bavail * told.f_frsize
    if room >= _PLENTY:
        return False
    return room < _LITTLE if journal_for(directory) == "WAL" else not _can_allocate(directory)


def _can_allocate(directory: Path | str) -> bool:
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

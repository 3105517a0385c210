"""To whom something new belongs."""

from __future__ import annotations

import os
import stat

from lamina_fuse.record import GID, MODE, Record


class Owner:
    """Who makes something."""

    __slots__ = ("gid", "uid")

    def __init__(self, uid: int, gid: int) -> None:
        self.uid = uid
        self.gid = gid


def owner_in(directory: Record, who: Owner) -> tuple[int, int]:
    """User and group of what `who` makes in a directory, which may hand down its group."""
    return who.uid, directory[GID] if directory[MODE] & stat.S_ISGID else who.gid


def give(directory: int, name: bytes, to: tuple[int, int]) -> None:
    """What was just made belongs to `to`, if we may give something away; its mode stays."""
    if os.geteuid() or to == (0, 0):
        return
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if (status.st_uid, status.st_gid) == to:
        return
    os.chown(name, *to, dir_fd=directory, follow_symlinks=False)
    if _loses_bits(status):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=directory)


def give_open(descriptor: int, to: tuple[int, int]) -> None:
    """Likewise, of an open file."""
    status = os.fstat(descriptor)
    if os.geteuid() or (status.st_uid, status.st_gid) == to:
        return
    os.chown(descriptor, *to)
    if _loses_bits(status):
        os.chmod(descriptor, stat.S_IMODE(status.st_mode))


def _loses_bits(status: os.stat_result) -> bool:
    """Whether a new owner takes bits of the mode away."""
    return bool(status.st_mode & (stat.S_ISUID | stat.S_ISGID)) and not stat.S_ISLNK(status.st_mode)

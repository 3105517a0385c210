"""Whether two entries of two trees are the same to everybody who looks: metadata, attributes, content."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from lamina.changes import ChangeKind
from lamina.privacy import is_private_xattr
from lamina.syscalls import opened
from lamina.xattrs import at, read_xattrs

_PIECE: Final = 1 << 17
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def lstat(directory: int, name: bytes) -> os.stat_result | None:
    """The status of a name in an open directory, None if there is none."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


class Judge:
    """Compares entries; knows which attributes are nobody's business."""

    def __init__(self, also_private: Callable[[str], bool] = is_private_xattr) -> None:
        self._also_private = also_private

    def verdict(
        self, there: int, before: os.stat_result | None, here: int, status: os.stat_result, name: bytes
    ) -> ChangeKind | None:
        """ADDED, MODIFIED, or None for what is as it was."""
        if before is None:
            return ChangeKind.ADDED
        if os.path.samestat(before, status):
            return None  # one and the same
        if _differ(before, status) or self._xattrs(at(there, name)) != self._xattrs(at(here, name)):
            return ChangeKind.MODIFIED
        if stat.S_ISLNK(status.st_mode):
            same = os.readlink(name, dir_fd=there) == os.readlink(name, dir_fd=here)
        else:
            same = not stat.S_ISREG(status.st_mode) or not status.st_size or _same_content(there, here, name)
        return None if same else ChangeKind.MODIFIED

    def roots_differ(self, old: int, new: int) -> bool:
        """Whether the directories themselves differ, whatever is in them."""
        return _differ(os.fstat(old), os.fstat(new)) or self._xattrs(old) != self._xattrs(new)

    def _xattrs(self, place: int | bytes) -> dict[str, bytes]:
        found = read_xattrs(place)
        if not found:
            return found
        hidden = [name for name in found if is_private_xattr(name) or self._also_private(name)]
        for name in hidden:
            del found[name]
        return found


def _differ(one: os.stat_result, other: os.stat_result) -> bool:
    if (
        one.st_mode != other.st_mode
        or one.st_mtime_ns != other.st_mtime_ns
        or one.st_uid != other.st_uid
        or one.st_gid != other.st_gid
    ):
        return True
    if stat.S_ISDIR(one.st_mode):
        return False  # its size is the file system's business
    device = stat.S_ISCHR(one.st_mode) or stat.S_ISBLK(one.st_mode)
    return one.st_rdev != other.st_rdev if device else one.st_size != other.st_size


def _same_content(there: int, here: int, name: bytes) -> bool:
    with opened(name, _FILE, dir_fd=there) as old, opened(name, _FILE, dir_fd=here) as new:
        one, other = os.fstat(old), os.fstat(new)
        if one.st_size != other.st_size:
            return False
        sparse = min(one.st_blocks, other.st_blocks) * 512 < one.st_size
        return _same_bytes(old, new, one.st_size, sparse=sparse)


def _same_bytes(old: int, new: int, size: int, *, sparse: bool) -> bool:
    position = 0
    while position < size:
        if sparse:  # where both have a hole there is nothing to compare
            position = min(_next_data(old, position, size), _next_data(new, position, size))
        piece = os.pread(old, _PIECE, position)
        if piece != os.pread(new, _PIECE, position):
            return False
        if not piece:
            return True
        position += len(piece)
    return True


def _next_data(descriptor: int, position: int, size: int) -> int:
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else position  # a hole up to the end, or one who does not tell

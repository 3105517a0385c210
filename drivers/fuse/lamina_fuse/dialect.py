"""Every way in which overlayfs and fuse-overlayfs write that something is gone, read; overlayfs's own, written."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

import attrs

from lamina.overlaydialect import OverlayWhiteouts
from lamina.xattrs import at

_OPAQUE: Final = ("trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque")
_WHITEOUT: Final = ("trusted.overlay.whiteout", "user.overlay.whiteout")
_SENTINEL: Final = b".wh..wh..opq"
_PREFIX: Final = b".wh."
_MISSING: Final = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES})


@attrs.frozen
class UnionWhiteouts(OverlayWhiteouts):
    """Reads marks in either namespace, and what fuse-overlayfs leaves where it may make no device.

    That is an empty file of mode 0700 called `.wh.NAME`; any other file of such a name is an ordinary one.
    """

    def is_whiteout(self, directory: int, name: bytes, status: os.stat_result) -> bool:
        """A device 0:0, or an empty file with the attribute."""
        if stat.S_ISCHR(status.st_mode):
            return status.st_rdev == 0
        if not stat.S_ISREG(status.st_mode) or status.st_size:
            return False
        return any(has_mark(at(directory, name), mark) for mark in _WHITEOUT)

    def is_opaque(self, directory: int) -> bool:
        """Any of the attributes says y, or there is fuse-overlayfs's file."""
        if any(_mark(directory, mark) == b"y" for mark in _OPAQUE):
            return True
        try:
            status = os.stat(_SENTINEL, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return False
        return self.is_private_name(_SENTINEL) and is_left_by_fuse_overlayfs(status)

    def is_private_name(self, name: bytes) -> bool:
        """fuse-overlayfs's mark of an opaque directory."""
        return name == _SENTINEL


def hidden_by(name: bytes, status: os.stat_result) -> bytes | None:
    """The name that is gone because of fuse-overlayfs's file `name`; None if it is an ordinary file."""
    if not name.startswith(_PREFIX) or not is_left_by_fuse_overlayfs(status):
        return None
    return name.removeprefix(_PREFIX)


def is_left_by_fuse_overlayfs(status: os.stat_result) -> bool:
    """Whether a file looks as fuse-overlayfs makes its marks: empty, 0700, or a device 0:0."""
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == 0
    return stat.S_ISREG(status.st_mode) and not status.st_size and stat.S_IMODE(status.st_mode) == 0o700


def has_mark(place: int | bytes, name: str) -> bool:
    """Whether there is an attribute of this name."""
    return _mark(place, name) is not None


def _mark(place: int | bytes, name: str) -> bytes | None:
    try:
        if isinstance(place, int):
            return os.getxattr(place, name)
        return os.getxattr(place, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise

"""How overlayfs writes down that something is gone (kernel: Documentation/filesystems/overlayfs.rst)."""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import Final

import attrs

from lamina.changes import Whiteouts
from lamina.xattrs import at

_PRIVATE: Final = ("trusted.overlay.", "user.overlay.")
_MISSING: Final = frozenset({errno.ENODATA, errno.ENOTSUP})
_REFUSED: Final = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP})


@attrs.frozen
class OverlayWhiteouts(Whiteouts):
    """A removal is a character device 0:0; an opaque directory has the attribute `overlay.opaque` with the value y.

    The attribute's namespace is `trusted`, or `user` for mounts with `userxattr`, as in user namespaces. Where no
    device can be made, a removal is an empty file with the attribute `overlay.whiteout` in a directory marked with
    `overlay.opaque` = x (Linux 6.8): understood in every layer but the writable one.
    """

    prefix: str = "trusted.overlay."

    def is_whiteout(self, directory: int, name: bytes, status: os.stat_result) -> bool:
        """A device 0:0, or an empty file that says so."""
        if stat.S_ISCHR(status.st_mode):
            return status.st_rdev == 0
        if not stat.S_ISREG(status.st_mode) or status.st_size:
            return False
        return _attribute(at(directory, name), self.prefix + "whiteout") is not None

    def is_opaque(self, directory: int) -> bool:
        """Marked with y; x says only that removals are written as attributes."""
        return self._mark(directory) == b"y"

    def write_whiteout(self, directory: int, name: bytes) -> None:
        """A device where the kernel lets us make one (any user may, since Linux 5.8), else an attribute.

        A kernel that would not read the attribute raises instead: what is gone would be seen again.
        """
        self._expect_whiteouts(directory)
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)
        except OSError as error:
            if error.errno not in _REFUSED or not kernel_reads_attributes():
                raise
            self._write_as_attribute(directory, name)

    def write_opaque(self, directory: int) -> None:
        """Nothing below shows through any more."""
        if self._mark(directory) == b"x":
            self._drop_attribute_whiteouts(directory)  # read as files, once the mark that explains them is gone
        os.setxattr(directory, self.prefix + "opaque", b"y")

    def is_private_xattr(self, name: str) -> bool:
        """Everything of overlayfs, and what an overlay inside a container has written in its escaped form."""
        return name.startswith(_PRIVATE)

    def _expect_whiteouts(self, directory: int) -> None:
        """The kernel keeps whiteouts out of a listing where directories are joined, or one says it was copied up.

        (ovl_get_inode in fs/overlayfs/inode.c.) Elsewhere, as where nothing below has this directory, `ls` would show
        names that are not there. No value says that the origin is not known.
        """
        place = at(directory, b".")  # the union in user space has it open as a place only
        try:
            os.setxattr(place, self.prefix + "origin", b"", os.XATTR_CREATE)
        except OSError as error:
            if error.errno not in {errno.EEXIST, *_REFUSED}:  # it can do without
                raise

    def _mark(self, directory: int) -> bytes | None:
        return _attribute(directory, self.prefix + "opaque")

    def _write_as_attribute(self, directory: int, name: bytes) -> None:
        mark = self._mark(directory)
        if mark == b"y":
            return  # all of it is hidden already, and a mark cannot say both
        if mark is None:
            os.setxattr(directory, self.prefix + "opaque", b"x")
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory))
        os.setxattr(at(directory, name), self.prefix + "whiteout", b"", follow_symlinks=False)

    def _drop_attribute_whiteouts(self, directory: int) -> None:
        for name in map(os.fsencode, os.listdir(directory)):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and self.is_whiteout(directory, name, status):
                os.unlink(name, dir_fd=directory)


def kernel_reads_attributes() -> bool:
    """Whether overlayfs takes an empty file with the attribute for a removal: since Linux 6.8."""
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= (6, 8)


def _attribute(place: int | bytes, name: str) -> bytes | None:
    try:
        if isinstance(place, int):
            return os.getxattr(place, name)
        return os.getxattr(place, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise

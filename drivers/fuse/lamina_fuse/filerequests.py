"""Requests that open, read and write files."""

from __future__ import annotations

import contextlib
import errno
from typing import cast

import pyfuse3
from pyfuse3 import FileInfo, RequestContext

from lamina_fuse.naming import fail
from lamina_fuse.requests import Requests, handler


class FileRequests(Requests):
    """Handlers for files; the handle is the descriptor behind all who have the file open."""

    @handler
    def open(self, ino: int, flags: int, ctx: RequestContext) -> FileInfo:
        """The kernel may keep what it has read: only we change it."""
        return FileInfo(fh=self._files.open(ino, flags))

    @handler
    def read(self, fh: int, offset: int, size: int) -> bytes:
        """Bytes; pyfuse3 takes any buffer."""
        return cast("bytes", self._files.read(fh, offset, size))

    @handler
    def write(self, fh: int, offset: int, data: bytes) -> int:
        """Bytes."""
        return self._files.write(fh, offset, data)

    @handler
    def flush(self, fh: int) -> None:
        """Nothing is held back: the kernel need not ask again."""
        raise fail(errno.ENOSYS)

    @handler
    def release(self, fh: int) -> None:
        """Closed by one."""
        if ino := self._files.release(fh):
            with contextlib.suppress(OSError):  # the kernel has forgotten it
                pyfuse3.invalidate_inode(ino, attr_only=True)

    @handler
    def fsync(self, fh: int, data_only: bool) -> None:  # noqa: FBT001  # pyfuse3's signature
        """On disk."""
        self._files.fsync(fh, data_only=data_only)

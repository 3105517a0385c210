"""Give a file the content of another, in the cheapest way that the two file systems offer; holes stay holes."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from typing import Final

from lamina.syscalls import opened

_FICLONE: Final = 0x40049409  # linux/fs.h
_CHUNK: Final = 1 << 20
_STRIDE: Final = 64 << 20  # as much as may pass between two looks at whether to go on
_NEVER: Final = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.ENOSYS}  # these two file systems cannot
_NOT_HERE: Final = _NEVER | {errno.EINVAL, errno.EPERM, errno.ETXTBSY}  # this file cannot


class Filler:
    """Fills files, for any number of threads; it learns what works, and can be stopped."""

    def __init__(self) -> None:
        self._no_clone: set[tuple[int, int]] = set()
        self._no_range: set[tuple[int, int]] = set()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Whatever is being copied breaks off soon, with `InterruptedError`; nothing new begins."""
        self._stopped.set()

    def check(self) -> None:
        """Raise `InterruptedError` if somebody said stop."""
        if self._stopped.is_set():
            raise InterruptedError(errno.EINTR, "the copy was stopped")

    def fill(self, source: int, target: int, status: os.stat_result) -> None:
        """Give the empty file `target` what `source`, whose status is given, holds; a shrinking file ends in a hole."""
        size = status.st_size
        pair = status.st_dev, os.fstat(target).st_dev
        if not size or self._clone(source, target, pair):
            return
        end = 0
        for start, end in extents(source, size):
            reached = start if pair in self._no_range else self._by_kernel(source, target, start, end, pair)
            self._by_hand(source, target, reached, end)
        if end < size or os.fstat(target).st_size < size:
            os.ftruncate(target, size)

    def _clone(self, source: int, target: int, pair: tuple[int, int]) -> bool:
        if pair in self._no_clone:
            return False
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            if error.errno in _NEVER:
                self._no_clone.add(pair)
            return False
        return True

    def _by_kernel(self, source: int, target: int, start: int, end: int, pair: tuple[int, int]) -> int:
        """Copy as far as copy_file_range(2) does it; return how far it came."""
        try:
            while start < end:
                self.check()
                copied = os.copy_file_range(source, target, min(_STRIDE, end - start), start, start)
                if not copied:  # some file systems copy nothing and do not say why; or the file shrank
                    break
                start += copied
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            if error.errno in _NEVER:
                self._no_range.add(pair)
        return start

    def _by_hand(self, source: int, target: int, start: int, end: int) -> None:
        while start < end:
            self.check()
            data = os.pread(source, min(_CHUNK, end - start), start)
            if not data:
                return
            start += os.pwrite(target, data, start)


def extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges (start, end) of an open file that hold data, in order; the rest are holes, which read as zeros."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data any more
                return
            if error.errno != errno.EINVAL:
                raise
            yield end, size  # this file system knows nothing of holes
            return
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        if start < end:
            yield start, end


def can_clone(directory: int) -> bool:
    """Whether copies of files on the file system of this open directory are clones; probed without leaving a trace."""
    flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
    try:
        with opened(b".", flags, dir_fd=directory) as one, opened(b".", flags, dir_fd=directory) as other:
            os.write(one, b"x")
            fcntl.ioctl(other, _FICLONE, one)
    except OSError:
        return False
    return True

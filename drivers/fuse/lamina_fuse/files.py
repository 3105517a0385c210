"""Open, read, write and flush files."""

from __future__ import annotations

import errno
import os
from collections import deque
from typing import Final

from lamina import syscalls
from lamina_fuse.copyup import CopyUp, open_lower
from lamina_fuse.naming import fail
from lamina_fuse.node import Node
from lamina_fuse.record import ATIME
from lamina_fuse.registry import OpenFile
from lamina_fuse.tree import Tree

_KEPT_OPEN: Final = 256  # files of lower layers, for the next who wants them
_LARGEST: Final = 1 << 20  # of one read
_HOW: Final = os.O_CLOEXEC | os.O_NONBLOCK


class Files:
    """All who have an inode open share one descriptor, so they see one content, before and after it is copied up."""

    def __init__(self, tree: Tree, copies: CopyUp) -> None:
        self._tree = tree
        self._copies = copies
        self._lower: deque[OpenFile] = deque()  # the longest open first
        self._buffer = memoryview(bytearray(_LARGEST))

    def open(self, ino: int, flags: int) -> int:
        """Open once more, as open(2) would; the handle is the descriptor."""
        opens = self._tree.opens
        writes = flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC
        if writes:
            node = self._copies.raised(ino, size=0 if flags & os.O_TRUNC else None)
            found = opens.get(ino) or self._add(self._open_upper(node, write=True))
            self._make_writable(found, node)
            found.mapped |= flags & os.O_ACCMODE == os.O_RDWR
            if flags & os.O_TRUNC:
                os.ftruncate(found.descriptor, 0)
                self._tree.changed(ino)
        else:
            found = opens.get(ino) or self._open_to_read(ino)
        self._tree.hints.enter(found.descriptor)
        return found.descriptor

    def adopt(self, ino: int, descriptor: int, flags: int) -> None:
        """A file that was made and opened at once; the handle is the descriptor."""
        opened = self._add(OpenFile(ino, descriptor, writable=True, lower=False))
        self._tree.hints.enter(descriptor)
        opened.mapped = flags & os.O_ACCMODE == os.O_RDWR

    def _add(self, opened: OpenFile) -> OpenFile:
        self._tree.opens[opened.ino] = opened
        self._tree.handles[opened.descriptor] = opened
        if opened.lower:
            self._tree.hints.opened_lower(opened.ino, opened.descriptor)
        else:
            self._tree.raised_open(opened)
        if not opened.lower or self._tree.upper is None:  # what may yet be copied up has to change under its readers
            self._tree.hints.passes_through(opened.descriptor)
        return opened

    def _open_to_read(self, ino: int) -> OpenFile:
        node = self._tree.node(ino)
        if node is not None and node.up:
            return self._add(self._open_upper(node, write=False))
        self._close_idle()
        found = self._add(OpenFile(ino, open_lower(self._tree, ino), writable=False, lower=True))
        self._lower.append(found)
        self._settle(found)
        return found

    def _settle(self, lower: OpenFile) -> None:
        """Let the accelerator tell the attributes that the descriptor has, where they are those that users see."""
        tree, ino = self._tree, lower.ino
        if not tree.is_settled(ino) or ino in tree.gone:
            return
        if os.fstat(lower.descriptor).st_atime_ns == tree.record(ino)[ATIME]:
            tree.hints.settled(ino)

    def _close_idle(self) -> None:
        """There are not many files of lower layers open that nobody uses."""
        tree = self._tree
        for _ in range(2 if len(self._lower) > _KEPT_OPEN else 0):  # two: they become less, and no call takes long
            found = self._lower.popleft()
            if tree.opens.get(found.ino) is not found or not found.lower:
                continue  # it was copied up
            if tree.hints.users(found.descriptor):
                self._lower.append(found)
            else:
                tree.close_file(found)
                tree.drop(found.ino)

    def _open_upper(self, node: Node, *, write: bool) -> OpenFile:
        directory, name = self._tree.place(node)
        how = _HOW | (0 if directory is None else os.O_NOFOLLOW)
        if not write:
            return OpenFile(node.ino, os.open(name, os.O_RDONLY | how, dir_fd=directory), writable=False, lower=False)
        try:
            descriptor = os.open(name, os.O_RDWR | how, dir_fd=directory)
        except PermissionError:  # an ordinary user's file that may only be written
            descriptor = os.open(name, os.O_WRONLY | how, dir_fd=directory)
        return OpenFile(node.ino, descriptor, writable=True, lower=False)

    def _make_writable(self, found: OpenFile, node: Node) -> None:
        if found.writable:
            return
        better = self._open_upper(node, write=True)
        os.dup2(better.descriptor, found.descriptor, inheritable=False)
        os.close(better.descriptor)
        found.writable, found.lower = True, False
        self._tree.raised_open(found)

    def release(self, handle: int) -> int:
        """Close once; the last one closes for good.

        Returns the inode number if its times may be others than the kernel was told: that of a mapping of what is
        passed through does not say when it is written to. Otherwise 0.
        """
        found = self._tree.handles.get(handle)
        if found is None or self._tree.hints.leave(handle) > 0 or found.lower:
            return 0
        self._tree.close_file(found)
        self._tree.drop(found.ino)
        return found.ino if found.mapped else 0

    def _opened(self, ino: int) -> OpenFile:
        found = self._tree.opens.get(ino)
        if found is None:
            raise fail(errno.EBADF)
        return found

    def read(self, handle: int, offset: int, size: int) -> memoryview | bytes:
        """At most `size` bytes; valid until the next read. The accelerator does it by itself."""
        if size > _LARGEST:
            return os.pread(handle, size, offset)
        return self._buffer[: os.preadv(handle, (self._buffer[:size],), offset)]

    def write(self, handle: int, offset: int, data: bytes) -> int:
        """How many bytes were written. The accelerator does it by itself."""
        return os.pwrite(handle, data, offset)

    def fsync(self, handle: int, *, data_only: bool) -> None:
        """On disk when this returns."""
        (os.fdatasync if data_only else os.fsync)(handle)

    # what pyfuse3 has no handlers for

    def seek(self, ino: int, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE; the file's position is not ours, so moving it does no harm."""
        return os.lseek(self._opened(ino).descriptor, offset, whence)

    def allocate(self, ino: int, mode: int, offset: int, length: int) -> None:
        """fallocate(2)."""
        syscalls.fallocate(self._opened(ino).descriptor, mode, offset, length)
        self._tree.changed(ino)

    def copy_range(self, ino: int, offset: int, target: int, target_offset: int, length: int) -> int:
        """copy_file_range(2)."""
        source, to = self._opened(ino).descriptor, self._opened(target).descriptor
        copied = os.copy_file_range(source, to, length, offset, target_offset)
        self._tree.changed(target)
        return copied

    def truncate(self, ino: int, size: int) -> None:
        """Cut or grow; of a lower file no more is copied than stays."""
        node = self._copies.raised(ino, size=size)
        found = self._tree.opens.get(ino)
        if found is not None:
            self._make_writable(found, node)
            os.ftruncate(found.descriptor, size)
        else:
            opened = self._open_upper(node, write=True)
            try:
                os.ftruncate(opened.descriptor, size)
            finally:
                os.close(opened.descriptor)
        self._tree.changed(ino)

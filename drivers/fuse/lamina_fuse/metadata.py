"""Owners, modes, times and extended attributes."""

from __future__ import annotations

import errno
import os
import stat

from lamina_fuse.copyup import CopyUp
from lamina_fuse.naming import fail
from lamina_fuse.node import Node
from lamina_fuse.record import ATIME, MTIME
from lamina_fuse.tree import Tree
from lamina_fuse.union import ROW_MASK, SHIFT
from lamina_fuse.upper import shown_name


class Metadata:
    """What chmod, chown, utime and the xattr calls do."""

    def __init__(self, tree: Tree, copies: CopyUp, prefix: str) -> None:
        self._tree = tree
        self._copies = copies
        self._prefix = prefix

    def chmod(self, ino: int, mode: int) -> None:
        """The mode's permission bits."""
        node = self._copies.raised(ino)
        directory, name = self._tree.place(node)
        os.chmod(name, stat.S_IMODE(mode), dir_fd=directory)  # never of a link: the kernel does not ask
        self._tree.changed(ino)

    def chown(self, ino: int, uid: int, gid: int) -> None:
        """-1 leaves as it is."""
        node = self._copies.raised(ino)
        directory, name = self._tree.place(node)
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=directory is None)
        self._tree.changed(ino)

    def touch(self, ino: int, atime: int | None, mtime: int | None) -> None:
        """Times in nanoseconds; None leaves as it is."""
        node = self._copies.raised(ino)
        record = self._tree.record(ino)
        times = record[ATIME] if atime is None else atime, record[MTIME] if mtime is None else mtime
        directory, name = self._tree.place(node)
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=directory is None)
        self._tree.changed(ino)

    # extended attributes

    def get(self, ino: int, name: str) -> bytes:
        """The value, or ENODATA."""
        node = self._tree.node(ino)
        stored = self._stored(name)
        if node is None or not node.up:
            found = self._lower(ino, node).get(stored)
            if found is None:
                raise fail(errno.ENODATA)
            return found
        path, follow = self._tree.path(node)
        return os.getxattr(path, stored, follow_symlinks=follow)

    def lacks(self, ino: int) -> bool:
        """Whether it is known, without asking, that an inode has no attributes."""
        node = self._tree.node(ino)
        if node is None or not node.up:
            return not self._lower(ino, node)
        return node.plain

    def _lower(self, ino: int, node: Node | None) -> dict[str, bytes]:
        lowest = ino if node is None else node.stack[0]
        index = self._tree.layers.get(lowest >> SHIFT)
        if index is None:
            raise fail(errno.ESTALE)
        return index.xattrs(lowest & ROW_MASK)

    def names(self, ino: int) -> list[str]:
        """As users see them."""
        node = self._tree.node(ino)
        if node is None or not node.up:
            stored = list(self._lower(ino, node))
        else:
            path, follow = self._tree.path(node)
            stored = os.listxattr(path, follow_symlinks=follow)
        return [shown for name in stored if (shown := shown_name(name, self._prefix)) is not None]

    def set(self, ino: int, name: str, value: bytes) -> None:
        """The attribute has this value."""
        node = self._copies.raised(ino)
        node.plain = False
        self._tree.hints.dressed(ino)
        path, follow = self._tree.path(node)
        os.setxattr(path, self._stored(name), value, follow_symlinks=follow)
        self._tree.changed(ino)

    def remove(self, ino: int, name: str) -> None:
        """The attribute is gone, or ENODATA."""
        self.get(ino, name)  # before a file is copied for nothing
        node = self._copies.raised(ino)
        path, follow = self._tree.path(node)
        os.removexattr(path, self._stored(name), follow_symlinks=follow)
        self._tree.changed(ino)

    def _stored(self, name: str) -> str:
        if not name.startswith(self._prefix):
            return name
        return f"{self._prefix}overlay.{name.removeprefix(self._prefix)}"

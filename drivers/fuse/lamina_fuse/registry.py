"""Who is remembered: nodes by inode, the names that lead to them, and descriptors of the writable layer."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from lamina.xattrs import at
from lamina_fuse.hints import Hints
from lamina_fuse.node import Node
from lamina_fuse.places import magic
from lamina_fuse.record import Record
from lamina_fuse.union import ROOT
from lamina_fuse.upper import Upper

_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN: Final = 512  # directories of the writable layer
_MOST_FORGOTTEN: Final = 1024  # inodes that wait for a pause


class OpenFile:
    """The one descriptor behind all who have an inode open."""

    __slots__ = ("descriptor", "ino", "lower", "mapped", "writable")

    def __init__(self, ino: int, descriptor: int, *, writable: bool, lower: bool) -> None:
        self.ino = ino
        self.descriptor = descriptor  # and the handle that the kernel gets; the number stays when the file is copied up
        self.writable = writable
        self.mapped = False  # perhaps: it was opened so that it can be changed through a mapping
        self.lower = lower


class Registry:
    """Nodes live as long as the kernel, an open file or a name below them needs them."""

    def __init__(self, root: Node, upper: Upper | None) -> None:
        """Only the root is known."""
        self.upper = upper
        self.hints = Hints()
        self.root = root
        self.nodes = {ROOT: root}
        self.known: dict[int, int] = {}  # how many references the kernel holds
        self.opens: dict[int, OpenFile] = {}  # files of lower layers also when nobody uses them at the moment
        self.handles: dict[int, OpenFile] = {}
        self.gone: set[int] = set()  # lower files whose only name was removed
        self._records: dict[int, Record] = {}
        self._open: OrderedDict[int, Node] = OrderedDict()
        self.forgotten: deque[tuple[int, int]] = deque()  # inodes, and how many references the kernel gave back
        if upper is not None:
            self.hints.opened_directory(ROOT, upper.root)

    def node(self, ino: int) -> Node | None:
        """What is remembered of an inode."""
        return self.nodes.get(ino)

    def directory(self, ino: int) -> Node:
        """The node of a directory; the kernel only asks about those that it was told of."""
        node = self.nodes.get(ino)
        if node is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return node

    def add(self, node: Node, directory: Node, name: bytes) -> Node:
        """Remember a new node under its name."""
        self.nodes[node.ino] = node
        self.attach(node, directory, name)
        return node

    def attach(self, node: Node, directory: Node, name: bytes) -> None:
        """A node has one more name."""
        node.names.append((directory, name))
        directory.kids += 1

    def detach(self, node: Node, directory: Node, name: bytes) -> None:
        """A node has one name less."""
        if (directory, name) in node.names:
            node.names.remove((directory, name))
            directory.kids -= 1

    def forget(self, forgotten: Iterable[tuple[int, int]]) -> None:
        """The kernel holds fewer references. What that frees is freed in a pause: to free a removed file takes time."""
        self.forgotten.extend(forgotten)
        while len(self.forgotten) > _MOST_FORGOTTEN:
            self.free_one()

    def free_one(self) -> None:
        """One of the forgotten inodes is so here, too."""
        ino, count = self.forgotten.popleft()
        left = self.known.get(ino, 0) - count
        if left > 0:
            self.known[ino] = left
        else:
            self.known.pop(ino, None)
            self.drop(ino)

    def drop(self, ino: int) -> None:
        """Forget what nobody can ask about any more, and then what only led to it."""
        while True:
            node = self.nodes.get(ino)
            if ino == ROOT or ino in self.known or ino in self.opens:
                return
            if node is None:
                self.gone.discard(ino)
                return
            if node.kids:
                return
            del self.nodes[ino]
            self._records.pop(ino, None)
            if node.descriptor >= 0:
                self.close_descriptor(node)
            node.close()
            above = [directory for directory, _ in node.names]
            for directory in above:
                directory.kids -= 1
            for directory in above[1:]:
                self.drop(directory.ino)
            if not above:
                return
            ino = above[0].ino

    def close_file(self, opened: OpenFile) -> None:
        """The file is not open any more."""
        del self.opens[opened.ino], self.handles[opened.descriptor]
        self.hints.closed(opened.ino)
        self.hints.let_go(opened.descriptor)
        os.close(opened.descriptor)

    def descriptor(self, node: Node) -> int:
        """A directory of the writable layer, opened with O_PATH; stays open while it is used now and then."""
        if node.descriptor >= 0:
            return node.descriptor
        if node.grave >= 0:
            return node.grave
        way = []
        here = node
        while here.descriptor < 0 and here is not self.root:
            way.append(here)
            here = here.names[0][0]
        assert self.upper is not None  # noqa: S101
        last = self.upper.root if here is self.root else here.descriptor
        for each in reversed(way):
            last = each.descriptor = os.open(each.names[0][1], _STEP, dir_fd=last)
            self._open[each.ino] = each
            self.hints.opened_directory(each.ino, last)
        while len(self._open) > max(_KEPT_OPEN, len(way) + 1):
            self.close_descriptor(next(iter(self._open.values())))
        return last

    def close_descriptor(self, node: Node) -> None:
        """It is opened again when it is needed."""
        self._open.pop(node.ino, None)
        self.hints.closed(node.ino)
        os.close(node.descriptor)
        node.descriptor = -1

    def place(self, node: Node) -> tuple[int | None, bytes]:
        """Directory and name of something in the writable layer; (None, a path to follow) if it has no name."""
        if node.names:
            directory, name = node.names[0]
            return self.descriptor(directory), name
        if node is self.root:
            assert self.upper is not None  # noqa: S101
            return None, magic(self.upper.root)
        return None, magic(node.grave)

    def path(self, node: Node) -> tuple[bytes, bool]:
        """A path for calls that take no directory, and whether to follow it."""
        directory, name = self.place(node)
        return (name, True) if directory is None else (at(directory, name), False)

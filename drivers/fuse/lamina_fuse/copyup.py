"""Copy what a lower layer has into the writable one, whole and at once, before it is changed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from lamina.filling import Filler
from lamina.syscalls import opened
from lamina.xattrs import at, write_xattrs
from lamina_fuse.node import Node
from lamina_fuse.places import open_below
from lamina_fuse.record import ATIME, GID, MODE, MTIME, RDEV, UID, Record
from lamina_fuse.tree import Tree
from lamina_fuse.union import ROW_MASK, SHIFT
from lamina_fuse.upper import Upper, shown_name

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class CopyUp:
    """Nothing that users see changes by it, inode numbers included."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._filler = Filler()

    @property
    def _upper(self) -> Upper:
        if self._tree.upper is None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return self._tree.upper

    def raised(self, ino: int, *, size: int | None = None) -> Node:
        """The inode is in the writable layer; of a file's content at least the first `size` bytes, or all."""
        node = self._tree.node(ino)
        if node is not None and node.up:
            return node
        if node is not None:
            return self._directories(node)
        return self._file(ino, size)

    # directories

    def _directories(self, node: Node) -> Node:
        way = []
        here = node
        while not here.up:
            way.append(here)
            here = here.names[0][0]
        for each in reversed(way):
            self._directory(each)
        return node

    def _directory(self, node: Node) -> None:
        tree, upper = self._tree, self._upper
        parent, name = node.names[0]
        record = tree.record(node.ino)
        temporary = upper.temporary()
        with upper.made(temporary):
            os.mkdir(temporary, 0o700, dir_fd=upper.work)
            with opened(temporary, os.O_RDONLY | os.O_DIRECTORY, dir_fd=upper.work) as made:
                self._dress(made, record, self._xattrs(node.stack[0]))
            self._place(temporary, parent, name)
        node.up = True
        node.above = {}
        tree.changed(node.ino)
        tree.named(parent, name, node.ino)

    def _place(self, temporary: bytes, parent: Node, name: bytes) -> None:
        """Into its place, without a trace in the parent's times."""
        place = self._tree.descriptor(parent)
        times = self._tree.record(parent.ino)
        os.rename(temporary, name, src_dir_fd=self._upper.work, dst_dir_fd=place)
        self._restore(place, times)
        self._tree.changed(parent.ino)

    def _restore(self, directory: int, record: Record) -> None:
        os.utime(at(directory, b"."), ns=(record[ATIME], record[MTIME]))

    # anything else

    def _file(self, ino: int, size: int | None) -> Node:
        tree, upper = self._tree, self._upper
        names = self._names(ino)
        for parent, _ in names:
            self.raised(parent.ino)
        temporary = upper.temporary()
        node = Node(ino, directory=False, up=True)
        with upper.made(temporary):
            self._make(ino, temporary, size, alone=len(names) < 2)
            if not names:  # removed, and somebody has it open
                node.grave = os.open(temporary, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=upper.work)
                os.unlink(temporary, dir_fd=upper.work)
            with self._linked(temporary, names[1:]):
                if names:
                    self._place(temporary, *names[0])
        if len(names) > 1:  # not before all are there: killed meanwhile, we leave two files, not one with two contents
            self._upper.set_origin(at(tree.descriptor(names[0][0]), names[0][1]), ino)
        tree.nodes[ino] = node
        tree.gone.discard(ino)
        tree.changed(ino)
        for parent, name in names:
            tree.attach(node, parent, name)
            tree.named(parent, name, ino)
        self._switch(node)
        return node

    def _names(self, ino: int) -> list[tuple[Node, bytes]]:
        if ino in self._tree.gone:
            return []
        return self._tree.visible_names(ino)

    @contextlib.contextmanager
    def _linked(self, temporary: bytes, names: list[tuple[Node, bytes]]) -> Iterator[None]:
        """What was made is also called so, unless the body raises."""
        done: list[tuple[Node, bytes]] = []
        try:
            for parent, name in names:
                self._link(temporary, parent, name)
                done.append((parent, name))
            yield
        except BaseException:
            for parent, name in done:
                place, times = self._tree.descriptor(parent), self._tree.record(parent.ino)
                os.unlink(name, dir_fd=place)
                self._restore(place, times)
                self._tree.changed(parent.ino)
            raise

    def _link(self, temporary: bytes, parent: Node, name: bytes) -> None:
        place = self._tree.descriptor(parent)
        times = self._tree.record(parent.ino)
        os.link(temporary, name, src_dir_fd=self._upper.work, dst_dir_fd=place, follow_symlinks=False)
        self._restore(place, times)
        self._tree.changed(parent.ino)

    def _make(self, ino: int, temporary: bytes, size: int | None, *, alone: bool) -> None:
        upper, index = self._upper, self._tree.layers[ino >> SHIFT]
        row = ino & ROW_MASK
        record = index.record(row)
        if stat.S_ISREG(record[MODE]):
            with opened(temporary, _NEW, dir_fd=upper.work) as target:
                self._fill(ino, target, size)
                if alone:
                    upper.set_origin(target, ino)
                self._dress(target, record, self._xattrs(ino))
            return
        if stat.S_ISLNK(record[MODE]):
            os.symlink(index.target(row), temporary, dir_fd=upper.work)
        else:
            os.mknod(temporary, record[MODE], record[RDEV], dir_fd=upper.work)
        if alone:
            upper.set_origin(at(upper.work, temporary), ino)
        self._dress_special(temporary, record, self._xattrs(ino))

    def _fill(self, ino: int, target: int, size: int | None) -> None:
        if size == 0:
            return
        source = open_lower(self._tree, ino)
        try:
            self._filler.fill(source, target, os.fstat(source))
        finally:
            os.close(source)
        if size is not None and size < os.fstat(target).st_size:
            os.ftruncate(target, size)

    def _xattrs(self, reference: int) -> dict[str, bytes]:
        upper = self._upper
        stored = self._tree.layers[reference >> SHIFT].xattrs(reference & ROW_MASK)
        return {name: value for name, value in stored.items() if shown_name(name, upper.prefix) is not None}

    def _dress(self, target: int, record: Record, xattrs: dict[str, bytes]) -> None:
        status = os.fstat(target)
        if (status.st_uid, status.st_gid) != (record[UID], record[GID]):
            _as_far_as_allowed(os.fchown, target, record[UID], record[GID])
        if xattrs:
            write_xattrs(target, xattrs, skip_forbidden=True)
        os.fchmod(target, stat.S_IMODE(record[MODE]))
        os.utime(target, ns=(record[ATIME], record[MTIME]))

    def _dress_special(self, name: bytes, record: Record, xattrs: dict[str, bytes]) -> None:
        work = self._upper.work
        _as_far_as_allowed(os.chown, at(work, name), record[UID], record[GID], follow_symlinks=False)
        if xattrs:
            write_xattrs(at(work, name), xattrs, skip_forbidden=True)
        if not stat.S_ISLNK(record[MODE]):
            os.chmod(name, stat.S_IMODE(record[MODE]), dir_fd=work)
        os.utime(name, ns=(record[ATIME], record[MTIME]), dir_fd=work, follow_symlinks=False)

    def _switch(self, node: Node) -> None:
        """Whoever has the file open reads the copy from now on, through the same descriptor number."""
        opened_file = self._tree.opens.get(node.ino)
        if opened_file is None:
            return
        if not self._tree.hints.users(opened_file.descriptor):
            self._tree.close_file(opened_file)
            return
        path, follow = self._tree.path(node)
        with opened(path, os.O_RDONLY | (0 if follow else os.O_NOFOLLOW)) as copy:
            os.dup2(copy, opened_file.descriptor, inheritable=False)
        opened_file.lower = opened_file.writable = False
        self._tree.raised_open(opened_file)

    # whole trees

    def whole(self, directory: Node) -> None:
        """All of a directory is in the writable layer, and it stands on nothing: it can be moved."""
        todo = [(directory, False)]
        while todo:
            node, visited = todo.pop()
            if visited:
                self._cut_off(node)
                continue
            self.raised(node.ino)
            if not node.stack:
                continue  # all of it is here already
            todo.append((node, True))
            for name, ino in list(self._shown(node)):
                found = self._tree.enter(node, name, ino)
                if found is None:
                    self.raised(ino)
                elif found.directory:
                    todo.append((found, False))

    def _shown(self, node: Node) -> Iterator[tuple[bytes, int]]:
        for name in self._tree.listing(node, 1):
            if ino := self._tree.find(node, name):
                yield name, ino

    def _cut_off(self, node: Node) -> None:
        tree, upper = self._tree, self._upper
        if not node.stack:
            return
        place = tree.descriptor(node)
        upper.set_opaque(place)
        upper.set_origin(at(place, b"."), node.ino)
        for name, ino in list(tree.above(node).items()):
            if not ino:
                os.unlink(name, dir_fd=place)
                del tree.above(node)[name]
        self._restore(place, tree.record(node.ino))
        tree.changed(node.ino)
        node.stack = ()
        node.below = {}


def open_lower(tree: Tree, ino: int) -> int:
    """A descriptor for reading a file of a lower layer, which does not even change its access time if we may do so."""
    layer = ino >> SHIFT
    path = tree.layers[layer].path(ino & ROW_MASK)
    try:
        return open_below(tree.roots[layer], path, _READ | os.O_NOATIME)
    except PermissionError:  # somebody else's file
        return open_below(tree.roots[layer], path, _READ)


def _as_far_as_allowed(change: Callable[..., None], *arguments: int | bytes, **how: bool) -> None:
    """An ordinary user's copy belongs to that user, as any copy would."""
    try:
        change(*arguments, **how)
    except PermissionError:
        if os.geteuid() == 0:
            raise

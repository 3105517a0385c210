"""Make, link and remove names in the merged tree."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from lamina import syscalls
from lamina.xattrs import at
from lamina_fuse import owners
from lamina_fuse.copyup import CopyUp
from lamina_fuse.node import Node
from lamina_fuse.owners import Owner
from lamina_fuse.places import magic
from lamina_fuse.record import GID, MODE, UID, record_of
from lamina_fuse.tree import Tree, own
from lamina_fuse.upper import Upper

NAME_MAX: Final = 255
_ACL: Final = "system.posix_acl_default"
_UNNAMED: Final = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC


def fail(number: int) -> OSError:
    """An error as the kernel would word it."""
    return OSError(number, os.strerror(number))


class Naming:
    """The verbs that add names, and those that take them away."""

    def __init__(self, tree: Tree, copies: CopyUp) -> None:
        self._tree = tree
        self._copies = copies
        self._privileged = os.geteuid() == 0

    @property
    def _upper(self) -> Upper:
        if self._tree.upper is None:
            raise fail(errno.EROFS)
        return self._tree.upper

    # adding

    def make(
        self,
        directory: Node,
        name: bytes,
        owner: Owner,
        how: Callable[[int, bytes], None],
        *,
        is_directory: bool = False,
    ) -> Node:
        """What `how` makes in an open directory under a name is there, and belongs to `owner`."""
        self._check_free(directory, name)
        to = owners.owner_in(self._tree.record(directory.ino), owner)

        def make(place: int, called: bytes) -> None:
            how(place, called)
            owners.give(place, called, to)

        place = self._put(directory, name, make, is_directory=is_directory)
        status = os.stat(name, dir_fd=place, follow_symlinks=False)
        node = Node(own(status), directory=is_directory, up=True)
        node.plain = not self._hands_down(directory)
        (self._tree.hints.plain if node.plain else self._tree.hints.dressed)(node.ino)
        self._tree.add(node, directory, name)
        self._tree.remember(node.ino, record_of(status))
        self._noted(directory, name, node.ino)
        if is_directory:
            node.above, node.below = {}, {}
        return node

    def make_unnamed(self, directory: Node, mode: int, owner: Owner) -> tuple[Node, int]:
        """A file without a name, as O_TMPFILE makes it, and its descriptor: it can be given a name while it is open."""
        if directory.dead:
            raise fail(errno.EPERM)  # as ext4 and tmpfs have it
        self._copies.raised(directory.ino)
        descriptor = os.open(b".", _UNNAMED, mode & 0o7777, dir_fd=self._tree.descriptor(directory))
        try:
            owners.give_open(descriptor, owners.owner_in(self._tree.record(directory.ino), owner))
            node = Node(own(os.fstat(descriptor)), directory=False, up=True)
            node.grave = os.open(magic(descriptor), os.O_PATH | os.O_CLOEXEC)
        except BaseException:
            os.close(descriptor)
            raise
        self._tree.nodes[node.ino] = node
        self._tree.hints.dressed(node.ino)
        return node, descriptor

    def link(self, node: Node, directory: Node, name: bytes) -> None:
        """One more name for what is in the writable layer."""
        self._check_free(directory, name)
        source, called = self._tree.place(node)

        def make(place: int, new: bytes) -> None:
            if source is None:
                os.link(called, new, dst_dir_fd=place, follow_symlinks=True)
            else:
                os.link(called, new, src_dir_fd=source, dst_dir_fd=place, follow_symlinks=False)

        self._put(directory, name, make)
        self._tree.attach(node, directory, name)
        if node.grave >= 0:
            os.close(node.grave)
            node.grave = -1
        self._tree.changed(node.ino)
        self._noted(directory, name, node.ino)

    def _check_free(self, directory: Node, name: bytes) -> None:
        if len(name) > NAME_MAX:
            raise fail(errno.ENAMETOOLONG)
        if directory.dead:
            raise fail(errno.ENOENT)
        if self._tree.find(directory, name):
            raise fail(errno.EEXIST)
        self._copies.raised(directory.ino)

    def _noted(self, directory: Node, name: bytes, ino: int) -> None:
        self._tree.changed(directory.ino)
        self._tree.named(directory, name, ino)

    def _put(
        self, directory: Node, name: bytes, make: Callable[[int, bytes], None], *, is_directory: bool = False
    ) -> int:
        """Make it in its place; over a whiteout by way of the work directory, so that it appears at once."""
        tree, upper = self._tree, self._upper
        place = tree.descriptor(directory)
        if tree.above(directory).get(name) is None:
            make(place, name)
            return place
        temporary = upper.temporary()
        with self._nursery(directory) as nursery, self._cleared(nursery, temporary):
            make(nursery, temporary)
            if not is_directory:
                os.rename(temporary, name, src_dir_fd=nursery, dst_dir_fd=place)
                return place
            if name in tree.below(directory):
                upper.set_opaque_at(nursery, temporary)
            syscalls.renameat2(nursery, temporary, place, name, syscalls.RENAME_EXCHANGE)
            os.unlink(temporary, dir_fd=nursery)
        return place

    @contextlib.contextmanager
    def _cleared(self, nursery: int, temporary: bytes) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._upper.discard_in(nursery, temporary)
            raise

    @contextlib.contextmanager
    def _nursery(self, directory: Node) -> Iterator[int]:
        """Where something can be made that inherits as it would in `directory`."""
        upper, record = self._upper, self._tree.record(directory.ino)
        acl = self.default_acl(directory)
        if not acl and not record[MODE] & stat.S_ISGID:
            yield upper.work
            return
        temporary = upper.temporary()
        os.mkdir(temporary, 0o700, dir_fd=upper.work)
        try:
            place = at(upper.work, temporary)
            if self._privileged:
                os.chown(place, record[UID], record[GID])
            if acl:
                os.setxattr(place, _ACL, acl)
            os.chmod(place, 0o700 | record[MODE] & stat.S_ISGID)
            with syscalls.opened(place, os.O_RDONLY | os.O_DIRECTORY) as nursery:
                yield nursery
        finally:
            upper.discard(temporary)

    def default_acl(self, directory: Node) -> bytes:
        """The access list that a directory hands down; empty if it has none."""
        path, _ = self._tree.path(directory)
        try:
            return os.getxattr(path, _ACL)
        except OSError:
            return b""

    def _hands_down(self, directory: Node) -> bool:
        return not directory.plain and bool(self.default_acl(directory))

    # taking away

    def unlink(self, directory: Node, name: bytes) -> None:
        """The name is gone; the inode stays while somebody has it open."""
        tree = self._tree
        ino = tree.find(directory, name)
        if not ino:
            raise fail(errno.ENOENT)
        self._copies.raised(directory.ino)
        place = tree.descriptor(directory)
        hides = name in tree.below(directory)
        node = tree.enter(directory, name, ino)
        if node is None or not node.up:
            self._upper.whiteout(place, name)
        else:
            self.bury(node, directory, name)
            if hides:
                self._upper.replace_by_whiteout(place, name)
            else:
                os.unlink(name, dir_fd=place)
        tree.hints.acknowledge()
        self._gone(directory, name, ino, node)

    def rmdir(self, directory: Node, name: bytes) -> None:
        """Likewise for a directory that shows nothing."""
        tree = self._tree
        ino = tree.find(directory, name)
        node = tree.enter(directory, name, ino) if ino else None
        if node is None:
            raise fail(errno.ENOENT)
        if not node.directory:
            raise fail(errno.ENOTDIR)
        if not tree.is_empty(node):
            raise fail(errno.ENOTEMPTY)
        self._copies.raised(directory.ino)
        place = tree.descriptor(directory)
        hides = name in tree.below(directory)
        if not node.up:
            self.raise_grave(node)
            self._upper.whiteout(place, name)
        else:
            self.bury(node, directory, name)
            if hides:
                self._upper.replace_directory_by_whiteout(place, name)
            else:
                self._upper.remove_directory(place, name)
        tree.hints.acknowledge()
        node.above, node.below, node.stack = {}, {}, ()
        self._gone(directory, name, ino, node)

    def raise_grave(self, node: Node) -> None:
        """A lower directory about to be hidden keeps a body of its own, for whoever stands in it."""
        upper = self._upper
        temporary = upper.temporary()
        record = self._tree.record(node.ino)
        os.mkdir(temporary, stat.S_IMODE(record[MODE]), dir_fd=upper.work)
        node.grave = os.open(temporary, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=upper.work)
        os.rmdir(temporary, dir_fd=upper.work)
        node.up = True

    def bury(self, node: Node, directory: Node, name: bytes) -> None:
        """Before the last known name goes: keep a way to the inode while the kernel may ask about it."""
        others = [known for known in node.names if known != (directory, name)]
        if others or node.grave >= 0:
            return
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        node.grave = os.open(name, flags, dir_fd=self._tree.descriptor(directory))
        if node.descriptor >= 0:
            self._tree.close_descriptor(node)

    def _gone(self, directory: Node, name: bytes, ino: int, node: Node | None) -> None:
        tree = self._tree
        tree.changed(ino)
        tree.changed(directory.ino)
        tree.unnamed(directory, name)
        if node is None:
            tree.lost(ino)
        else:
            tree.detach(node, directory, name)
        tree.drop(ino)

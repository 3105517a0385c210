"""Requests about names: look up, make, link, rename, remove."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from lamina_fuse.naming import NAME_MAX
from lamina_fuse.node import Node
from lamina_fuse.owners import Owner
from lamina_fuse.requests import Requests, handler
from lamina_fuse.upper import is_whiteout_device


class NameRequests(Requests):
    """Handlers of requests that name something."""

    @handler
    def lookup(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """The entry, or a lasting no."""
        if len(name) > NAME_MAX:
            raise FUSEError(errno.ENAMETOOLONG)
        tree = self._tree
        directory = tree.directory(parent)
        ino = tree.find(directory, name)
        if not ino:
            return self._nothing
        tree.enter(directory, name, ino)
        return self._found(ino)

    @handler
    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        """Anything but a directory or a link. A device 0:0 would be a whiteout."""
        if is_whiteout_device(mode, rdev):
            raise FUSEError(errno.EPERM)
        return self._made(parent, name, ctx, lambda place, called: os.mknod(called, mode, rdev, dir_fd=place))

    @handler
    def mkdir(self, parent: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        """A directory."""
        return self._made(
            parent, name, ctx, lambda place, called: os.mkdir(called, mode & 0o7777, dir_fd=place), is_directory=True
        )

    @handler
    def symlink(self, parent: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        """A symbolic link."""
        return self._made(parent, name, ctx, lambda place, called: os.symlink(target, called, dir_fd=place))

    def _made(
        self,
        parent: int,
        name: bytes,
        ctx: RequestContext,
        how: Callable[[int, bytes], None],
        *,
        is_directory: bool = False,
    ) -> EntryAttributes:
        directory = self._tree.directory(parent)
        node = self._naming.make(directory, name, Owner(ctx.uid, ctx.gid), how, is_directory=is_directory)
        return self._found(node.ino)

    @handler
    def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """A regular file, open."""
        tree = self._tree
        directory = tree.directory(parent)
        if self._secret and name == self._secret:
            return self._unnamed(directory, mode, flags, ctx)
        found = tree.find(directory, name)
        if found and not flags & os.O_EXCL:
            tree.enter(directory, name, found)
            return FileInfo(fh=self._files.open(found, flags)), self._found(found)
        descriptors: list[int] = []

        def how(place: int, called: bytes) -> None:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptors.append(os.open(called, flags, mode & 0o7777, dir_fd=place))

        try:
            node = self._naming.make(directory, name, Owner(ctx.uid, ctx.gid), how)
        except BaseException:
            for each in descriptors:
                os.close(each)
            raise
        entry = self._found(node.ino)
        self._files.adopt(node.ino, descriptors[0], flags)
        return FileInfo(fh=descriptors[0]), entry

    def _unnamed(self, directory: Node, mode: int, flags: int, ctx: RequestContext) -> tuple[FileInfo, EntryAttributes]:
        """O_TMPFILE, which the accelerator has packed into a name, since libfuse has no handler for it."""
        node, descriptor = self._naming.make_unnamed(directory, mode, Owner(ctx.uid, ctx.gid))
        self._files.adopt(node.ino, descriptor, flags)
        return FileInfo(fh=descriptor), self._found(node.ino)

    @handler
    def link(self, ino: int, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """One more name."""
        self._naming.link(self._copies.raised(ino), self._tree.directory(parent), name)
        return self._found(ino)

    @handler
    def unlink(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        """One name less."""
        self._naming.unlink(self._tree.directory(parent), name)

    @handler
    def rmdir(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        """An empty directory less."""
        self._naming.rmdir(self._tree.directory(parent), name)

    @handler
    def rename(  # noqa: PLR0913, PLR0917  # pyfuse3's signature
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, ctx: RequestContext
    ) -> None:
        """renameat2."""
        tree = self._tree
        self._renaming.rename(tree.directory(parent), name, tree.directory(new_parent), new_name, flags)

    @handler
    def readlink(self, ino: int, ctx: RequestContext) -> bytes:
        """What a link says."""
        node = self._tree.node(ino)
        if node is None:
            return self._tree.target(ino)
        directory, name = self._tree.place(node)
        return os.readlink(b"" if directory is None else name, dir_fd=node.grave if directory is None else directory)

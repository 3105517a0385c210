"""Requests that read directories."""

from __future__ import annotations

import errno

import pyfuse3
from pyfuse3 import FUSEError, RequestContext

from lamina_fuse.node import Node
from lamina_fuse.requests import Requests, handler
from lamina_fuse.union import ROOT


class DirectoryRequests(Requests):
    """Handlers for directories; the handle is the inode."""

    @handler
    def opendir(self, ino: int, ctx: RequestContext) -> int:
        """The handle is the inode. With the accelerator the kernel need not ask again, and keeps what it has read."""
        if self._stateless:
            raise FUSEError(errno.ENOSYS)
        return ino

    @handler
    def readdir(self, ino: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        """Names with their attributes, as many as fit; the kernel then knows them all."""
        tree = self._tree
        directory = tree.directory(ino)
        listing = tree.listing(directory, start)
        reply, known, fill = pyfuse3.readdir_reply, tree.known, self._fill
        if start < 2 and not self._dots(directory, start, token):
            return
        for position in range(max(start - 2, 0), len(listing)):
            name = listing[position]
            found = tree.find(directory, name)
            if not found:
                continue
            tree.enter(directory, name, found)
            if not reply(token, name, fill(found, tree.record(found)), position + 3):
                if found not in known:
                    tree.drop(found)
                return
            known[found] = known.get(found, 0) + 1

    def _dots(self, directory: Node, start: int, token: pyfuse3.ReaddirToken) -> bool:
        above = directory.names[0][0].ino if directory.names else ROOT
        for position, name, ino in ((0, b".", directory.ino), (1, b"..", above)):
            entry = self._fill(ino, self._tree.record(ino))
            if position >= start and not pyfuse3.readdir_reply(token, name, entry, position + 1):
                return False
        return True

    @handler
    def releasedir(self, ino: int) -> None:
        """Nothing was kept."""

    @handler
    def fsyncdir(self, ino: int, data_only: bool) -> None:  # noqa: FBT001  # pyfuse3's signature
        """The writable layer's directory is on disk."""
        self._tree.sync(self._tree.directory(ino))

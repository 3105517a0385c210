"""Requests about attributes, extended ones among them."""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

from pyfuse3 import EntryAttributes, FUSEError, RequestContext, SetattrFields, StatvfsData

from lamina_fuse.requests import Requests, handler

_QUIET: Final = frozenset({b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"})


class AttributeRequests(Requests):
    """Handlers of requests about one inode that need no open file."""

    @handler
    def getattr(self, ino: int, ctx: RequestContext) -> EntryAttributes:
        """All attributes. The kernel asks often, since it doubts access times, which we do not keep."""
        if self._tree.is_settled(ino):
            self._tree.hints.settled(ino)
        return self._fill(ino, self._tree.record(ino))

    @handler
    def setattr(
        self, ino: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        """Some attributes: size first, since it moves the times; the mode after the owner, who takes bits away."""
        if fields.update_size:
            self._files.truncate(ino, attr.st_size)
        if fields.update_uid or fields.update_gid:
            self._metadata.chown(
                ino, attr.st_uid if fields.update_uid else -1, attr.st_gid if fields.update_gid else -1
            )
        if fields.update_mode:
            self._metadata.chmod(ino, attr.st_mode)
        if fields.update_atime or fields.update_mtime:
            self._metadata.touch(
                ino,
                attr.st_atime_ns if fields.update_atime else None,
                attr.st_mtime_ns if fields.update_mtime else None,
            )
        return self._fill(ino, self._tree.record(ino))

    @handler
    def getxattr(self, ino: int, name: bytes, ctx: RequestContext) -> bytes:
        """A value; or what the accelerator has packed into a name, since pyfuse3 has no handler for it."""
        if self._secret and name.startswith(self._secret):
            return self._extra(ino, name[len(self._secret) :])
        if name in _QUIET and self._metadata.lacks(ino):
            self._tree.hints.plain(ino)
            raise FUSEError(errno.ENODATA)
        return self._metadata.get(ino, os.fsdecode(name))

    def _extra(self, ino: int, packed: bytes) -> bytes:
        verb, *words = packed.split(b",")
        first, second, third, fourth = (*(int(word) for word in words), 0, 0, 0)[:4]
        if verb == b"seek":
            return struct.pack("=q", self._files.seek(ino, first, second))
        if verb == b"allocate":
            self._files.allocate(ino, first, second, third)
            return b""
        return struct.pack("=II", self._files.copy_range(ino, first, second, third, fourth), 0)

    @handler
    def listxattr(self, ino: int, ctx: RequestContext) -> list[bytes]:
        """All names."""
        return [os.fsencode(name) for name in self._metadata.names(ino)]

    @handler
    def setxattr(self, ino: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """A value."""
        self._metadata.set(ino, os.fsdecode(name), value)

    @handler
    def removexattr(self, ino: int, name: bytes, ctx: RequestContext) -> None:
        """One less."""
        self._metadata.remove(ino, os.fsdecode(name))

    @handler
    def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Of the file system that the layers lie on."""
        told = self._tree.statvfs()
        stats = StatvfsData()
        for name in (
            "f_bsize",
            "f_frsize",
            "f_blocks",
            "f_bfree",
            "f_bavail",
            "f_files",
            "f_ffree",
            "f_favail",
            "f_namemax",
        ):
            setattr(stats, name, getattr(told, name))
        return stats

"""Changes of a tree as a layer tar: the same tree and changes give the same bytes."""

from __future__ import annotations

import collections
import errno
import os
import stat
from collections.abc import Iterable
from typing import BinaryIO, Final

import attrs

from lamina.archive.names import WHITEOUT, join
from lamina.changes import Change, ChangeKind
from lamina.descent import open_below
from lamina.errors import BadArchive
from lamina.filling import extents
from lamina.privacy import is_private_xattr
from lamina.syscalls import opened
from lamina.tar import END_OF_ARCHIVE, EntryType, Header, padding, write_header
from lamina.tar.header import MAX_EXTENTS
from lamina.xattrs import at, read_xattrs

_PIECE: Final = 1 << 20
_KEPT_OPEN: Final = 32
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_TYPES: Final = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFCHR: EntryType.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryType.BLOCK_DEVICE,
    stat.S_IFIFO: EntryType.FIFO,
}


def write_layer(root: int, changes: Iterable[Change], out: BinaryIO) -> None:
    """Write the changes, which are in canonical order, of the tree below the open `root`; `out` stays open.

    Removals become whiteouts. The names of one file become hard links to its first. Sockets, which no tar can hold,
    are left out, as by all other tools. So that a live tree can be written, too, a file that shrinks meanwhile is
    filled up with zeros, and one that vanishes is left out.
    """
    writer = _Writer(root, out)
    try:
        for change in changes:
            writer.write(change)
    finally:
        writer.close()
    out.write(END_OF_ARCHIVE)


class _Writer:
    def __init__(self, root: int, out: BinaryIO) -> None:
        self._root = root
        self._out = out
        self._first: dict[tuple[int, int], bytes] = {}
        self._open: collections.OrderedDict[bytes, int] = collections.OrderedDict()

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def write(self, change: Change) -> None:
        above, _, name = change.path.rpartition(b"/")
        if change.kind is ChangeKind.DELETED:
            self._out.write(write_header(Header(join(above, WHITEOUT + name), mode=0)))
            return
        try:
            self._write_entry(self._directory(above), name or b".", change.path)
        except FileNotFoundError:  # gone since the trees were compared
            return
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fsdecode(change.path)) from error

    def _directory(self, path: bytes) -> int:
        found = self._open.get(path)
        if found is not None:
            self._open.move_to_end(path)
            return found
        found = self._open[path] = open_below(self._root, path)
        if len(self._open) > _KEPT_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return found

    def _write_entry(self, directory: int, name: bytes, path: bytes) -> None:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind = _TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return  # a socket
        if name.startswith(WHITEOUT):
            raise BadArchive(path, f"a name beginning with {WHITEOUT!r} means something else in a layer; rename it")
        if kind is EntryType.FILE:
            with opened(name, _READ, dir_fd=directory) as file:
                self._write_file(file, path)
        elif kind is EntryType.DIRECTORY:
            self._out.write(write_header(_header(path + b"/" if path else b"./", kind, status, at(directory, name))))
        else:
            target = os.readlink(name, dir_fd=directory) if kind is EntryType.SYMLINK else b""
            self._write_other(path, _header(path, kind, status, at(directory, name), target), status)

    def _write_other(self, path: bytes, header: Header, status: os.stat_result) -> None:
        if not self._write_link(path, header, status):
            self._out.write(write_header(header))

    def _write_file(self, file: int, path: bytes) -> None:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ESTALE, "it was replaced while it was being read")
        header = _header(path, EntryType.FILE, status, file)
        if self._write_link(path, header, status):
            return
        pieces = _pieces(file, status)
        if pieces != [(0, status.st_size)] and status.st_size:
            header = attrs.evolve(header, sparse=tuple(pieces))
        self._out.write(write_header(header))
        for offset, length in pieces:
            self._copy(file, offset, length)
        self._out.write(padding(sum(length for _, length in pieces)))

    def _write_link(self, path: bytes, header: Header, status: os.stat_result) -> bool:
        """Whether the tar has another name of this file already; then this one is written as a link to it."""
        if status.st_nlink < 2:
            return False
        first = self._first.setdefault((status.st_dev, status.st_ino), path)
        if first == path:
            return False
        self._out.write(write_header(attrs.evolve(header, type=EntryType.HARD_LINK, size=0, linkname=first, xattrs={})))
        return True

    def _copy(self, file: int, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            piece = os.pread(file, min(_PIECE, end - offset), offset) or bytes(min(_PIECE, end - offset))
            self._out.write(piece)
            offset += len(piece)


def _header(path: bytes, kind: EntryType, status: os.stat_result, place: int | bytes, target: bytes = b"") -> Header:
    device = kind in {EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE}
    return Header(
        path,
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_size if kind is EntryType.FILE else 0,
        status.st_mtime_ns,
        target,
        os.major(status.st_rdev) if device else 0,
        os.minor(status.st_rdev) if device else 0,
        {name: value for name, value in read_xattrs(place).items() if not is_private_xattr(name)},
    )


def _pieces(file: int, status: os.stat_result) -> list[tuple[int, int]]:
    """Offset and length of what is stored; too many holes are filled in from the end."""
    size = status.st_size
    if status.st_blocks * 512 >= size:
        return [(0, size)]
    pieces = [(start, end - start) for start, end in extents(file, size)]
    if len(pieces) > MAX_EXTENTS:
        start = pieces[MAX_EXTENTS - 1][0]
        pieces[MAX_EXTENTS - 1 :] = [(start, size - start)]
    return pieces

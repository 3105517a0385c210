"""Unpack a tar into a directory of a container, as `cp -` does: nothing but what the tar holds, nothing outside."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from lamina.compression import open_decompressed
from lamina.containers.merging import link, make_directory, replace
from lamina.containers.places import Tree, found
from lamina.errors import BadArchive, NotFound
from lamina.likeness import Owner
from lamina.streams import Readable
from lamina.syscalls import opened
from lamina.tar import EntryData, EntryType, Header, read_headers
from lamina.xattrs import at, write_xattrs

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES: Final = {
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
}


def unpack(tree: Tree, path: bytes, stream: Readable, owner: Owner | None) -> None:
    """The directory at `path` holds what the tar does, besides what it held.

    Directories that were there stay as they are; files are replaced one by one, each when it is whole. BadArchive when
    the tar is broken or an entry has `..` in its name; what came before is unpacked then. NotFound without a directory.
    """
    with found(tree, path, follow=True) as place:
        if not place.is_directory:
            raise NotFound(f"there is no directory {os.fsdecode(path)!r}; a tar is unpacked into one")
    unpacking = _Unpacking(tree, path, owner)
    for header, data in read_headers(open_decompressed(stream)):
        unpacking.take(header, data)
    unpacking.finish()


class _Unpacking:
    """One tar on its way in. The directories it made get their metadata when nothing in them will change any more."""

    def __init__(self, tree: Tree, base: bytes, owner: Owner | None) -> None:
        self._tree = tree
        self._base = base
        self._owner = owner
        self._made: list[tuple[tuple[bytes, ...], Header]] = []

    def take(self, header: Header, data: EntryData) -> None:
        """Unpack one entry."""
        parts = _parts(header.path, header.path)
        if not parts:
            return  # the directory itself, which was there before
        with self._above(parts) as directory:
            if header.type is not EntryType.DIRECTORY:
                replace(directory, parts[-1], self._maker(header, data, directory))
            elif make_directory(directory, parts[-1]):
                self._made.append((parts, header))

    def finish(self) -> None:
        """Give the new directories their owners, modes and times, the innermost first."""
        for parts, header in reversed(self._made):
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),  # a later entry took its place
                self._above(parts) as above,
                opened(parts[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above) as made,
            ):
                self._complete(header, made)

    @contextlib.contextmanager
    def _above(self, parts: tuple[bytes, ...]) -> Iterator[int]:
        """The directory of an entry, as the container sees its path; missing ones are made."""
        path = b"/".join((self._base, *parts[:-1]))
        try:
            opening = self._tree.opened(path, os.O_PATH | os.O_DIRECTORY)
            directory = opening.__enter__()
        except FileNotFoundError:
            with self._above(parts[:-1]) as above:
                os.mkdir(parts[-2], 0o755, dir_fd=above)
            opening = self._tree.opened(path, os.O_PATH | os.O_DIRECTORY)
            directory = opening.__enter__()
        try:
            yield directory
        finally:
            opening.__exit__(None, None, None)

    def _maker(self, header: Header, data: EntryData, directory: int) -> Callable[[bytes], None]:
        if header.type is EntryType.FILE:
            return lambda part: self._file(header, data, directory, part)
        if header.type is EntryType.HARD_LINK:
            return lambda part: self._hard_link(header, directory, part)
        return lambda part: self._special(header, directory, part)

    def _file(self, header: Header, data: EntryData, directory: int, part: bytes) -> None:
        with opened(part, _CREATE, dir_fd=directory) as target:
            for offset, piece in data.pieces():
                _write(target, piece, offset)
            os.ftruncate(target, header.size)
            self._complete(header, target)

    def _hard_link(self, header: Header, directory: int, part: bytes) -> None:
        parts = _parts(header.linkname, header.path)
        if not parts:
            raise BadArchive(header.path, "a hard link to a directory")
        with self._above(parts) as there:
            link(there, parts[-1], directory, part)

    def _special(self, header: Header, directory: int, part: bytes) -> None:
        if header.type is EntryType.SYMLINK:
            os.symlink(header.linkname, part, dir_fd=directory)
        else:
            device = os.makedev(header.devmajor, header.devminor)
            os.mknod(part, _NODES[header.type] | 0o600, device, dir_fd=directory)
        os.chown(part, *self._owner_of(header), dir_fd=directory, follow_symlinks=False)
        write_xattrs(at(directory, part), dict(header.xattrs))
        if header.type is not EntryType.SYMLINK:
            os.chmod(part, header.mode, dir_fd=directory)
        os.utime(part, ns=_times(header), dir_fd=directory, follow_symlinks=False)

    def _complete(self, header: Header, made: int) -> None:
        """Metadata, in the order in which the kernel lets it stand."""
        os.fchown(made, *self._owner_of(header))
        write_xattrs(made, dict(header.xattrs))
        os.fchmod(made, header.mode)
        os.utime(made, ns=_times(header))

    def _owner_of(self, header: Header) -> Owner:
        return self._owner or (header.uid, header.gid)


def _parts(path: bytes, entry: bytes) -> tuple[bytes, ...]:
    parts = tuple(part for part in path.split(b"/") if part not in {b"", b"."})
    if b".." in parts:
        raise BadArchive(entry, "it would reach outside the directory")
    return parts


def _write(target: int, piece: memoryview, offset: int) -> None:
    while piece:
        written = os.pwrite(target, piece, offset)
        piece, offset = piece[written:], offset + written


def _times(header: Header) -> tuple[int, int]:
    return header.mtime_ns if header.atime_ns is None else header.atime_ns, header.mtime_ns

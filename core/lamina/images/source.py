"""Where a bundle is read from: a directory, a tar file, or a stream; nothing outside of it is ever opened."""

from __future__ import annotations

import io
import os
import posixpath
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import attrs

from lamina.compression import open_decompressed
from lamina.errors import BadArchive
from lamina.images.blobs import Blob
from lamina.images.fields import LARGEST_DOCUMENT
from lamina.images.intake import take_unknown
from lamina.images.work import Work
from lamina.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from lamina.tar import EntryType, Header, read_headers

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MOST_MEMBERS = 100_000
MOST_LINKS = 16
_ZEROS = bytes(1 << 20)


class Source(ABC):
    """Files by name, as the documents of a bundle spell them."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """The file, from its beginning, seekable; BadArchive if it is missing, or no regular file."""

    def stored(self, name: str) -> Blob | None:
        """The blob that the file is, if reading the bundle has made it one."""
        return None

    def read(self, name: str) -> bytes:
        """A document; BadArchive if it is larger than any honest one."""
        with self.open(name) as file:
            data = file.read(LARGEST_DOCUMENT + 1)
        if len(data) > LARGEST_DOCUMENT:
            raise BadArchive(name, f"a document of more than {LARGEST_DOCUMENT >> 20} MiB")
        return data


class DirectorySource(Source):
    """An OCI layout on disk. The kernel resolves names inside it, links included."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._fd)

    def has(self, name: str) -> bool:
        """Whether there is such a regular file."""
        try:
            self.open(name).close()
        except BadArchive:
            return False
        return True

    def open(self, name: str) -> BinaryIO:
        """The file, opened inside the directory."""
        clean = clean_name(name)
        try:  # O_NONBLOCK: a fifo of that name must not make us wait
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            fd = openat2(self._fd, os.fsencode(clean), flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            raise BadArchive(name, f"cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise BadArchive(name, "is not a regular file")
        return os.fdopen(fd, "rb", buffering=0)


@attrs.frozen
class _Link:
    target: str


@attrs.frozen
class _Extent:
    offset: int
    size: int


class TarSource(Source):
    """A plain tar file on disk: indexed once, read in place by any number of threads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._members = index(file)

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return isinstance(follow(self._members, name), _Extent)

    def open(self, name: str) -> BinaryIO:
        """The member, read in place."""
        found = follow(self._members, name)
        if not isinstance(found, _Extent):
            raise BadArchive(name, "is not in the archive")
        return io.BufferedReader(_Window(self._file.fileno(), found.offset, found.size), 1 << 20)


class StreamSource(Source):
    """A tar that can be read only once: its members are blobs of the store from the start."""

    def __init__(self, stream: BinaryIO, work: Work) -> None:
        self._work = work
        self._members: dict[str, Blob | _Link] = {}
        self._read(stream)

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return self.stored(name) is not None

    def stored(self, name: str) -> Blob | None:
        """Every member is a blob."""
        found = follow(self._members, name)
        return found if isinstance(found, Blob) else None

    def open(self, name: str) -> BinaryIO:
        """The member, from the blob that it has become."""
        if (found := self.stored(name)) is None:
            raise BadArchive(name, "is not in the archive")
        return self._work.shelves.blobs.open(found.digest)

    def _read(self, stream: BinaryIO) -> None:
        for header, reader in read_headers(open_decompressed(stream)):
            name = clean_name(os.fsdecode(header.path))
            if (link := _link(header, name)) is not None:
                add(self._members, name, link)
            elif header.type is EntryType.FILE:
                add(self._members, name, take_unknown(self._work, cast("BinaryIO", reader)))


def index(file: BinaryIO) -> dict[str, _Link | _Extent]:
    """Where each file of a tar lies. Contents are not read."""
    members: dict[str, _Link | _Extent] = {}
    skimmed = _Skimmed(file.fileno())
    for header, _ in read_headers(skimmed):
        name = clean_name(os.fsdecode(header.path))
        if (link := _link(header, name)) is not None:
            add(members, name, link)
        elif header.type is EntryType.FILE:
            add(members, name, skimmed.pass_over(name, header))
    return members


def add(members: dict[str, Any], name: str, member: Any) -> None:
    """Note a member; BadArchive if the name is taken, for another reader might take the other one."""
    if name in members:
        raise BadArchive(name, "is in the archive twice")
    if len(members) >= MOST_MEMBERS:
        raise BadArchive("", f"the archive has more than {MOST_MEMBERS} members")
    members[name] = member


def follow(members: Mapping[str, Any], name: str) -> Any:
    """The member of that name; links inside the archive are followed, as docker's own archives have them."""
    name = clean_name(name)
    for _ in range(MOST_LINKS):
        found = members.get(name)
        if not isinstance(found, _Link):
            return found
        name = found.target
    raise BadArchive(name, "too many links")


def clean_name(name: str) -> str:
    """The name without `./` and doubled slashes; BadArchive if it leads out of the bundle."""
    clean = posixpath.normpath(name)
    if name.startswith("/") or clean == ".." or clean.startswith("../") or "\0" in name:
        raise BadArchive(name, "leads out of the archive")
    return clean


def _link(header: Header, name: str) -> _Link | None:
    target = os.fsdecode(header.linkname)
    if header.type not in {EntryType.SYMLINK, EntryType.HARD_LINK}:
        return None
    if header.type is EntryType.HARD_LINK:  # counts from the top of the archive, a symlink from where it stands
        return _Link(clean_name(target))
    if target.startswith("/"):
        raise BadArchive(name, "is a link that leads out of the archive")
    return _Link(clean_name(posixpath.join(posixpath.dirname(name), target)))


class _Skimmed:
    """A tar file as its reader wants it: headers block by block, and zeros in place of contents."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._end = os.fstat(fd).st_size
        self._at = 0
        self._hollow = 0

    def read(self, size: int) -> bytes:
        """A block, so that the reader never holds more than it has looked at."""
        if not self._hollow:
            data = os.pread(self._fd, 512 - self._at % 512, self._at)  # after a file, only its padding
            self._at += len(data)
            return data
        count = min(self._hollow, len(_ZEROS))
        self._hollow -= count
        self._at += count
        return _ZEROS[:count] if count < len(_ZEROS) else _ZEROS

    def pass_over(self, name: str, header: Header) -> _Extent:
        """The content comes next: where it lies."""
        if header.sparse is not None:
            raise BadArchive(name, "is sparse; only a stream can be read so: `lamina load < FILE`")
        if self._at + header.size > self._end:
            raise BadArchive(name, "the archive ends in the middle of this file")
        self._hollow = header.size
        return _Extent(self._at, header.size)


class _Window(io.RawIOBase):
    """A part of a file, read by pread: threads do not disturb each other."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._offset = offset
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
        if not view:
            return 0
        count = os.preadv(self._fd, [view], self._offset + self._at)
        if count == 0:
            raise BadArchive("", "the archive ends in the middle of a member")
        self._at += count
        return count

"""Read a tar of any dialect, one entry at a time, with bounded memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import attrs

from lamina.errors import BadArchive
from lamina.streams import Readable
from lamina.tar import sparse
from lamina.tar.fields import decimal, number, pax_records, until_nul
from lamina.tar.header import BLOCK, MAX_SPECIAL, EntryType, Header
from lamina.tar.records import with_records
from lamina.tar.source import Source

_FIELDS: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12s")
_ZERO: Final = bytes(BLOCK)
_PIECE: Final = 1 << 20
_SECOND: Final = 1_000_000_000
_TYPES: Final = {kind.value: kind for kind in EntryType} | {
    b"\0": EntryType.FILE,  # V7
    b"7": EntryType.FILE,  # "contiguous"
    b"S": EntryType.FILE,  # GNU's old sparse file
}
_NOT_GLOBAL: Final = (b"path", b"linkpath", b"size", b"GNU.sparse.")


class EntryData:
    """The content of one entry, to be read before the next one is asked for."""

    def __init__(self, source: Source, path: bytes, stored: int, size: int, extents: sparse.Extents | None) -> None:
        self._source = source
        self._path = path
        self._left = stored
        self._padding = -stored % BLOCK
        self._size = size
        self._extents = extents
        self._expanded: Iterator[bytes | memoryview] | None = None
        self._rest: bytes | memoryview = b""

    def pieces(self) -> Iterator[tuple[int, memoryview]]:
        """What is stored, in order, each piece with its offset in the file; holes are passed over."""
        whole = ((0, self._left),)
        for offset, length in whole if self._extents is None else self._extents:
            at, end = offset, offset + length
            while at < end:
                piece = self._some(end - at)
                yield at, piece
                at += len(piece)

    def _some(self, size: int) -> memoryview:
        piece = self._source.some(min(size, self._left, _PIECE))
        if not piece:
            raise BadArchive(self._path, "the archive ends in the middle of this file")
        self._left -= len(piece)
        return piece

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes as a reader of the file sees them: holes are zeros. Nothing at the end."""
        if self._expanded is None:
            self._expanded = self._expand()
        if size < 0:
            return bytes(self._rest) + b"".join(self._expanded)
        while not self._rest:
            following = next(self._expanded, None)
            if following is None:
                return b""
            self._rest = following
        piece = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        return piece

    def _expand(self) -> Iterator[bytes | memoryview]:
        at = 0
        for offset, piece in self.pieces():
            yield from _zeros(offset - at)
            yield piece
            at = offset + len(piece)
        yield from _zeros(self._size - at)

    def finish(self) -> None:
        """Pass over what was not read. The archive may end without padding, as some writers leave it."""
        if self._source.skip(self._left):
            raise BadArchive(self._path, "the archive ends in the middle of this file")
        self._source.skip(self._padding)
        self._left = self._padding = 0


def _zeros(size: int) -> Iterator[bytes]:
    while size > 0:
        yield bytes(min(size, _PIECE))
        size -= _PIECE


def read_headers(stream: Readable, *, limit: int | None = None) -> Iterator[tuple[Header, EntryData]]:
    """Each entry with a reader for its content, up to the archive's end; the stream is then read to its own end.

    ustar, V7, star, PAX (also global), GNU long names, base-256 and all four kinds of sparse files are understood; a
    missing trailer is accepted. Anything else, and a stream of more than `limit` bytes, is BadArchive.
    """
    source = Source(stream, limit)
    lasting: dict[bytes, bytes] = {}
    while (entry := _next_entry(source, lasting)) is not None:
        yield entry
        entry[1].finish()
    source.drain()


@attrs.define
class _Draft:
    """What was said about the next entry before its own header comes; `lasting` holds for all that follow."""

    lasting: dict[bytes, bytes] = attrs.field(factory=dict)
    pax: dict[bytes, bytes] = attrs.field(factory=dict)
    path: bytes | None = None
    linkname: bytes | None = None

    def take_pax(self, data: bytes) -> None:
        offsets = []
        for key, value in pax_records(data):
            if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}:  # version 0.0 repeats its keys
                offsets.append(value)
            else:
                self.pax[key] = value
        if offsets:
            self.pax[b"GNU.sparse.map"] = b",".join(offsets)

    def take_global(self, data: bytes) -> None:
        for key, value in pax_records(data):
            if key.startswith(_NOT_GLOBAL):
                raise BadArchive(b"", f"a global header that sets {key!r} for every file")
            self.lasting[key] = value
        if sum(map(len, self.lasting.values())) > MAX_SPECIAL:
            raise BadArchive(b"", "global headers of more than a megabyte")

    def take_long_path(self, data: bytes) -> None:
        self.path = until_nul(data)

    def take_long_link(self, data: bytes) -> None:
        self.linkname = until_nul(data)

    def pass_over(self, data: bytes) -> None:
        """A volume label says nothing about files."""

    @property
    def empty(self) -> bool:
        return not self.pax and self.path is None and self.linkname is None

    @property
    def records(self) -> dict[bytes, bytes]:
        return {**self.lasting, **self.pax} if self.lasting else self.pax


_SPECIAL: Final = {
    b"x": _Draft.take_pax,
    b"X": _Draft.take_pax,  # Solaris
    b"g": _Draft.take_global,
    b"L": _Draft.take_long_path,
    b"K": _Draft.take_long_link,
    b"V": _Draft.pass_over,
}


def _next_entry(source: Source, lasting: dict[bytes, bytes]) -> tuple[Header, EntryData] | None:
    draft = _Draft(lasting)
    while (block := _header_block(source)) is not None:
        flag = block[156:157]
        if flag in _TYPES:
            return _entry(block, draft, source)
        special = _SPECIAL.get(flag)
        if special is None:
            raise BadArchive(until_nul(block[:100]), f"an entry of the unknown type {flag!r}")
        special(draft, _special_data(block, source))
    if not draft.empty:
        raise BadArchive(b"", "the archive ends after a header that announces a file")
    return None


def _header_block(source: Source) -> bytes | None:
    block = source.block()
    if not block:
        return None
    if block == _ZERO:
        if source.block() not in {b"", _ZERO}:
            raise BadArchive(b"", "data after a block of zeros")
        return None
    claimed = number(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 256
    # some old writers summed signed bytes
    if claimed not in {unsigned, unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])}:
        raise BadArchive(until_nul(block[:100]), "a header whose checksum is wrong")
    return block


def _special_data(block: bytes, source: Source) -> bytes:
    size = number(block[124:136])
    if not 0 <= size <= MAX_SPECIAL:
        raise BadArchive(until_nul(block[:100]), f"{size} bytes of extended header")
    data = source.exactly(size)
    if len(data) != size:
        raise BadArchive(until_nul(block[:100]), "the archive ends in an extended header")
    source.skip(-size % BLOCK)
    return data


def _entry(block: bytes, draft: _Draft, source: Source) -> tuple[Header, EntryData]:
    try:
        return _parsed(block, draft, source)
    except BadArchive as bad:
        if bad.entry:
            raise
        raise BadArchive(draft.pax.get(b"path") or draft.path or until_nul(block[:100]), bad.why) from None


def _parsed(block: bytes, draft: _Draft, source: Source) -> tuple[Header, EntryData]:
    name, mode, uid, gid, stored, mtime, _, flag, link, magic, major, minor, prefix, tail = _FIELDS.unpack(block)
    kind = _TYPES[flag]
    path = draft.path or _ustar_path(name, prefix, magic, tail)
    device = kind in {EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE}
    header = Header(
        path,
        kind,
        number(mode) & 0o7777,
        number(uid),
        number(gid),
        number(stored),
        number(mtime) * _SECOND,
        draft.linkname or until_nul(link),
        number(major) if device else 0,
        number(minor) if device else 0,
    )
    if records := draft.records:
        header = with_records(header, records)
    if kind is EntryType.FILE and header.path.endswith(b"/"):  # the whole name: one that was cut may end anywhere
        header = attrs.evolve(header, type=EntryType.DIRECTORY)  # before ustar, a slash was all that marked one
    if (
        header.type is not EntryType.FILE
    ):  # only files have content, whatever their size says; all readers agree on that
        return _judged(attrs.evolve(header, size=0)), EntryData(source, header.path, 0, 0, None)
    if flag == b"S" or any(key.startswith(b"GNU.sparse.") for key in draft.pax):
        return _sparse_entry(block, header, draft.pax, source)
    return _judged(header), EntryData(source, header.path, header.size, header.size, None)


def _judged(header: Header) -> Header:
    if header.size < 0 or header.uid < 0 or header.gid < 0 or header.devmajor < 0 or header.devminor < 0:
        raise BadArchive(header.path, "a negative size, owner or device")
    if not header.path or b"\0" in header.path or b"\0" in header.linkname:
        raise BadArchive(header.path, "an empty name, or one with a NUL in it")
    return header


def _ustar_path(name: bytes, prefix: bytes, magic: bytes, tail: bytes) -> bytes:
    path = until_nul(name)
    if magic[:6] != b"ustar\0":  # V7 has no prefix, and GNU keeps other things there
        return path
    front = until_nul(prefix[:131] if tail[8:] == b"tar\0" else prefix)  # star keeps two times behind a shorter one
    return front + b"/" + path if front else path


def _sparse_entry(block: bytes, header: Header, pax: dict[bytes, bytes], source: Source) -> tuple[Header, EntryData]:
    stored = _judged(header).size
    if block[156:157] == b"S":
        size, extents = number(block[483:495]), sparse.old_gnu(block, source)
    elif b"GNU.sparse.major" in pax and (pax[b"GNU.sparse.major"], pax.get(b"GNU.sparse.minor")) != (b"0", b"1"):
        size, extents, stored = _sparse_1_0(pax, source, stored)
    else:
        size = decimal(pax.get(b"GNU.sparse.size", pax.get(b"GNU.sparse.realsize", b"")))
        extents = sparse.pax_0_1(pax.get(b"GNU.sparse.map", b""))
    checked = sparse.checked(extents, size, stored)
    header = _judged(attrs.evolve(header, size=size, sparse=checked))
    return header, EntryData(source, header.path, stored, size, checked)


def _sparse_1_0(pax: dict[bytes, bytes], source: Source, stored: int) -> tuple[int, list[tuple[int, int]], int]:
    if (pax[b"GNU.sparse.major"], pax.get(b"GNU.sparse.minor")) != (b"1", b"0"):
        raise BadArchive(b"", f"sparse files of version {pax[b'GNU.sparse.major']!r}")
    extents, used = sparse.pax_1_0(source, stored)
    return decimal(pax.get(b"GNU.sparse.realsize", b"")), extents, stored - used

"""Write tar headers: the same entry gives the same bytes, and PAX records only where ustar has no room."""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Iterator
from typing import Final

from lamina.errors import BadArchive
from lamina.tar.header import BLOCK, MAX_SPECIAL, Header

END_OF_ARCHIVE: Final = bytes(2 * BLOCK)
_SECOND: Final = 1_000_000_000
_OCTAL_7: Final = 1 << 21  # seven octal digits: owners
_OCTAL_11: Final = 1 << 33  # eleven: sizes and times
_EMPTY_TAIL: Final = bytes(12)


def write_header(header: Header) -> bytes:
    """The blocks that precede the entry's content, a sparse map included.

    For a sparse file the content to follow is that of its `sparse` pieces, end to end; then `padding` of their sum.
    """
    if header.sparse is None:
        return _with_pax(header, header.path, header.size, dict(_records(header)))
    table = _sparse_table(header.sparse)
    stored = len(table) + sum(length for _, length in header.sparse)
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": header.path,
        b"GNU.sparse.realsize": b"%d" % header.size,
    }
    return (
        _with_pax(header, _stand_in(header.path, b"GNUSparseFile.0"), stored, dict(_records(header)) | records) + table
    )


def padding(size: int) -> bytes:
    """The zeros that fill the last block of so many bytes."""
    return bytes(-size % BLOCK)


def _sparse_table(extents: tuple[tuple[int, int], ...]) -> bytes:
    lines = [len(extents), *(number for extent in extents for number in extent)]
    table = b"".join(b"%d\n" % number for number in lines)
    return table + padding(len(table))


def _stand_in(path: bytes, folder: bytes) -> bytes:
    """The name that a reader shows which does not know the extension."""
    directory, _, name = path.rstrip(b"/").rpartition(b"/")
    return b"/".join(part for part in (directory, folder, name) if part)


def _with_pax(header: Header, path: bytes, size: int, records: dict[bytes, bytes]) -> bytes:
    place = _split(path)
    if place is None:
        place = path[:100], b""
        if b"GNU.sparse.name" not in records:
            records[b"path"] = path
    if size >= _OCTAL_11:
        records[b"size"] = b"%d" % size
    block = _ustar(header, *place, size)
    return _pax(header.path, records) + block if records else block


def _records(header: Header) -> Iterator[tuple[bytes, bytes]]:
    if len(header.linkname) > 100:
        yield b"linkpath", header.linkname
    if header.uid >= _OCTAL_7:
        yield b"uid", b"%d" % header.uid
    if header.gid >= _OCTAL_7:
        yield b"gid", b"%d" % header.gid
    if header.mtime_ns % _SECOND or not 0 <= header.mtime_ns < _OCTAL_11 * _SECOND:
        yield b"mtime", _time(header.mtime_ns)
    if header.atime_ns is not None:
        yield b"atime", _time(header.atime_ns)
    for name, value in header.xattrs.items():
        yield _xattr(name.encode("utf-8", "surrogateescape"), value)


def _xattr(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    if b"=" not in name:
        return b"SCHILY.xattr." + name, value
    # a key ends at its first "=", so such a name can only be written in libarchive's form
    quoted = urllib.parse.quote_from_bytes(name, safe="").encode()
    return b"LIBARCHIVE.xattr." + quoted, base64.b64encode(value).rstrip(b"=")


def _time(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(abs(nanoseconds), _SECOND)
    sign = b"-" if nanoseconds < 0 else b""
    return sign + (b"%d.%09d" % (seconds, fraction)).rstrip(b"0").rstrip(b".")


def _pax(path: bytes, records: dict[bytes, bytes]) -> bytes:
    data = b"".join(_record(key, value) for key, value in sorted(records.items()))
    if len(data) > MAX_SPECIAL:
        raise BadArchive(path, "more extended attributes than a tar can hold")
    name = b"PaxHeaders.0/" + path.rstrip(b"/").rpartition(b"/")[2][:80]
    return _block(name, b"", b"x", len(data), 0o644, 0, 0, 0) + data + padding(len(data))


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _split(path: bytes) -> tuple[bytes, bytes] | None:
    """Name and prefix, if ustar has room for the path."""
    if len(path) <= 100:
        return path, b""
    cut = path.rfind(b"/", 0, min(156, len(path) - 1))
    if cut <= 0 or len(path) - cut - 1 > 100:
        return None
    return path[cut + 1 :], path[:cut]


def _ustar(header: Header, name: bytes, prefix: bytes, size: int) -> bytes:
    seconds = header.mtime_ns // _SECOND
    return _block(
        name,
        prefix,
        header.type.value,
        size if size < _OCTAL_11 else 0,
        header.mode,
        header.uid if header.uid < _OCTAL_7 else 0,
        header.gid if header.gid < _OCTAL_7 else 0,
        seconds if 0 <= seconds < _OCTAL_11 else 0,
        header.linkname[:100],
        (header.devmajor, header.devminor),
    )


def _block(  # noqa: PLR0913, PLR0917  # a header has that many fields
    name: bytes,
    prefix: bytes,
    flag: bytes,
    size: int,
    mode: int,
    uid: int,
    gid: int,
    seconds: int,
    linkname: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    front = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, uid, gid, size, seconds)
    back = b"%s%sustar\x0000%s%07o\0%07o\0%s%s" % (
        flag,
        linkname.ljust(100, b"\0"),
        bytes(64),  # names of owners differ from host to host; numbers are what counts
        *device,
        prefix.ljust(155, b"\0"),
        _EMPTY_TAIL,
    )
    checksum = sum(front) + sum(back) + 8 * 32
    return b"%s%06o\0 %s" % (front, checksum, back)

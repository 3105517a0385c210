"""PAX records that say something of an entry: names, numbers, times and extended attributes."""

from __future__ import annotations

import base64
import binascii
import urllib.parse
from collections.abc import Callable
from typing import Final

import attrs

from lamina.errors import BadArchive
from lamina.tar.fields import decimal, time_ns
from lamina.tar.header import Header


def with_records(header: Header, records: dict[bytes, bytes]) -> Header:
    """The header with what these records say of it; those that we do not know say nothing."""
    changes: dict[str, object] = {}
    xattrs: dict[str, bytes] = {}
    for key, value in records.items():
        if key.startswith(b"SCHILY.xattr."):
            xattrs[key[13:].decode("utf-8", "surrogateescape")] = value
        elif key.startswith(b"LIBARCHIVE.xattr."):
            xattrs.setdefault(*_libarchive_xattr(key[17:], value))
        elif value and key in _RECORDS:  # an empty value takes back what a global header said
            field, parse = _RECORDS[key]
            changes[field] = parse(value)
    if xattrs:
        changes["xattrs"] = xattrs
    return attrs.evolve(header, **changes) if changes else header  # type: ignore[arg-type]  # by name


def _libarchive_xattr(key: bytes, value: bytes) -> tuple[str, bytes]:
    try:
        padded = value + b"=" * (-len(value) % 4)
        return urllib.parse.unquote_to_bytes(key).decode("utf-8", "surrogateescape"), base64.b64decode(padded)
    except binascii.Error:
        raise BadArchive(b"", f"an extended attribute that is not base64: {key!r}") from None


_RECORDS: Final[dict[bytes, tuple[str, Callable[[bytes], object]]]] = {
    b"path": ("path", bytes),
    b"GNU.sparse.name": ("path", bytes),
    b"linkpath": ("linkname", bytes),
    b"size": ("size", decimal),
    b"uid": ("uid", decimal),
    b"gid": ("gid", decimal),
    b"mtime": ("mtime_ns", time_ns),
    b"atime": ("atime_ns", time_ns),
}

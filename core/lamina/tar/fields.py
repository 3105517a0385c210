"""Numbers, strings and times as tar headers spell them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Final

from lamina.errors import BadArchive

_TIME: Final = re.compile(rb"(-?)(\d{0,20})(?:\.(\d*))?")
_SECOND: Final = 1_000_000_000


@functools.lru_cache(maxsize=4096)  # a layer has few owners, modes and times, and many files
def number(field: bytes) -> int:
    """An octal or base-256 number; an empty field is 0."""
    if field[0] & 0x80:
        return _base256(field)
    text = field.strip(b" \0")
    if not text:
        return 0
    # what follows a NUL is not part of the number; isdigit refuses signs, underscores and 0o, which int() takes
    text = text.partition(b"\0")[0].rstrip(b" ")
    if not text.isdigit():
        raise BadArchive(b"", f"not an octal number: {field!r}")
    try:
        return int(text, 8)
    except ValueError:
        raise BadArchive(b"", f"not an octal number: {field!r}") from None


def _base256(field: bytes) -> int:
    """GNU's way for numbers that are too long for octal: big-endian, the topmost bit is a mark, the next the sign."""
    bits = 8 * len(field) - 1
    value = int.from_bytes(field, "big") & ((1 << bits) - 1)
    if field[0] & 0x40:
        value -= 1 << bits
    if not -(1 << 63) <= value < 1 << 63:
        raise BadArchive(b"", f"a number beyond 64 bits: {field!r}")
    return value


def decimal(text: bytes) -> int:
    """A decimal number of at most 64 bits, as PAX records and sparse maps have them."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > 20 or not -(1 << 63) <= int(text) < 1 << 63:
        raise BadArchive(b"", f"not a number: {text[:40]!r}")
    return int(text)


def time_ns(text: bytes) -> int:
    """PAX's decimal seconds, to the nanosecond."""
    match = _TIME.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        raise BadArchive(b"", f"not a time: {text[:40]!r}")
    nanoseconds = int(match[2] or b"0") * _SECOND + int((match[3] or b"")[:9].ljust(9, b"0"))
    return -nanoseconds if match[1] else nanoseconds


def until_nul(field: bytes) -> bytes:
    """A string that ends at the first NUL, or fills its field."""
    return field.partition(b"\0")[0]


def pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records `LENGTH KEY=VALUE\\n` of a PAX header, in order; keys may repeat."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 9)
        length = data[at:space] if space > at else b""
        if not length.isdigit():
            raise BadArchive(b"", f"a PAX record without a length: {data[at : at + 20]!r}")
        end = at + int(length)
        if not space + 3 < end <= len(data) or data[end - 1 : end] != b"\n":
            raise BadArchive(b"", f"a PAX record that lies about its length: {data[at : at + 20]!r}")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not key or not equals or b"\0" in key:
            raise BadArchive(b"", f"a PAX record without a key: {data[at : at + 20]!r}")
        yield key, value
        at = end

"""Maps of sparse files: GNU's old one in header blocks, and PAX's 0.0, 0.1 and 1.0."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lamina.errors import BadArchive
from lamina.tar.fields import decimal, number
from lamina.tar.header import BLOCK, MAX_EXTENTS
from lamina.tar.source import Source

Extents = tuple[tuple[int, int], ...]
_PAIR: Final = 24


def checked(extents: Iterable[tuple[int, int]], size: int, stored: int) -> Extents:
    """The map without empty pieces. Out of order, overlapping, outside the file, or not what is stored: BadArchive."""
    end = total = 0
    kept = []
    for offset, length in extents:
        if offset < end or length < 0 or offset + length > size:
            raise BadArchive(b"", "a sparse map that is out of order, overlaps or reaches beyond the file")
        end = offset + length
        total += length
        if length:
            kept.append((offset, length))
    if total != stored:
        raise BadArchive(b"", f"a sparse map of {total} bytes for {stored} bytes of data")
    return tuple(kept)


def _bounded(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if len(extents) > MAX_EXTENTS:
        raise BadArchive(b"", f"a sparse map of more than {MAX_EXTENTS} pieces")
    return extents


def old_gnu(header: bytes, source: Source) -> list[tuple[int, int]]:
    """The map in a header of type S and in the blocks that follow it."""
    extents = _pairs(header[386:482])
    more = header[482]
    while more:
        block = source.block()
        if not block:
            raise BadArchive(b"", "the archive ends in a sparse map")
        extents = _bounded(extents + _pairs(block[:504]) if len(extents) < 64 else _extend(extents, block))
        more = block[504]
    return extents


def _extend(extents: list[tuple[int, int]], block: bytes) -> list[tuple[int, int]]:
    extents.extend(_pairs(block[:504]))
    return extents


def _pairs(field: bytes) -> list[tuple[int, int]]:
    pieces = (field[at : at + _PAIR] for at in range(0, len(field), _PAIR))
    return [(number(piece[:12]), number(piece[12:])) for piece in pieces if piece[0]]


def pax_0_1(text: bytes) -> list[tuple[int, int]]:
    """`offset,length,offset,length…`; 0.0 is brought into this form by whoever reads the records."""
    numbers = [decimal(word) for word in text.split(b",")] if text else []
    if len(numbers) % 2:
        raise BadArchive(b"", "a sparse map with an odd number of numbers")
    return _bounded(list(zip(numbers[::2], numbers[1::2], strict=True)))


def pax_1_0(source: Source, stored: int) -> tuple[list[tuple[int, int]], int]:
    """The map at the start of the data, in lines, padded to a block; also how many bytes it took."""
    lines = _Lines(source, stored)
    count = lines.number()
    if not 0 <= count <= MAX_EXTENTS:
        raise BadArchive(b"", f"a sparse map of {count} pieces")
    return [(lines.number(), lines.number()) for _ in range(count)], lines.used


class _Lines:
    """Numbers on lines of their own, read block by block and never beyond the entry."""

    def __init__(self, source: Source, stored: int) -> None:
        self._source = source
        self._stored = stored
        self._text = b""
        self.used = 0

    def number(self) -> int:
        while b"\n" not in self._text:
            if len(self._text) > BLOCK or self.used + BLOCK > self._stored + BLOCK - 1:
                raise BadArchive(b"", "a sparse map that does not end")
            block = self._source.block()
            self.used += BLOCK
            self._text += block
            if not block:
                raise BadArchive(b"", "the archive ends in a sparse map")
        line, _, self._text = self._text.partition(b"\n")
        return decimal(line)

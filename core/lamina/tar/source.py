"""The bytes of an archive, in order: counted, buffered and bounded."""

from __future__ import annotations

from typing import Final

from lamina.errors import BadArchive
from lamina.streams import Readable
from lamina.tar.header import BLOCK

_CHUNK: Final = 1 << 20


class Source:
    """A stream read strictly forward, in pieces of the size that its reader wants.

    More than `limit` bytes are a bomb: BadArchive.
    """

    def __init__(self, stream: Readable, limit: int | None = None) -> None:
        self._stream = stream
        self._left = limit
        self._buffer = memoryview(b"")

    def _fill(self) -> bool:
        data = self._stream.read(_CHUNK)
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise BadArchive(b"", "the archive is larger than the limit allows")
        self._buffer = memoryview(data)
        return bool(data)

    def some(self, size: int) -> memoryview:
        """At least one byte and at most `size` of them; nothing at the end of the stream."""
        if not self._buffer and not self._fill():
            return self._buffer
        piece = self._buffer[:size]
        self._buffer = self._buffer[size:]
        return piece

    def exactly(self, size: int) -> bytes:
        """So many bytes; fewer only at the end of the stream."""
        if len(self._buffer) >= size:
            piece = self._buffer[:size]
            self._buffer = self._buffer[size:]
            return bytes(piece)
        pieces = []
        while size and (piece := self.some(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def block(self) -> bytes:
        """The next block of 512 bytes, or nothing at the end of the stream."""
        block = self.exactly(BLOCK)
        if block and len(block) != BLOCK:
            raise BadArchive(b"", "the archive ends in the middle of a header")
        return block

    def skip(self, size: int) -> int:
        """Pass over so many bytes; returns how many were missing at the end of the stream."""
        while size and (piece := self.some(size)):
            size -= len(piece)
        return size

    def drain(self) -> None:
        """Read what is left, so that whoever hashes the stream has seen all of it."""
        while self.some(_CHUNK):
            pass

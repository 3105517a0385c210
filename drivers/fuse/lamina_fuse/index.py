"""The index of a committed layer: all its names and attributes in one file, so that looking costs no system call.

A header, one record of fixed length for each entry (row 0 is the root, and what a directory holds stands in adjacent
rows in the order of the names), the names, and the extras: extended attributes, targets of links, and the other names
of an inode. A layer never changes, so neither does its index; one that is missing or damaged is made again.
"""

from __future__ import annotations

import contextlib
import marshal
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lamina_fuse.record import RECORD, Record

MAGIC: Final = b"LAMIDX02"
HEADER: Final = struct.Struct("<8sIIQQQ")  # magic, checksum of the rest, rows, where names, extras and the end are
# attributes; parent's row, offset and length of the name, flags, row of the inode, first child and their number, extra
ROW: Final = struct.Struct(RECORD.format + "IIIIIIII")
NAME: Final = "index"

WHITEOUT, OPAQUE, LINKED = 1, 2, 4
_PARENT, _NAME, _LENGTH, _FLAGS, _INODE, _FIRST, _COUNT, _EXTRA = range(10, 18)


class Index:
    """A layer's index, mapped into memory."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        """Raises ValueError if it is damaged."""
        if len(data) < HEADER.size:
            raise ValueError("an index without a header")
        magic, checksum, self.rows, self._names, self._extras, end = HEADER.unpack_from(data)
        if magic != MAGIC or end != len(data) or zlib.crc32(memoryview(data)[HEADER.size :]) != checksum:
            raise ValueError("a damaged index")
        self._data = data

    @classmethod
    def load(cls, path: Path) -> Index:
        """Raises FileNotFoundError or ValueError."""
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise ValueError("an empty index")
            return cls(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

    def row(self, number: int) -> tuple[int, ...]:
        """All fields of a row."""
        return ROW.unpack_from(self._data, HEADER.size + number * ROW.size)

    def record(self, number: int) -> Record:
        """The attributes of an entry."""
        return RECORD.unpack_from(self._data, HEADER.size + number * ROW.size)

    def children(self, number: int) -> Iterator[tuple[bytes, int, int, int]]:
        """Name, mode, flags and inode's row of all that a directory holds; an inode's own row is its number."""
        fields = self.row(number)
        start = HEADER.size + fields[_FIRST] * ROW.size
        names, data = self._names, self._data
        for row in ROW.iter_unpack(memoryview(data)[start : start + fields[_COUNT] * ROW.size]):
            at = names + row[_NAME]
            yield data[at : at + row[_LENGTH]], row[0], row[_FLAGS], row[_INODE]

    def flags(self, number: int) -> int:
        """WHITEOUT, OPAQUE, LINKED."""
        return self.row(number)[_FLAGS]

    def path(self, number: int) -> bytes:
        """Where the entry lies in its layer."""
        names = []
        while number:
            fields = self.row(number)
            at = self._names + fields[_NAME]
            names.append(self._data[at : at + fields[_LENGTH]])
            number = fields[_PARENT]
        return b"/".join(reversed(names))

    def _extra(self, number: int) -> tuple[dict[str, bytes], bytes, tuple[int, ...]]:
        offset = self.row(number)[_EXTRA]
        if not offset:
            return {}, b"", ()
        found: tuple[dict[str, bytes], bytes, tuple[int, ...]] = marshal.loads(  # noqa: S302  # ours, and checksummed
            memoryview(self._data)[self._extras + offset :]
        )
        return found

    def xattrs(self, number: int) -> dict[str, bytes]:
        """Extended attributes, as they are stored."""
        return self._extra(number)[0]

    def target(self, number: int) -> bytes:
        """What a symbolic link says."""
        return self._extra(number)[1]

    def names(self, number: int) -> tuple[int, ...]:
        """The rows of all names of an inode with several."""
        return self._extra(number)[2] or (number,)


class Builder:
    """Collects rows and writes the file."""

    def __init__(self) -> None:
        self._rows: list[list[Any]] = []
        self._names = bytearray()
        self._extras = bytearray(b"\0")  # so that 0 means none

    def add(self, record: Record, parent: int, name: bytes, flags: int = 0) -> int:
        """A row of its own inode; returns its number."""
        number = len(self._rows)
        self._rows.append([*record, parent, len(self._names), len(name), flags, number, 0, 0, 0])
        self._names += name
        return number

    def holds(self, directory: int, first: int, count: int) -> None:
        """The entries of a directory are these rows."""
        self._rows[directory][_FIRST : _FIRST + 2] = first, count

    def marks(self, number: int, flags: int) -> None:
        """Flags found later."""
        self._rows[number][_FLAGS] |= flags

    def adds(self, number: int, xattrs: dict[str, bytes], target: bytes, names: tuple[int, ...] = ()) -> None:
        """Extras of an inode."""
        if xattrs or target or names:
            self._rows[number][_EXTRA] = len(self._extras)
            self._extras += marshal.dumps((xattrs, target, names))

    def links(self, rows: list[int]) -> None:
        """These rows are names of one inode, the first one's."""
        for row in rows:
            self._rows[row][_INODE] = rows[0]
            self._rows[row][_FLAGS] |= LINKED
            self._rows[row][1] = len(rows)

    def write(self, path: Path) -> None:
        """Put the file in its place at once."""
        rows = b"".join(ROW.pack(*row) for row in self._rows)
        names = HEADER.size + len(rows)
        extras = names + len(self._names)
        body = rows + self._names + self._extras
        head = HEADER.pack(MAGIC, zlib.crc32(body), len(self._rows), names, extras, HEADER.size + len(body))
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.{id(self)}")
        try:
            unfinished.write_bytes(head + body)
            unfinished.rename(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                unfinished.unlink()

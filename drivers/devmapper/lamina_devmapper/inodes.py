"""Which inodes of two ext4 file systems differ, read from their devices, with nothing mounted for it.

Every change of a file or directory that anybody can see moves its change time, which nobody can set back; and that lies
in its inode. So two file systems, of which one began as a copy of the other, differ in no file whose inode is the same
in both. Layout: Linux, Documentation/filesystems/ext4/ (super, group_descr, inode).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final, Self

import attrs

_SUPERBLOCK_AT: Final = 1024
_MAGIC: Final = 0xEF53
_META_BG: Final = 0x10  # incompatible features: descriptors lie elsewhere
_64BIT: Final = 0x80
_UNUSED: Final = 0x1  # of a group: its inode table was never written
_PIECE: Final = 256 << 10
# what says nothing of the content: the time of the last access, and the checksum over all
_MASKED: Final = ((0x08, 0x0C), (0x7C, 0x7E), (0x82, 0x84), (0x8C, 0x90))


@attrs.frozen
class Table:
    """A group's part of the inode table: where it begins, and how many inodes of it are in use; the rest is free."""

    at: int
    used: int


@attrs.frozen
class Inodes:
    """Where the inodes of one file system lie."""

    device: int
    size: int  # of an inode, in bytes
    per_group: int
    tables: tuple[Table, ...]

    @classmethod
    def of(cls, device: int) -> Self | None:
        """Those on an open device; None if this is no ext4, or one whose layout we do not know."""
        told = os.pread(device, 1024, _SUPERBLOCK_AT)
        if len(told) < 1024 or _u16(told, 0x38) != _MAGIC or _u32(told, 0x60) & _META_BG:
            return None
        block = 1024 << _u32(told, 0x18)
        first = _u32(told, 0x14)
        wide = bool(_u32(told, 0x60) & _64BIT)
        length = _u16(told, 0xFE) if wide else 32
        blocks = _u32(told, 0x04) | (_u32(told, 0x150) << 32 if wide else 0)
        groups = -(-(blocks - first) // _u32(told, 0x20))
        descriptors = os.pread(device, groups * length, (first + 1) * block)
        per_group = _u32(told, 0x28)
        tables = tuple(_table(descriptors[n * length : (n + 1) * length], block, per_group) for n in range(groups))
        return cls(device, _u16(told, 0x58), per_group, tables)

    def read(self, group: int, start: int, count: int) -> bytes:
        """That many inodes of a group, from the `start`-th; none where the file system has no such group."""
        if group >= len(self.tables):
            return b""
        return os.pread(self.device, count * self.size, self.tables[group].at + start * self.size)

    def used(self, group: int) -> int:
        """How many inodes at the beginning of a group's table may be in use."""
        return self.tables[group].used if group < len(self.tables) else 0


def differing(old: Inodes, new: Inodes) -> Iterator[int]:
    """The numbers of the inodes that are not the same in both. Raises ValueError for two that were never one."""
    if (old.size, old.per_group) != (new.size, new.per_group):
        raise ValueError("the file systems have different inodes: one did not begin as a copy of the other")
    at_once = _PIECE // new.size
    for group in range(max(len(old.tables), len(new.tables))):
        used = max(old.used(group), new.used(group))
        for start in range(0, used, at_once):
            count = min(at_once, used - start)
            one, other = old.read(group, start, count), new.read(group, start, count)
            if one != other:
                first = group * new.per_group + start + 1
                yield from (first + each for each in _differing(one, other, new.size, count))


def _differing(one: bytes, other: bytes, size: int, count: int) -> Iterator[int]:
    for number in range(count):
        mine, yours = one[number * size :][:size], other[number * size :][:size]
        if mine != yours and _essence(mine) != _essence(yours):
            yield number


def _essence(inode: bytes) -> bytes:
    told = bytearray(inode)
    for start, end in _MASKED:
        told[start:end] = bytes(len(told[start:end]))
    return bytes(told)


def _table(descriptor: bytes, block: int, per_group: int) -> Table:
    wide = len(descriptor) >= 64
    at = _u32(descriptor, 0x08) | (_u32(descriptor, 0x28) << 32 if wide else 0)
    free = _u16(descriptor, 0x1C) | (_u16(descriptor, 0x32) << 16 if wide else 0)
    return Table(at * block, 0 if _u16(descriptor, 0x12) & _UNUSED else per_group - free)


def _u16(told: bytes, at: int) -> int:
    return int(struct.unpack_from("<H", told, at)[0])


def _u32(told: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", told, at)[0])

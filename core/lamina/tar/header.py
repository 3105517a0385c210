"""What one entry of a tar says about itself, whatever dialect it was said in."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import attrs

BLOCK: Final = 512
# What comes before a file (long names, PAX records) is held in memory; this is also where Go's reader stops.
MAX_SPECIAL: Final = 1 << 20
# One hole in two blocks of a file; a longer map is read as hostile, and written with its tail filled in.
MAX_EXTENTS: Final = 1 << 16


class EntryType(enum.Enum):
    """The kinds of things that a tar holds, by their type flag."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    CHARACTER_DEVICE = b"3"
    BLOCK_DEVICE = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


@attrs.frozen
class Header:
    """One entry.

    `path` and `linkname` are as written, not yet judged. `size` is what a reader of the file sees; `sparse`, if there
    is one, lists the (offset, length) of every piece of data, in order, and all else is holes. `xattrs` maps full
    names (with surrogate escapes) to values. `atime_ns` is None where the archive does not tell.
    """

    path: bytes
    type: EntryType = EntryType.FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    linkname: bytes = b""
    devmajor: int = 0
    devminor: int = 0
    xattrs: Mapping[str, bytes] = attrs.field(factory=dict)
    sparse: tuple[tuple[int, int], ...] | None = None
    atime_ns: int | None = None

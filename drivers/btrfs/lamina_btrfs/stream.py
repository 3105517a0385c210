"""Which paths a send stream speaks of (kernel: fs/btrfs/send.h; documentation: btrfs, "Send stream format")."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import attrs

_MAGIC: Final = b"btrfs-stream\0"
_COMMAND: Final = struct.Struct("<IHI")  # length, command, checksum
_ATTRIBUTE: Final = struct.Struct("<HH")  # type, length

# commands
_WHICH: Final = frozenset({1, 2, 21})  # subvol, snapshot, end: of no path inside
_MADE: Final = frozenset({3, 4, 5, 6, 7, 8})  # mkfile, mkdir, mknod, mkfifo, mksock, symlink
_MAKE_DIRECTORY: Final = 4
_RENAME: Final = 9
_LINK: Final = 10

# attributes
_PATH: Final = 15
_PATH_TO: Final = 16
_PATH_LINK: Final = 17


@attrs.frozen
class Mentioned:
    """The paths of a stream, as they are called at some moment between the old tree and the new.

    Whatever differs has its path among them, or lies below one of `placed`: a directory that came to this path, so that
    a path below it may be called otherwise in the stream.
    """

    paths: set[bytes]
    placed: set[bytes]


def paths_in(stream: bytes) -> Mentioned:
    """Every path that the stream speaks of. ValueError if it is not a stream that we know."""
    told = Mentioned(set(), set())
    brief = set[bytes]()  # names under which new things are kept until their turn comes
    for command, named in _commands(stream):
        if command in _WHICH:
            continue
        path = named.get(_PATH)
        if path is None:
            continue
        if command in _MADE and path not in told.paths:
            brief.add(path)
        told.paths.add(path)
        if command == _MAKE_DIRECTORY:
            told.placed.add(path)
        elif command == _RENAME:
            told.paths.add(named[_PATH_TO])
            told.placed.add(named[_PATH_TO])
            if path in brief:
                told.paths.discard(path)
                told.placed.discard(path)
        elif command == _LINK:
            told.paths.add(named[_PATH_LINK])
    return told


def _commands(stream: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Each command with its attributes that are paths."""
    if not stream.startswith(_MAGIC):
        raise ValueError("not a btrfs send stream")
    position = len(_MAGIC) + 4  # the version: what we asked for, and got
    while position < len(stream):
        length, command, _ = _COMMAND.unpack_from(stream, position)
        position += _COMMAND.size
        end = position + length
        named = {}
        while position < end:
            kind, size = _ATTRIBUTE.unpack_from(stream, position)
            position += _ATTRIBUTE.size
            if kind in {_PATH, _PATH_TO, _PATH_LINK}:
                named[kind] = stream[position : position + size]
            position += size
        yield command, named

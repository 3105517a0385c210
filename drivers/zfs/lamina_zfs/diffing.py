"""What may differ between a layer and its parent, as `zfs diff` knows it; zfs-fuse has no such command."""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from lamina.descent import DIRECTORY, open_below, walk
from lamina.errors import ProgramFailed
from lamina.syscalls import opened
from lamina_zfs.commands import zfs

# of zfs-diff(8) with -F, -H and -t; bytes that do not print are \0 and three octal digits (libzfs_diff.c: stream_bytes)
_ESCAPED: Final = re.compile(rb"\\0([0-7]{3})")
# before OpenZFS, and in illumos, it was \ and three digits: where more digits follow, nobody could tell which they are
_OLD_SPELLING: Final = re.compile(rb"\\(?!0[0-3][0-7]{2})")
_LINKS: Final = re.compile(rb"\([+-]\d+\)")  # how many names an inode has gained or lost
_XATTRS: Final = b"/<xattrdir>"  # below it lie the attributes of a file, each an inode of its own
_DIRECTORY: Final = b"/"
_RENAMED: Final = b"R"


@attrs.frozen
class Told:
    """One line: what became of an inode, of which type, and its paths in the layer: two if it was renamed."""

    change: bytes
    type: bytes
    paths: tuple[bytes, ...]
    links: bool = False  # it has gained or lost names, of which only one is told

    @property
    def moved_directory(self) -> bool:
        """Whether things lie elsewhere now that are themselves as they were."""
        return self.change == _RENAMED and self.type == _DIRECTORY


@functools.cache
def can_tell() -> bool:
    """Whether this zfs has the command at all."""
    try:
        zfs("diff")
    except ProgramFailed as error:
        return "unrecognized command" not in error.stderr
    return True


def candidates(before: str, after: str, old: Path, new: Path) -> set[bytes] | None:
    """The paths that may differ between a snapshot and its clone, mounted at `old` and `new`, and perhaps more.

    None if zfs does not tell us: it cannot, or some inode has several names, of which it tells only one, or it spells
    names in the older way.
    """
    if not can_tell():
        return None
    try:
        told = os.fsencode(zfs("diff", "-FHt", before, after))
    except ProgramFailed:  # the parent's snapshot was promoted to another dataset, or an inode has no path any more
        return None
    return None if _OLD_SPELLING.search(told) else paths_in(parse(told, os.fsencode(new)), old, new)


def parse(told: bytes, mountpoint: bytes) -> Iterator[Told]:
    """The lines of the whole output; the names begin below the mount point."""
    for line in told.splitlines():
        _, change, kind, *names = line.split(b"\t")
        links = bool(_LINKS.fullmatch(names[-1]))
        paths = (_below(_unescaped(name), mountpoint) for name in (names[:-1] if links else names))
        yield Told(change, kind, tuple(paths), links)


def _unescaped(name: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: bytes((int(found[1], 8),)), name)


def _below(path: bytes, mountpoint: bytes) -> bytes:
    # of a path through an attribute the owner of it; a file that is really called so lies next to what is looked at
    return path.removeprefix(mountpoint).partition(_XATTRS)[0].strip(b"/")


def paths_in(told: Iterable[Told], old: Path, new: Path) -> set[bytes] | None:
    """The paths of which zfs spoke, and what lies below directories that were moved. None if it did not tell enough."""
    found = set[bytes]()
    with opened(old, DIRECTORY) as before, opened(new, DIRECTORY) as after:
        for one in told:
            found.update(one.paths)
            if one.links or any(_has_names(root, path) for root in (before, after) for path in one.paths):
                return None
            if one.moved_directory:
                found.update(name for path in one.paths for root in (before, after) for name in _all_below(root, path))
    return found


def _has_names(root: int, path: bytes) -> bool:
    """Whether it has more than this one; a directory has not."""
    above, _, name = path.rpartition(b"/")
    with suppress(OSError):
        directory = open_below(root, above)
        try:
            status = os.stat(name or b".", dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(directory)
        return status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
    return False


def _all_below(root: int, path: bytes) -> Iterator[bytes]:
    with suppress(OSError):
        directory = open_below(root, path)
        try:
            for entry in walk(directory):
                yield path + b"/" + entry.path
        finally:
            os.close(directory)

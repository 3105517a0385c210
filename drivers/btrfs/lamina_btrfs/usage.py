"""What a layer itself occupies, told by the kernel's own records."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lamina.descent import DIRECTORY, walk
from lamina.layer import Usage
from lamina.syscalls import opened
from lamina_btrfs import ioctls
from lamina_btrfs.quota import accounts_of

_INODE_ITEM: Final = 1
_EXTENT_DATA: Final = 108
_INODE: Final = struct.Struct("<QQ")  # generation, transid
_EXTENT: Final = struct.Struct("<QQBBHB")  # generation, ram_bytes, compression, encryption, other, type
_ON_DISK: Final = struct.Struct("<QQ")  # disk_bytenr, disk_num_bytes
_INLINE: Final = 0


def usage_of(layer: Path, parent: Path | None) -> Usage:
    """What the layer does not share with its parent; the accounts decide, where the file system keeps any."""
    with opened(layer, DIRECTORY) as subvolume:
        ioctls.sync(subvolume)  # what is not yet in a transaction is in no record either
        try:
            found = _recorded(subvolume, since=None if parent is None else ioctls.info(subvolume).created)
        except PermissionError:
            return _walked(subvolume, parent)
        counted = _counted(subvolume)
    return found if counted is None else Usage(counted, found.inodes)


def _counted(subvolume: int) -> int | None:
    accounts = accounts_of(ioctls.file_system_id(subvolume) or "")
    return accounts.exclusive(ioctls.info(subvolume).id) if accounts.sound else None


def _recorded(subvolume: int, since: int | None) -> Usage:
    """Inodes and extents that were written after the transaction `since`: only new pages of the tree are read."""
    since = since or 0
    inodes, inline, extents = 0, 0, dict[int, int]()
    for _, kind, _, content in ioctls.items(subvolume, 0, since):
        if kind == _INODE_ITEM:
            inodes += _INODE.unpack_from(content)[1] > since
        elif kind == _EXTENT_DATA:
            written, _, _, _, _, form = _EXTENT.unpack_from(content)
            if written <= since:
                continue
            if form == _INLINE:
                inline += len(content) - _EXTENT.size
            else:
                start, length = _ON_DISK.unpack_from(content, _EXTENT.size)
                extents[start] = length if start else 0  # one that starts nowhere is a hole
    return Usage(inline + sum(extents.values()), inodes)


def _walked(subvolume: int, parent: Path | None) -> Usage:
    """For ordinary users: what is not the very same file in the parent, where it has the same inode and change time."""
    if parent is None:
        return sum((_of(status) for status in _own(subvolume, None)), _of(os.fstat(subvolume)))
    with opened(parent, DIRECTORY) as old:
        return sum((_of(status) for status in _own(subvolume, old)), Usage())


def _own(new: int, old: int | None) -> Iterator[os.stat_result]:
    seen = set[int]()
    for entry in walk(new):
        status = entry.status
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if status.st_ino in seen:
                continue
            seen.add(status.st_ino)
        if old is None or not _is_shared(old, entry.path, status):
            yield status


def _is_shared(old: int, path: bytes, status: os.stat_result) -> bool:
    try:
        before = os.stat(path, dir_fd=old, follow_symlinks=False)
    except OSError:
        return False
    return (before.st_ino, before.st_ctime_ns) == (status.st_ino, status.st_ctime_ns)


def _of(status: os.stat_result) -> Usage:
    return Usage(status.st_blocks * 512, 1)

"""Handle directory trees faithfully: copy, measure, remove, flush."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from lamina import syscalls
from lamina.copying import copy_tree
from lamina.descent import DIRECTORY, Ladder, names_in, walk
from lamina.filling import can_clone
from lamina.layer import Usage
from lamina.likeness import copy_metadata
from lamina.syscalls import opened
from lamina.xattrs import at

__all__ = ["copy_metadata", "copy_tree", "measure_tree", "remove_entry", "remove_tree", "shares_blocks", "sync_tree"]

_FS_IOC_GETFLAGS: Final = 0x80086601  # linux/fs.h
_FS_IOC_SETFLAGS: Final = 0x40086602
_IMMUTABLE: Final = 0x10 | 0x20  # FS_IMMUTABLE_FL, FS_APPEND_FL


def measure_tree(path: Path) -> Usage:
    """What the directory and all below it occupy; a file with several names counts once. Missing counts as nothing."""
    try:
        root = os.open(path, DIRECTORY)
    except FileNotFoundError:
        return Usage()
    try:
        own = os.fstat(root)
        size, inodes = own.st_blocks * 512, 1
        seen: set[tuple[int, int]] = set()
        for entry in walk(root):
            status = entry.status
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                identity = status.st_dev, status.st_ino
                if identity in seen:
                    continue
                seen.add(identity)
            size += status.st_blocks * 512
            inodes += 1
    finally:
        os.close(root)
    return Usage(size, inodes)


def nearest_existing(path: Path) -> Path:
    """The directory itself, or the nearest one above it that is there: on the same file system, once it is made."""
    return next(each for each in (path, *path.absolute().parents) if each.is_dir())


def sync_tree(path: Path) -> None:
    """Return once the whole file system that holds `path` is on disk."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        syscalls.syncfs(descriptor)


def shares_blocks(path: Path) -> bool:
    """Whether a copy below `path`, which need not exist yet, shares the blocks of its original until it is written."""
    place = next((each for each in (path, *path.absolute().parents) if each.is_dir()), Path("/"))
    with opened(place, DIRECTORY & ~os.O_NOFOLLOW) as descriptor:
        return can_clone(descriptor)


def remove_tree(path: Path) -> None:
    """Afterwards nothing is at `path`. What was not there, or goes away meanwhile, does not matter.

    Links are removed, not followed. A mount inside the tree is not emptied: EBUSY is raised. Directories that forbid it
    are opened to their owner, and immutable files made mutable, as far as the caller may.
    """
    parent, name = os.path.split(os.fsencode(path))
    try:
        descriptor = os.open(parent or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_entry(descriptor, name)
    finally:
        os.close(descriptor)


def remove_entry(directory: int, name: bytes) -> None:
    """As `remove_tree`, for a name in an open directory."""
    if not _is_directory(directory, name):
        _unlink(directory, name)
        return
    with Ladder(directory) as ladder:
        todo = [[name]]  # the names still to be removed, here and in each directory above
        above: list[bytes] = []
        while todo:
            if not todo[-1]:
                todo.pop()
                if above:
                    ladder.up()
                    _unlink(ladder.here, above.pop(), how=os.rmdir)
                continue
            child = todo[-1].pop()
            if not _is_directory(ladder.here, child):
                _unlink(ladder.here, child)
            elif not _gone(ladder.here, child) and _down(ladder, child):
                todo.append(names_in(ladder.here))
                above.append(child)


def _is_directory(directory: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _gone(directory: int, name: bytes) -> bool:
    """Remove a directory that is empty already, which many are and which saves opening it."""
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError:
        return False
    return True


def _down(ladder: Ladder, name: bytes) -> bool:
    """Enter a directory and see to it that we may empty it; False if it is gone."""
    try:
        try:
            ladder.down(name)
        except PermissionError:
            with opened(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=ladder.here) as shut:
                os.chmod(b"/proc/self/fd/%d" % shut, 0o700)  # by descriptor: never through a link
            ladder.down(name)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EBUSY, "something is mounted here", os.fsdecode(name)) from error
        raise
    if os.geteuid() != 0:
        _open_to_owner(ladder.here)
    return True


def _open_to_owner(directory: int) -> None:
    mode = stat.S_IMODE(os.fstat(directory).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        with suppress(PermissionError):  # somebody else's; removing what it holds will tell
            os.fchmod(directory, mode | stat.S_IRWXU)


def _unlink(directory: int, name: bytes, *, how: Callable[..., None] = os.unlink) -> None:
    try:
        how(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except PermissionError:
        _make_removable(directory, name)
        how(name, dir_fd=directory)


def _make_removable(directory: int, name: bytes) -> None:
    """Take away what keeps an entry: its flags and those of its directory, and a mode that forbids to write there."""
    _clear_flags(directory)
    if os.geteuid() != 0:
        _open_to_owner(directory)
    if stat.S_IFMT(os.lstat(at(directory, name)).st_mode) in {stat.S_IFREG, stat.S_IFDIR}:  # others carry no flags
        with suppress(OSError), opened(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory) as entry:
            _clear_flags(entry)


def _clear_flags(descriptor: int) -> None:
    try:
        flags = struct.unpack("l", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8)))[0]
        if flags & _IMMUTABLE:
            fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("l", flags & ~_IMMUTABLE))
    except OSError:  # a file system without flags
        return

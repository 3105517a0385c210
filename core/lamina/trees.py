"""Handle directory trees faithfully: copy, measure, remove, flush."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path
from typing import Final

from lamina import syscalls
from lamina.copying import copy_tree
from lamina.descent import DIRECTORY, Ladder, names_in, walk
from lamina.layer import Usage
from lamina.likeness import copy_metadata
from lamina.syscalls import opened

__all__ = ["copy_metadata", "copy_tree", "measure_tree", "remove_tree", "sync_tree"]

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


def sync_tree(path: Path) -> None:
    """Return once the whole file system that holds `path` is on disk."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        syscalls.syncfs(descriptor)


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
        _remove(descriptor, name)
    finally:
        os.close(descriptor)


def _remove(directory: int, name: bytes) -> None:
    if not _is_directory(directory, name):
        _unlink(directory, name)
        return
    with Ladder(directory) as ladder:
        _down(ladder, name)
        todo = [names_in(ladder.here)]
        above = [name]
        while todo:
            if todo[-1]:
                child = todo[-1].pop()
                if not _is_directory(ladder.here, child):
                    _unlink(ladder.here, child)
                elif not _gone(ladder.here, child):
                    _down(ladder, child)
                    todo.append(names_in(ladder.here))
                    above.append(child)
                continue
            todo.pop()
            ladder.up()
            _unlink(ladder.here, above.pop(), directory_itself=True)


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


def _down(ladder: Ladder, name: bytes) -> None:
    try:
        ladder.down(name)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=ladder.here)
        ladder.down(name)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EBUSY, "something is mounted here", os.fsdecode(name)) from error
        raise


def _unlink(directory: int, name: bytes, *, directory_itself: bool = False) -> None:
    remove = os.rmdir if directory_itself else os.unlink
    try:
        remove(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except PermissionError:
        _make_removable(directory, name)
        remove(name, dir_fd=directory)


def _make_removable(directory: int, name: bytes) -> None:
    """Take away what keeps an entry: flags of it and of its directory, and a directory that its owner may not write."""
    if os.geteuid() != 0:
        os.fchmod(directory, stat.S_IMODE(os.fstat(directory).st_mode) | 0o700)
    _clear_flags(directory)
    try:
        with opened(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory) as descriptor:
            _clear_flags(descriptor)
    except OSError:  # a link or a device: these carry no flags that could be cleared
        return


def _clear_flags(descriptor: int) -> None:
    try:
        flags = struct.unpack("l", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8)))[0]
        if flags & _IMMUTABLE:
            fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("l", flags & ~_IMMUTABLE))
    except OSError:  # a file system without flags
        return

"""Make one entry like another: a file, link, device or socket, with owner, mode, attributes and times."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from lamina.descent import Entry
from lamina.filling import Filler
from lamina.xattrs import at, read_xattrs, remove_xattrs, write_xattrs

# O_NONBLOCK: should somebody swap the file for a fifo, do not wait for its writer
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


Owner = tuple[int, int]  # user and group


def copy_entry(
    entry: Entry, directory: int, filler: Filler, *, name: bytes | None = None, owner: Owner | None = None
) -> None:
    """Make whatever `entry` is, a directory excepted, in the open `directory`.

    Under the same name and with the same owner, unless another `name` or `owner` is given.
    """
    if stat.S_ISREG(entry.status.st_mode):
        _copy_file(entry, directory, filler, name or entry.name, owner)
    else:
        _copy_special(entry, directory, name or entry.name, owner)


def _copy_file(entry: Entry, directory: int, filler: Filler, name: bytes, owner: Owner | None) -> None:
    source = os.open(entry.name, _READ, dir_fd=entry.directory)
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ESTALE, "it was replaced while it was being copied")
        # writable, since attributes are set before the mode is final; else final, which saves a change of mode
        target = os.open(name, _CREATE, status.st_mode & 0o777 | stat.S_IWUSR, dir_fd=directory)
        try:
            filler.fill(source, target, status)
            copy_metadata(source, target, status, owner=owner)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_special(entry: Entry, directory: int, name: bytes, owner: Owner | None) -> None:
    status = entry.status
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(entry.name, dir_fd=entry.directory), name, dir_fd=directory)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=directory)
    os.chown(name, *(owner or (status.st_uid, status.st_gid)), dir_fd=directory, follow_symlinks=False)
    if wanted := read_xattrs(at(entry.directory, entry.name)):
        write_xattrs(at(directory, name), wanted, skip_forbidden=True)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=directory)  # mknod minds the umask
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=directory, follow_symlinks=False)


def copy_metadata(source: int, target: int, status: os.stat_result, *, owner: Owner | None = None) -> None:
    """Give an open file or directory the owner, attributes, mode and times of another, whose status is `status`.

    Another `owner`, if one is given.

    In the order in which the kernel lets them stand: a change of owner clears setuid and capabilities, an access list
    changes the mode, and any change moves the times. What stands already is not written again: each change costs the
    file system a transaction. Other attributes of the target stay (see `clear_attributes`).
    """
    made = os.fstat(target)
    wanted_owner = owner or (status.st_uid, status.st_gid)
    if (made.st_uid, made.st_gid) != wanted_owner:
        os.fchown(target, *wanted_owner)
        made = os.fstat(target)
    if wanted := read_xattrs(source):
        write_xattrs(target, wanted, skip_forbidden=True)
    if wanted or made.st_mode != status.st_mode:
        os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def clear_attributes(directory: int) -> None:
    """Take from an open directory what it inherited, so that what is made in it inherits nothing."""
    names = [name for name in read_xattrs(directory) if not name.startswith("security.")]  # labels are not ours
    remove_xattrs(directory, names)

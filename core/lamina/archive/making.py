"""Make what an entry of a tar describes, and dress it: owner, attributes, mode, times."""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable
from typing import Final

from lamina.errors import BadArchive
from lamina.privacy import is_private_xattr
from lamina.syscalls import opened
from lamina.tar import EntryData, EntryType, Header
from lamina.xattrs import at, read_xattrs, remove_xattrs, write_xattrs

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL: Final = {
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
    EntryType.FIFO: stat.S_IFIFO,
}
_LARGEST_MAJOR: Final = (1 << 12) - 1  # linux/kdev_t.h; more would be cut without a word
_LARGEST_MINOR: Final = (1 << 20) - 1
_INHERITED: Final = ["system.posix_acl_access", "system.posix_acl_default"]


def make_file(directory: int, name: bytes, header: Header, data: EntryData, *, heir: bool) -> None:
    """A new regular file with this content, holes where the archive has them; EEXIST if the name is taken."""
    # writable for its owner, since attributes are set before the mode is final
    descriptor = os.open(name, _CREATE, header.mode & 0o777 | stat.S_IWUSR, dir_fd=directory)
    try:
        end = 0
        for offset, piece in data.pieces():
            end = offset + _write(descriptor, piece, offset)
        if end < header.size:
            os.ftruncate(descriptor, header.size)
        if heir:
            remove_xattrs(descriptor, _INHERITED)
        dress(descriptor, header)
    finally:
        os.close(descriptor)


def _write(descriptor: int, piece: memoryview, offset: int) -> int:
    size = len(piece)
    while piece:
        written = os.pwrite(descriptor, piece, offset)
        piece, offset = piece[written:], offset + written
    return size


def make_symlink(directory: int, name: bytes, header: Header) -> None:
    """A new symbolic link, with whatever target it names: nobody follows it here. EEXIST if the name is taken."""
    os.symlink(header.linkname, name, dir_fd=directory)
    if owner := _owner(header):
        os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
    if wanted := kept_xattrs(header):
        write_xattrs(at(directory, name), wanted, skip_forbidden=True)
    os.utime(name, ns=_times(header), dir_fd=directory, follow_symlinks=False)


def make_special(directory: int, name: bytes, header: Header, *, heir: bool) -> None:
    """A new device or fifo; EEXIST if the name is taken, BadArchive where we may not make one."""
    if header.devmajor > _LARGEST_MAJOR or header.devminor > _LARGEST_MINOR:
        raise BadArchive(header.path, "a device with a number that no kernel knows")
    number = os.makedev(header.devmajor, header.devminor)
    if header.type is EntryType.CHARACTER_DEVICE and number == 0:
        raise BadArchive(header.path, "a device 0:0, which is how the kernel writes that something is gone")
    try:
        os.mknod(name, _SPECIAL[header.type] | 0o600, number, dir_fd=directory)
    except PermissionError:
        raise BadArchive(header.path, "a device, and we may not make devices here") from None
    # by descriptor, lest somebody put a link in its place; writing to a device would mean something else
    with opened(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory) as found:
        if stat.S_ISLNK(os.fstat(found).st_mode):
            raise OSError(errno.ESTALE, "it was replaced while it was made")
        place = b"/proc/self/fd/%d" % found
        if owner := _owner(header):
            os.chown(place, *owner)
        if heir:
            _forget_inherited(place)
        for key, value in kept_xattrs(header).items():
            os.setxattr(place, key, value)
        os.chmod(place, header.mode)
        os.utime(place, ns=_times(header))


def _forget_inherited(place: bytes) -> None:
    for name in _INHERITED:
        try:
            os.removexattr(place, name)
        except OSError as error:
            if error.errno not in {errno.ENODATA, errno.ENOTSUP}:
                raise


def dress(descriptor: int, header: Header) -> None:
    """Give a new file its owner, attributes, mode and times, in the order in which the kernel lets them stand.

    What stands already is not written again: each change costs the file system a transaction.
    """
    made = os.fstat(descriptor)
    owner = _owner(header)
    if owner and owner != (made.st_uid, made.st_gid):
        os.fchown(descriptor, *owner)
        made = os.fstat(descriptor)
    wanted = kept_xattrs(header)
    if wanted:
        write_xattrs(descriptor, wanted, skip_forbidden=True)
    if wanted or stat.S_IMODE(made.st_mode) != header.mode:
        os.fchmod(descriptor, header.mode)
    os.utime(descriptor, ns=_times(header))


def dress_directory(descriptor: int, header: Header, *, is_private: Callable[[str], bool]) -> None:
    """Make an open directory what the entry says, whatever it was: attributes that the entry lacks are taken away."""
    stale = [
        name
        for name in read_xattrs(descriptor)
        if name not in header.xattrs and not is_private(name) and not is_private_xattr(name)
    ]
    remove_xattrs(descriptor, stale)
    dress(descriptor, header)


def kept_xattrs(header: Header) -> dict[str, bytes]:
    """The attributes that come in with a layer: all but some file system's or host's own bookkeeping."""
    return {name: value for name, value in header.xattrs.items() if not is_private_xattr(name)}


def _times(header: Header) -> tuple[int, int]:
    return header.mtime_ns if header.atime_ns is None else header.atime_ns, header.mtime_ns


def _owner(header: Header) -> tuple[int, int] | None:
    """Whose it shall be; None where we can only make what is ours."""
    return None if _one_owner() else (header.uid, header.gid)


@functools.cache
def _one_owner() -> bool:
    """Whether everything here has one owner: for an ordinary user, or in a user namespace that maps a single id."""
    if os.geteuid() != 0:
        return True
    with open("/proc/self/uid_map", encoding="ascii") as table:
        return sum(int(line.split()[2]) for line in table) == 1

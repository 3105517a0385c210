"""Extended attributes of open files and of names in open directories, all namespaces, links not followed."""

from __future__ import annotations

import errno
import os

# what a file system says that has no attributes, or none for this kind of file
_NONE_HERE = {errno.ENOTSUP, errno.EPERM, errno.ENOSYS}

_CAPABILITY = "security.capability"
_TURN = {"user": 0, "security": 2}  # all others between


def at(directory: int, name: bytes) -> bytes:
    """A name for the system calls that take no directory descriptor; only its last part can be raced."""
    return b"/proc/self/fd/%d/%s" % (directory, name)


def read_xattrs(place: int | bytes) -> dict[str, bytes]:
    """All attributes of an open file or of a path (see `at`), by name; empty where there are none to be had."""
    follow = {} if isinstance(place, int) else {"follow_symlinks": False}
    try:
        names = os.listxattr(place, **follow)
    except OSError as error:
        if error.errno in _NONE_HERE:
            return {}
        raise
    found = {}
    for name in sorted(names):
        try:
            found[name] = os.getxattr(place, name, **follow)
        except OSError as error:
            if error.errno == errno.EINVAL and name == _CAPABILITY:
                continue  # not well-formed, and so none: aufs leaves an empty one where it should remove it
            if error.errno != errno.ENODATA:  # removed meanwhile
                raise
    return found


def write_xattrs(place: int | bytes, wanted: dict[str, bytes], *, skip_forbidden: bool = False) -> None:
    """Set attributes in an order in which each can stand.

    Ordinary ones need write permission, which an access list may take away; capabilities come last, since most other
    changes clear them.

    One that cannot be kept raises `OSError` naming it; with `skip_forbidden`, those of the namespaces `trusted` and
    `security` that only a more privileged caller may write are left out.
    """
    for name in sorted(wanted, key=lambda each: (_TURN.get(each.partition(".")[0], 1), each)):
        try:
            if isinstance(place, int):
                os.setxattr(place, name, wanted[name])
            else:
                os.setxattr(place, name, wanted[name], follow_symlinks=False)
        except OSError as error:
            if skip_forbidden and error.errno == errno.EPERM and name.startswith(("trusted.", "security.")):
                continue
            raise OSError(error.errno, f"cannot keep the attribute {name}: {error.strerror}", error.filename) from None


def remove_xattrs(place: int | bytes, names: list[str]) -> None:
    """Remove attributes; those that are gone already do not matter."""
    for name in names:
        try:
            if isinstance(place, int):
                os.removexattr(place, name)
            else:
                os.removexattr(place, name, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise

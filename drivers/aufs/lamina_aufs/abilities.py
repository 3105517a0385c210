"""What is different from one aufs to the next: each tried out in a joined tree that is made for it."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from lamina import syscalls
from lamina.driver import Ability

_ATTRIBUTE: Final = "trusted.lamina"
_LARGE: Final = b"x" * 1500
_ACL: Final = "system.posix_acl_access"
_NOBODY: Final = 0xFFFFFFFF
# owner rwx, user 1 r-x, group r-x, mask r-x, others nothing: (tag, permissions, id) of each
_ENTRIES: Final = ((1, 7, _NOBODY), (2, 5, 1), (4, 5, _NOBODY), (16, 5, _NOBODY), (32, 0, _NOBODY))


def make_lower(lower: Path) -> None:
    """What the probes find below them."""
    for name in ("dir", "untouched"):
        (lower / name).mkdir(parents=True)
    for name in ("file", "another", "kept", "empty", "dir/inside", "untouched/other"):
        (lower / name).touch()
    with suppress(OSError):  # a file system that has none: then it does not matter what aufs does with them
        os.setxattr(lower / "kept", _ATTRIBUTE, b"x")
        os.setxattr(lower / "empty", _ATTRIBUTE, b"")
    os.utime(lower / "dir", (1, 1))


def lacking_in(joined: Path) -> frozenset[Ability]:
    """What does not work in the joined tree."""
    return frozenset(ability for ability, probe in PROBES.items() if not _works(probe, joined))


def _works(probe: Callable[[Path], bool], joined: Path) -> bool:
    try:
        return probe(joined)
    except OSError:
        return False


def _rename_flags(root: Path) -> bool:
    # EBUSY where a directory has to be copied up for it
    one, other = (os.fsencode(root / name) for name in ("untouched/other", "another"))
    syscalls.renameat2(syscalls.AT_FDCWD, one, syscalls.AT_FDCWD, other, syscalls.RENAME_EXCHANGE)
    return True


def _nanoseconds(root: Path) -> bool:
    os.utime(root / "file", ns=(1_234_567_891, 1_234_567_891))
    return (root / "file").stat().st_mtime_ns == 1_234_567_891


def _directory_times(root: Path) -> bool:
    (root / "dir/inside").chmod(0o600)
    return (root / "dir").stat().st_mtime == 1


def _xattrs(root: Path) -> bool:
    (root / "kept").chmod(0o600)
    return os.getxattr(root / "kept", _ATTRIBUTE) == b"x"


def _large_xattrs(root: Path) -> bool:
    os.setxattr(root / "file", f"{_ATTRIBUTE}.large", _LARGE)
    return os.getxattr(root / "file", f"{_ATTRIBUTE}.large") == _LARGE


def _remove_xattrs(root: Path) -> bool:
    os.setxattr(root / "file", _ATTRIBUTE, b"x")
    os.removexattr(root / "file", _ATTRIBUTE)
    return _ATTRIBUTE not in os.listxattr(root / "file")


def _empty_xattrs(root: Path) -> bool:
    (root / "empty").chmod(0o600)
    return _ATTRIBUTE in os.listxattr(root / "empty")


def _acls(root: Path) -> bool:
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in _ENTRIES)
    os.setxattr(root / "file", _ACL, value)
    return os.getxattr(root / "file", _ACL) == value and (root / "file").stat().st_mode & 0o777 == 0o750


def _tmpfile(root: Path) -> bool:
    os.close(os.open(root, os.O_TMPFILE | os.O_RDWR, 0o600))
    return True


PROBES: Final[Mapping[Ability, Callable[[Path], bool]]] = {
    Ability.RENAME_FLAGS: _rename_flags,
    Ability.NANOSECOND_TIMES: _nanoseconds,
    Ability.DIRECTORY_TIMES: _directory_times,
    Ability.XATTRS: _xattrs,  # lacking where it was built without AUFS_XATTR
    Ability.LARGE_XATTRS: _large_xattrs,
    Ability.REMOVE_XATTRS: _remove_xattrs,  # it may leave an empty one
    Ability.EMPTY_XATTRS: _empty_xattrs,  # lost when a file is copied up
    Ability.ACLS: _acls,
    Ability.TMPFILE: _tmpfile,
}

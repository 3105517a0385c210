"""What the file systems of this zfs can do, tried out on one that is made for it and is gone afterwards."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lamina import syscalls
from lamina.driver import Ability
from lamina.mount import is_mounted
from lamina_zfs.commands import destroy, patiently, zfs

# version 2; user::rwx, user 1000:r-x, group::r--, mask::r-x, other::---
_ACL: Final = bytes.fromhex("02000000 0100 0700 ffffffff 0200 0500 e8030000 0400 0400 ffffffff 1000 0500 ffffffff")
_OTHER: Final = bytes.fromhex("2000 0000 ffffffff")


def _nanoseconds(place: Path) -> bool:
    os.utime(place, ns=(1_234_567_891, 1_234_567_891))
    return place.stat().st_mtime_ns == 1_234_567_891


def _late_times(place: Path) -> bool:
    os.utime(place, (1 << 31, 1 << 31))
    return place.stat().st_mtime == 1 << 31


def _large_xattrs(place: Path) -> bool:
    wanted = os.urandom(1500)
    os.setxattr(place, "user.lamina", wanted)
    return os.getxattr(place, "user.lamina") == wanted


def _setid_writes(place: Path) -> bool:
    place.chmod(0o6755)
    place.write_bytes(b"x")
    return place.stat().st_mode & 0o6000 == 0o6000


def _acls(place: Path) -> bool:
    os.setxattr(place, "system.posix_acl_access", _ACL + _OTHER)
    return place.stat().st_mode & 0o777 == 0o750  # honoured, not only kept: the mask is the group's mode


def _rename_flags(place: Path) -> bool:
    other = place.with_name("other")
    other.touch()
    here = syscalls.AT_FDCWD
    syscalls.renameat2(here, os.fsencode(place), here, os.fsencode(other), syscalls.RENAME_EXCHANGE)
    return True


def _fallocate(place: Path) -> bool:
    with place.open("r+b") as file:
        syscalls.fallocate(file.fileno(), 0, 0, 1 << 17)
        punch = syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE
        syscalls.fallocate(file.fileno(), punch, 0, 1 << 16)
    return True


def _tmpfile(place: Path) -> bool:
    os.close(os.open(place.parent, os.O_TMPFILE | os.O_RDWR, 0o600))
    return True


_PROBES: Final[dict[Ability, Callable[[Path], bool]]] = {
    Ability.NANOSECOND_TIMES: _nanoseconds,
    Ability.LATE_TIMES: _late_times,
    Ability.LARGE_XATTRS: _large_xattrs,
    Ability.SETID_WRITES: _setid_writes,
    Ability.ACLS: _acls,
    Ability.RENAME_FLAGS: _rename_flags,
    Ability.FALLOCATE: _fallocate,
    Ability.TMPFILE: _tmpfile,
}


def has_xattrs(place: Path) -> bool:
    """Whether small attributes are kept; zfs-fuse refuses all of them unless it was started with -x."""
    try:
        os.setxattr(place, "user.lamina", b"x")
    except OSError:
        return False
    return True


def lacking_in(place: Path) -> frozenset[Ability]:
    """What a directory on zfs cannot; files are made in it."""
    return frozenset(ability for ability, probe in _PROBES.items() if not _works(probe, place / ability.name))


def _works(probe: Callable[[Path], bool], file: Path) -> bool:
    file.touch()
    try:
        return probe(file)
    except OSError:
        return False


@contextmanager
def trial(pool: str) -> Iterator[Path]:
    """A new file system of this pool, mounted; gone afterwards. OSError if it was mounted where we cannot see it."""
    dataset = f"{pool}/lamina-probe-{os.urandom(6).hex()}"
    with tempfile.TemporaryDirectory(prefix="lamina-zfs-") as above:
        place = Path(above) / "tree"
        place.mkdir()
        try:
            zfs("create", "-o", f"mountpoint={place}", dataset)
            if not is_mounted(place):
                raise OSError("zfs mounts in another mount namespace than ours; enter that one")
            yield place
        finally:
            if is_mounted(place):
                patiently("unmount", dataset)
            destroy(dataset)

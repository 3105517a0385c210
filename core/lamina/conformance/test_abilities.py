"""Abilities: each works, or the driver names it as lacking; and what it names as lacking is lacking indeed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.conformance.harness import Room, can, grow, link, mkdir, mounted, read, write
from lamina.conformance.specimens import ACL
from lamina.driver import Ability
from lamina.errors import LaminaError
from lamina.snapshotter import Snapshotter

_libc = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE = 1, 2
AT_FDCWD = -100
# a lack is told by one of these; anything else is a fault. EBUSY: an aufs that would have to copy up two files at once
_LACKS = (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ERANGE, errno.ENOSPC, errno.EISDIR, errno.EBUSY)


def _base(root: Path) -> None:
    write("file", "text")(root)
    link("file", "twin")(root)
    write("dir/inside", "inside")(root)
    with contextlib.suppress(OSError):  # a file system without them
        os.setxattr(root / "dir/inside", "user.empty", b"")
    os.utime(root / "dir", (1, 1))


def _nanoseconds(root: Path) -> bool:
    os.utime(root / "file", ns=(1_234_567_891, 1_234_567_891))
    return (root / "file").stat().st_mtime_ns == 1_234_567_891


def _late_times(root: Path) -> bool:
    try:
        os.utime(root / "file", (2**31, 2**31))
    except OverflowError:
        return False
    except OSError as error:
        if error.errno == errno.EOVERFLOW:
            return False
        raise
    return (root / "file").stat().st_mtime == 2**31


def _large_xattrs(root: Path) -> bool:
    value = os.urandom(1500)
    os.setxattr(root / "file", "user.large", value)
    return os.getxattr(root / "file", "user.large") == value


def _directory_times(root: Path) -> bool:
    (root / "dir/inside").chmod(0o600)
    return (root / "dir").stat().st_mtime == 1


def _xattrs(root: Path) -> bool:
    os.setxattr(root / "file", "user.small", b"x")
    return os.getxattr(root / "file", "user.small") == b"x"


def _remove_xattrs(root: Path) -> bool:
    os.setxattr(root / "file", "user.lamina", b"x")
    os.removexattr(root / "file", "user.lamina")
    return os.listxattr(root / "file") == []


def _empty_xattrs(root: Path) -> bool:
    (root / "dir/inside").chmod(0o600)
    return os.listxattr(root / "dir/inside") == ["user.empty"]


def _setid_writes(root: Path) -> bool:
    (root / "file").chmod(0o6755)
    with (root / "file").open("r+b") as file:
        file.write(b"x")
    return (root / "file").stat().st_mode & 0o6000 == 0o6000


def _acls(root: Path) -> bool:
    os.setxattr(root / "file", "system.posix_acl_access", ACL)
    # an ACL that is kept but not honoured leaves the mode alone: the mask has to become the group's permissions
    kept = os.getxattr(root / "file", "system.posix_acl_access") == ACL
    return kept and (root / "file").stat().st_mode & 0o777 == 0o750


def _rename_flags(root: Path) -> bool:
    mkdir("other")(root)
    _renameat2(root / "dir/inside", root / "file", RENAME_EXCHANGE)
    try:
        _renameat2(root / "dir/inside", root / "file", RENAME_NOREPLACE)
    except FileExistsError:
        return (root / "file").read_text() == "inside"
    return False


def _renameat2(old: Path, new: Path, flags: int) -> None:
    if _libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(old))


def _fallocate(root: Path) -> bool:
    with (root / "room").open("wb") as file:
        _call_fallocate(file.fileno(), 0, 0, 1 << 20)
        file.write(b"x" * 65_536)
        file.flush()
        _call_fallocate(file.fileno(), PUNCH_HOLE | KEEP_SIZE, 0, 65_536)
    return (root / "room").read_bytes() == bytes(1 << 20)


def _call_fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if _libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _sparse(root: Path) -> bool:
    with (root / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"island")
    return (root / "sparse").stat().st_blocks * 512 < 2 << 20


def _long_names(root: Path) -> bool:
    try:
        (root / ("n" * 255)).touch()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise
    return (root / ("n" * 255)).exists()


def _tmpfile(root: Path) -> bool:
    os.close(os.open(root, os.O_TMPFILE | os.O_RDWR, 0o600))
    return True


def _rename_lower_directory(root: Path) -> bool:
    os.rename(root / "dir", root / "renamed")
    return (root / "renamed/inside").read_text() == "inside"


def _lower_hard_links(root: Path) -> bool:
    (root / "file").write_text("changed")
    return (root / "twin").read_text() == "changed"


def _lower_link_numbers(root: Path) -> bool:
    link("dir/inside", "dir/new")(root)
    return (root / "dir/inside").stat().st_ino == (root / "dir/new").stat().st_ino


def _live_readers(root: Path) -> bool:
    with (root / "file").open("rb") as reader, mmap.mmap(reader.fileno(), 4, access=mmap.ACCESS_READ) as mapped:
        with (root / "file").open("r+b") as writer:
            writer.write(b"live")
        return reader.read() == b"live" == mapped[:]


PROBES: dict[Ability, Callable[[Path], bool]] = {
    Ability.RENAME_LOWER_DIRECTORY: _rename_lower_directory,
    Ability.LOWER_HARD_LINKS: _lower_hard_links,
    Ability.LOWER_LINK_NUMBERS: _lower_link_numbers,
    Ability.LIVE_READERS: _live_readers,
    Ability.NANOSECOND_TIMES: _nanoseconds,
    Ability.LATE_TIMES: _late_times,
    Ability.LARGE_XATTRS: _large_xattrs,
    Ability.DIRECTORY_TIMES: _directory_times,
    Ability.XATTRS: _xattrs,
    Ability.REMOVE_XATTRS: _remove_xattrs,
    Ability.EMPTY_XATTRS: _empty_xattrs,
    Ability.SETID_WRITES: _setid_writes,
    Ability.ACLS: _acls,
    Ability.RENAME_FLAGS: _rename_flags,
    Ability.FALLOCATE: _fallocate,
    Ability.SPARSE_FILES: _sparse,
    Ability.LONG_NAMES: _long_names,
    Ability.TMPFILE: _tmpfile,
}


def _works(probe: Callable[[Path], bool], root: Path) -> bool:
    try:
        return probe(root)
    except OSError as error:
        if error.errno in _LACKS:
            return False
        raise


def test_every_ability_has_a_probe() -> None:
    assert set(PROBES) | {Ability.REBASE} == set(Ability)


@pytest.mark.parametrize("ability", PROBES, ids=lambda ability: ability.name)
def test_an_ability_works_unless_it_is_named_as_lacking(
    room: Room, snapshots: Snapshotter, ability: Ability, record_property: Callable[[str, object], None]
) -> None:
    plain = room.place("plain")
    _base(plain)
    if not _works(PROBES[ability], plain):
        pytest.skip(f"the file system below the store lacks {ability.name} itself")
    grow(room, snapshots, "base", _base)
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root:
        works = _works(PROBES[ability], root)

    if can(room.driver_class, ability):
        assert works, f"the driver lacks {ability.name} ({ability.value}) and does not say so in `cannot`"
    else:
        assert not works, f"{ability.name} works: take it out of `cannot`, so that users can rely on it"
        record_property(f"lacks {ability.name}", "checked: it is lacking indeed")


def test_commit_onto_a_late_parent_works_or_is_named_as_lacking(
    room: Room, snapshots: Snapshotter, record_property: Callable[[str, object], None]
) -> None:
    grow(room, snapshots, "base", write("below", "x"))
    snapshots.prepare("alone")
    with mounted(room, snapshots, "alone") as root:
        write("above", "y")(root)

    if can(room.driver_class, Ability.REBASE):
        snapshots.commit("joined", "alone", parent="base")
        assert (read(snapshots, "joined", "below"), read(snapshots, "joined", "above")) == ("x", "y")
        return
    with pytest.raises(LaminaError):
        snapshots.commit("joined", "alone", parent="base")
    assert read(snapshots, "alone", "above") == "y"
    assert {one.name for one in snapshots.list()} == {"base", "alone"}
    record_property("lacks REBASE", "checked: core refuses it, and the layer stays as it was")

"""System calls, flag by flag, on the union and on ext4: the same answers and errors, but for a list that is whole.

The files come from a lower layer, so that each call also copies up. What differs stands in the driver's README.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import shutil
import socket
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from lamina import syscalls
from lamina.conformance.crash import in_a_child
from lamina.conformance.smalldisk import ext4
from lamina.layer import Kind, Layer
from lamina.mount import mount_all, unmount
from lamina_fuse.driver import FuseDriver

pytestmark = pytest.mark.needs_root

Call = Callable[[Path], Any]
OWNER: Final = 1000
STRANGER: Final = 1001
PUNCH: Final = syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE
COLLAPSE, ZERO, INSERT, UNSHARE = 0x08, 0x10, 0x20, 0x40  # fallocate(2)
OFD_SETLK: Final = 37  # fcntl(2)
FS_IOC_GETFLAGS, FS_IOC_FIEMAP, FICLONE = 0x80086601, 0xC020660B, 0x40049409


def _access_list(uid: int) -> bytes:
    """user::rw-, user:UID:rw-, group::---, mask::rw-, other::--- (acl(5)), as the kernel keeps it."""
    nobody = 0xFFFFFFFF
    entries = ((0x01, 6, nobody), (0x02, 6, uid), (0x04, 0, nobody), (0x10, 6, nobody), (0x20, 0, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _fill(root: Path) -> None:
    (root / "file").write_bytes(bytes(range(256)) * 400)
    (root / "setid").write_text("runs as somebody else")
    os.chown(root / "setid", OWNER, OWNER)
    (root / "setid").chmod(0o6777)
    with (root / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    (root / "listed").write_text("for some")
    os.setxattr(root / "listed", "system.posix_acl_access", _access_list(OWNER))
    for name, mode in (("dir", 0o755), ("shared", 0o2777), ("sticky", 0o1777)):
        (root / name).mkdir()
        os.chown(root / name, 0, 7)
        (root / name).chmod(mode)
        (root / name / "inner").write_text("inner")


# each is done in a tree of its own, and its answer compared


def seek_data_and_holes_of_a_file_from_below(root: Path) -> list[int]:
    with syscalls.opened(root / "sparse", os.O_RDONLY) as file:
        return [os.lseek(file, at, how) for at, how in ((0, os.SEEK_DATA), (0, os.SEEK_HOLE), (1 << 20, os.SEEK_HOLE))]


def seek_data_after_writing_into_a_hole(root: Path) -> tuple[int, int, int]:
    with syscalls.opened(root / "sparse", os.O_RDWR) as file:
        os.pwrite(file, b"x", 500_000)
        data = os.lseek(file, 0, os.SEEK_DATA)
        return data, os.lseek(file, data, os.SEEK_HOLE), os.fstat(file).st_blocks


def seek_data_behind_the_end(root: Path) -> int:
    with syscalls.opened(root / "sparse", os.O_RDONLY) as file:
        return os.lseek(file, 1 << 30, os.SEEK_DATA)


def _allocated(root: Path, mode: int, start: int = 4096, length: int = 8192) -> tuple[int, int, bytes]:
    with syscalls.opened(root / "file", os.O_RDWR) as file:
        syscalls.fallocate(file, mode, start, length)
        return os.fstat(file).st_size, os.fstat(file).st_blocks, os.pread(file, 200_000, 0)


def fallocate_behind_the_end(root: Path) -> object:
    return _allocated(root, 0, 100_000, 50_000)


def fallocate_behind_the_end_keeping_the_size(root: Path) -> object:
    return _allocated(root, syscalls.FALLOC_FL_KEEP_SIZE, 100_000, 50_000)


def fallocate_a_hole(root: Path) -> object:
    return _allocated(root, PUNCH)


def fallocate_a_hole_without_keeping_the_size(root: Path) -> object:
    return _allocated(root, syscalls.FALLOC_FL_PUNCH_HOLE)


def fallocate_zeros(root: Path) -> object:
    return _allocated(root, ZERO)


def fallocate_unsharing(root: Path) -> object:
    return _allocated(root, UNSHARE)


def fallocate_what_is_open_for_reading(root: Path) -> None:
    with syscalls.opened(root / "file", os.O_RDONLY) as file:
        syscalls.fallocate(file, 0, 0, 10)


def copy_file_range_to_a_new_file(root: Path) -> tuple[int, bytes]:
    with (
        syscalls.opened(root / "file", os.O_RDONLY) as source,
        syscalls.opened(root / "new", os.O_RDWR | os.O_CREAT) as to,
    ):
        return os.copy_file_range(source, to, 50_000, 10, 5), os.pread(to, 100_000, 0)


def copy_file_range_inside_a_file(root: Path) -> tuple[int, bytes]:
    with syscalls.opened(root / "file", os.O_RDWR) as file:
        return os.copy_file_range(file, file, 1000, 0, 5000), os.pread(file, 10_000, 0)


def copy_file_range_onto_itself(root: Path) -> int:
    with syscalls.opened(root / "file", os.O_RDWR) as file:
        return os.copy_file_range(file, file, 1000, 0, 100)


def _renamed(root: Path, old: str, new: str, flags: int) -> list[str]:
    syscalls.renameat2(-100, os.fsencode(root / old), -100, os.fsencode(root / new), flags)
    return sorted(str(each.relative_to(root)) for each in root.rglob("*"))


def rename_noreplace_onto_something(root: Path) -> object:
    return _renamed(root, "file", "sparse", syscalls.RENAME_NOREPLACE)


def rename_noreplace_onto_nothing(root: Path) -> object:
    return _renamed(root, "dir", "shared/new", syscalls.RENAME_NOREPLACE)


def rename_exchange_a_directory_and_a_file(root: Path) -> object:
    return _renamed(root, "dir", "shared/inner", syscalls.RENAME_EXCHANGE)


def rename_exchange_with_nothing(root: Path) -> object:
    return _renamed(root, "dir", "nothing", syscalls.RENAME_EXCHANGE)


def rename_exchange_with_what_is_inside(root: Path) -> object:
    return _renamed(root, "dir", "dir/inner", syscalls.RENAME_EXCHANGE)


def rename_with_flags_that_exclude_each_other(root: Path) -> object:
    return _renamed(root, "dir", "file", syscalls.RENAME_NOREPLACE | syscalls.RENAME_EXCHANGE)


def _tried(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def locks_of_whole_files(root: Path) -> str:
    with syscalls.opened(root / "file", os.O_RDWR) as one, syscalls.opened(root / "file", os.O_RDWR) as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        return _tried(lambda: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB))


def locks_of_ranges_between_processes(root: Path) -> list[str]:
    def try_both(tell: Callable[[str], None]) -> None:
        with syscalls.opened(root / "file", os.O_RDWR) as other:
            for start in (12, 100):
                tell(_tried(lambda start=start: fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, start)))  # type: ignore[misc]

    with syscalls.opened(root / "file", os.O_RDWR) as one:
        fcntl.lockf(one, fcntl.LOCK_EX, 10, 5)
        return list(in_a_child(try_both).acknowledged)


def locks_of_open_files(root: Path) -> str:
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    with syscalls.opened(root / "file", os.O_RDWR) as one, syscalls.opened(root / "file", os.O_RDWR) as other:
        fcntl.fcntl(one, OFD_SETLK, lock)
        return _tried(lambda: fcntl.fcntl(other, OFD_SETLK, lock))


def append_wins_over_the_offset(root: Path) -> tuple[int, bytes]:
    with syscalls.opened(root / "dir/inner", os.O_RDWR | os.O_APPEND) as file:
        return os.pwrite(file, b"more", 0), os.pread(file, 100, 0)


def truncate_while_opening(root: Path) -> tuple[int, bytes]:
    with syscalls.opened(root / "file", os.O_RDWR | os.O_TRUNC) as file:
        os.pwrite(file, b"x", 10)
        return os.fstat(file).st_size, os.pread(file, 100, 0)


def a_shared_mapping_is_the_file(root: Path) -> bytes:
    with syscalls.opened(root / "file", os.O_RDWR) as file, mmap.mmap(file, 5000) as shared:
        shared[:3] = b"abc"
        shared.flush()
        return os.pread(file, 5, 0)


def a_private_mapping_is_not(root: Path) -> tuple[bytes, bytes]:
    with syscalls.opened(root / "file", os.O_RDONLY) as file, mmap.mmap(file, 5000, mmap.MAP_PRIVATE) as mine:
        mine[:3] = b"abc"
        return mine[:5], os.pread(file, 5, 0)


def read_past_the_page_cache(root: Path) -> bytes:
    with syscalls.opened(root / "file", os.O_RDONLY | os.O_DIRECT) as file, mmap.mmap(-1, 8192) as aligned:
        os.preadv(file, [aligned], 4096)
        return aligned[:]


def a_file_that_is_open_outlives_its_name(root: Path) -> tuple[int, int, bytes]:
    with syscalls.opened(root / "file", os.O_RDWR) as file:
        (root / "file").unlink()
        os.pwrite(file, b"abc", 0)
        return os.fstat(file).st_nlink, os.fstat(file).st_size, os.pread(file, 5, 0)


def a_file_open_for_reading_outlives_its_replacement(root: Path) -> bytes:
    with syscalls.opened(root / "file", os.O_RDONLY) as file:
        os.rename(root / "dir/inner", root / "file")
        return os.pread(file, 5, 0) + (root / "file").read_bytes()


def nothing_is_made_in_a_directory_that_is_gone(root: Path) -> int:
    with syscalls.opened(root / "dir", os.O_RDONLY) as place:
        (root / "dir/inner").unlink()
        (root / "dir").rmdir()
        return os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=place)


def writing_by_a_stranger_clears_setuid_and_setgid(root: Path) -> int:
    with syscalls.opened(root / "setid", os.O_WRONLY) as file:
        os.write(file, b"x")
        return os.fstat(file).st_mode


def truncating_by_the_owner_clears_setuid_and_setgid(root: Path) -> int:
    os.truncate(root / "setid", 5)
    return (root / "setid").stat().st_mode


def giving_away_clears_setuid_and_setgid(root: Path) -> int:
    os.chown(root / "setid", 5, 6)
    return (root / "setid").stat().st_mode


def an_owner_outside_the_group_cannot_set_setgid(root: Path) -> int:
    (root / "setid").chmod(0o2755)
    return (root / "setid").stat().st_mode


def a_setgid_directory_hands_down_its_group(root: Path) -> list[tuple[int, int]]:
    (root / "shared/sub").mkdir()
    os.close(os.open(root / "shared/new", os.O_CREAT | os.O_RDWR, 0o2775))
    found = [(root / "shared" / name).stat() for name in ("sub", "new")]
    return [(each.st_mode, each.st_gid) for each in found]


def a_sticky_directory_keeps_what_belongs_to_others(root: Path) -> None:
    (root / "sticky/inner").unlink()


def a_file_may_be_made_in_a_sticky_directory(root: Path) -> int:
    (root / "sticky/new").touch()
    return (root / "sticky/new").stat().st_uid


def devices_are_for_root(root: Path) -> None:
    os.mknod(root / "shared/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))


def a_device_works(root: Path) -> int:
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    return (root / "null").write_bytes(b"x")


def a_socket_can_be_reached(root: Path) -> str:
    with (
        syscalls.opened(root, os.O_RDONLY | os.O_DIRECTORY) as here,  # a socket's name has 108 bytes at most
        socket.socket(socket.AF_UNIX) as ear,
        socket.socket(socket.AF_UNIX) as mouth,
    ):
        ear.bind(f"/proc/self/fd/{here}/socket")
        ear.listen()
        return _tried(lambda: mouth.connect(f"/proc/self/fd/{here}/socket"))


def an_access_list_lets_one_more_in(root: Path) -> str:
    return (root / "listed").read_text()


def attributes_of_all_sizes(root: Path) -> list[object]:
    os.setxattr(root / "file", "user.empty", b"")
    os.setxattr(root / "file", "user.large", b"x" * 3000)
    return [
        sorted(os.listxattr(root / "file")),
        [os.getxattr(root / "file", name) for name in ("user.empty", "user.large")],
        _tried(lambda: os.setxattr(root / "file", "user.huge", b"x" * 70_000)),
        _tried(lambda: os.setxattr(root / "file", "unknown.name", b"x")),
        _tried(lambda: os.setxattr(root / "file", "user.large", b"x", os.XATTR_CREATE)),
        _tried(lambda: os.setxattr(root / "file", "user.other", b"x", os.XATTR_REPLACE)),
        _tried(lambda: os.removexattr(root / "file", "user.other")),
    ]


def names_that_are_too_long_or_not_utf8(root: Path) -> list[str]:
    (root / os.fsdecode(b"\xff\xfe")).touch()
    return [_tried((root / ("n" * 256)).touch), _tried((root / ("n" * 255)).touch), *sorted(os.listdir(root))]


def times_before_1970_and_after_2106(root: Path) -> list[int]:
    found = []
    for when in (-(10**18) + 1, 2**33 * 10**9 + 7):
        os.utime(root / "file", ns=(when, when))
        found.append((root / "file").stat().st_mtime_ns)
    return found


def sizes_that_are_too_large(root: Path) -> list[str]:
    return [_tried(lambda: os.truncate(root / "file", 1 << 50)), _tried(lambda: os.truncate(root / "file", -1))]


def flushing_files_directories_and_all(root: Path) -> None:
    for name in ("file", "dir"):
        with syscalls.opened(root / name, os.O_RDONLY) as descriptor:
            os.fsync(descriptor)
            os.fdatasync(descriptor)
            syscalls.syncfs(descriptor)


@contextlib.contextmanager
def _unnamed(directory: Path | str, flags: int = 0) -> Iterator[int]:
    descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | flags, 0o4640)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _name_it(unnamed: int, path: Path) -> None:
    os.link(f"/proc/self/fd/{unnamed}", path, src_dir_fd=0, follow_symlinks=True)  # with one, Python calls linkat


def make_an_unnamed_file_and_give_it_a_name(root: Path) -> list[object]:
    with _unnamed(root / "dir") as unnamed:
        os.write(unnamed, b"unnamed")
        before = os.fstat(unnamed)
        names = os.listdir(root / "dir")
        _name_it(unnamed, root / "dir/named")
        after = os.fstat(unnamed)
    return [
        *(before.st_nlink, before.st_size, oct(before.st_mode), before.st_uid, before.st_gid, names),
        *(after.st_nlink, after.st_ino == before.st_ino, (root / "dir/named").read_bytes()),
    ]


def make_an_unnamed_file_that_stays_so(root: Path) -> list[object]:
    with _unnamed(root / "dir", os.O_EXCL) as unnamed:
        os.pwrite(unnamed, b"unnamed", 0)
        refused = _tried(lambda: _name_it(unnamed, root / "dir/named"))
        with syscalls.opened(f"/proc/self/fd/{unnamed}", os.O_RDONLY) as again:
            return [refused, os.read(again, 100), sorted(os.listdir(root / "dir"))]


def an_unnamed_file_takes_over_its_directorys_group(root: Path) -> tuple[int, int, int]:
    with _unnamed(root / "shared") as unnamed:
        status = os.fstat(unnamed)
        return status.st_uid, status.st_gid, status.st_mode


def make_an_unnamed_file_in_a_directory_that_is_gone(root: Path) -> str:
    with syscalls.opened(root / "dir", os.O_RDONLY) as directory:
        shutil.rmtree(root / "dir")
        return _tried(lambda: _unnamed(f"/proc/self/fd/{directory}").__enter__())


# and those that differ


def take_a_range_out(root: Path) -> str:
    return _tried(lambda: _allocated(root, COLLAPSE))


def put_a_range_in(root: Path) -> str:
    return _tried(lambda: _allocated(root, INSERT))


def rename_leaving_a_whiteout(root: Path) -> str:
    return _tried(lambda: _renamed(root, "file", "new", syscalls.RENAME_WHITEOUT))


def make_a_whiteout(root: Path) -> str:
    return _tried(lambda: os.mknod(root / "device", stat.S_IFCHR | 0o600, 0))


def read_flags_of_a_file(root: Path) -> str:
    with syscalls.opened(root / "file", os.O_RDONLY) as file:
        return _tried(lambda: fcntl.ioctl(file, FS_IOC_GETFLAGS, bytes(8)))


def ask_for_the_extents_of_a_file(root: Path) -> str:
    with syscalls.opened(root / "file", os.O_RDONLY) as file:
        return _tried(lambda: fcntl.ioctl(file, FS_IOC_FIEMAP, struct.pack("QQIIII56x", 0, 1 << 20, 0, 0, 1, 0)))


def count_the_links_of_a_directory(root: Path) -> int:
    return root.stat().st_nlink


def read_from_below_and_see_the_access_time_move(root: Path) -> bool:
    before = (root / "file").stat().st_atime_ns
    (root / "file").read_bytes()
    return (root / "file").stat().st_atime_ns > before


SAME: Final[dict[int, tuple[Call, ...]]] = {
    0: (
        seek_data_and_holes_of_a_file_from_below,
        seek_data_after_writing_into_a_hole,
        seek_data_behind_the_end,
        fallocate_behind_the_end,
        fallocate_behind_the_end_keeping_the_size,
        fallocate_a_hole,
        fallocate_a_hole_without_keeping_the_size,
        fallocate_zeros,
        fallocate_unsharing,
        fallocate_what_is_open_for_reading,
        copy_file_range_to_a_new_file,
        copy_file_range_inside_a_file,
        copy_file_range_onto_itself,
        rename_noreplace_onto_something,
        rename_noreplace_onto_nothing,
        rename_exchange_a_directory_and_a_file,
        rename_exchange_with_nothing,
        rename_exchange_with_what_is_inside,
        rename_with_flags_that_exclude_each_other,
        locks_of_whole_files,
        locks_of_ranges_between_processes,
        locks_of_open_files,
        append_wins_over_the_offset,
        truncate_while_opening,
        a_shared_mapping_is_the_file,
        a_private_mapping_is_not,
        read_past_the_page_cache,
        a_file_that_is_open_outlives_its_name,
        a_file_open_for_reading_outlives_its_replacement,
        nothing_is_made_in_a_directory_that_is_gone,
        giving_away_clears_setuid_and_setgid,
        a_device_works,
        a_socket_can_be_reached,
        attributes_of_all_sizes,
        names_that_are_too_long_or_not_utf8,
        times_before_1970_and_after_2106,
        sizes_that_are_too_large,
        flushing_files_directories_and_all,
        make_an_unnamed_file_and_give_it_a_name,
        make_an_unnamed_file_that_stays_so,
        make_an_unnamed_file_in_a_directory_that_is_gone,
    ),
    OWNER: (
        truncating_by_the_owner_clears_setuid_and_setgid,
        an_owner_outside_the_group_cannot_set_setgid,
        an_access_list_lets_one_more_in,
    ),
    STRANGER: (
        writing_by_a_stranger_clears_setuid_and_setgid,
        a_setgid_directory_hands_down_its_group,
        an_unnamed_file_takes_over_its_directorys_group,
        a_sticky_directory_keeps_what_belongs_to_others,
        a_file_may_be_made_in_a_sticky_directory,
        devices_are_for_root,
        an_access_list_lets_one_more_in,
    ),
}
# what is done, our answer, ext4's; each is named in the driver's README
DIFFERENT: Final[tuple[tuple[Call, object, object], ...]] = (
    (take_a_range_out, "ENOTSUP", "done"),
    (put_a_range_in, "ENOTSUP", "done"),
    (rename_leaving_a_whiteout, "EINVAL", "done"),
    (make_a_whiteout, "EPERM", "done"),
    (read_flags_of_a_file, "ENOTTY", "done"),
    (ask_for_the_extents_of_a_file, "ENOTSUP", "done"),
    (count_the_links_of_a_directory, 1, 5),
    (read_from_below_and_see_the_access_time_move, False, True),
)
CALLS: Final = [(uid, call) for uid, calls in SAME.items() for call in calls]


@attrs.frozen
class Pair:
    """Two directories of one ext4 that hold a tree for each call: shown by the union, and plain."""

    union: Path
    plain: Path


def _name(uid: int, call: Call) -> str:
    return f"{call.__name__}-{uid}"


def _fill_all(root: Path) -> None:
    for uid, call in [*CALLS, *((0, call) for call, _, _ in DIFFERENT)]:
        (root / _name(uid, call)).mkdir()
        _fill(root / _name(uid, call))


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    base = Path(tempfile.mkdtemp(prefix="lamina-calls-"))  # pytest's own directories are closed to others
    base.chmod(0o755)
    try:
        (base / "disk").mkdir()
        with ext4(base / "disk", base / "image", 256) as disk:
            # as ext4 is mounted by default: access times move
            subprocess.run(["mount", "-o", "remount,strictatime", disk], check=True)
            (disk / "plain").mkdir()
            _fill_all(disk / "plain")
            with _served(FuseDriver(disk / "layers"), base / "union") as union:
                yield Pair(union, disk / "plain")
    finally:
        shutil.rmtree(base)


@contextlib.contextmanager
def _served(driver: FuseDriver, target: Path) -> Iterator[Path]:
    base, top = Layer(1, Kind.ACTIVE), Layer(2, Kind.ACTIVE, (1,))
    driver.start()
    try:
        driver.prepare(base)
        _fill_all(driver.changes(base).root)
        driver.commit(Layer(1, Kind.COMMITTED))
        driver.prepare(top)
        target.mkdir()
        mount_all(driver.mounts(top), target)
        try:
            yield target
            assert not (driver.home / "2/server.log").read_text()
        finally:
            unmount(target, lazy=True)
            target.rmdir()
    finally:
        for layer_id in (2, 1):
            driver.remove(layer_id)


def _answer(call: Call, root: Path, uid: int) -> str:
    """What the call returns or raises, as a word."""

    def as_user(tell: Callable[[str], None]) -> None:
        if uid:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        try:
            tell(repr(call(root)))
        except OSError as error:
            tell(errno.errorcode[error.errno or 0])

    death = in_a_child(as_user)
    assert not death.error, death.error
    (word,) = death.acknowledged
    return word


@pytest.mark.parametrize(("uid", "call"), CALLS, ids=[_name(*each) for each in CALLS])
def test_the_union_answers_as_ext4_does(pair: Pair, uid: int, call: Call) -> None:
    ours, theirs = (_answer(call, root / _name(uid, call), uid) for root in (pair.union, pair.plain))

    assert ours == theirs


@pytest.mark.parametrize(("call", "ours", "theirs"), DIFFERENT, ids=[each[0].__name__ for each in DIFFERENT])
def test_the_union_differs_from_ext4_as_its_readme_says(pair: Pair, call: Call, ours: object, theirs: object) -> None:
    answers = [_answer(call, root / _name(0, call), 0) for root in (pair.union, pair.plain)]

    assert answers == [repr(ours), repr(theirs)]

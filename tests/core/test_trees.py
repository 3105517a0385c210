"""Copying, measuring and removing real trees."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.filling import Filler
from lamina.mount import Mount, bind, mount_all, unmount
from lamina.trees import copy_tree, measure_tree, remove_tree, sync_tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and mounts need root")
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def manifest(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything that a copy has to keep, by path, read in another way than the code under test reads it."""
    found: dict[bytes, tuple[object, ...]] = {}
    groups: dict[tuple[int, int], bytes] = {}
    top = os.fsencode(root)
    for directory, names, files in os.walk(top):
        names.sort()
        for name in [b".", *sorted(names + files)] if directory == top else sorted(names + files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            first = groups.setdefault((status.st_dev, status.st_ino), path[len(top) :])
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            xattrs = {
                each: os.getxattr(path, each, follow_symlinks=False)
                for each in os.listxattr(path, follow_symlinks=False)
            }
            shape = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev)
            found[path[len(top) :]] = (*shape, status.st_size * stat.S_ISREG(status.st_mode), content, xattrs, first)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "source"
    tree.mkdir()
    return tree


def copied(source: Path) -> Path:
    target = source.parent / "target"
    copy_tree(source, target)
    return target


def as_an_ordinary_user(tree: Path, action: Callable[[Path], None]) -> None:
    """Do it in a child process that owns `tree` and has no powers."""
    if os.geteuid() == 0:
        for place in [
            tree.parent,
            *(Path(where) / name for where, dirs, files in os.walk(tree) for name in dirs + files),
        ]:
            os.lchown(place, 12345, 12345)
        os.lchown(tree, 12345, 12345)
    here = os.open(tree.parent, os.O_RDONLY | os.O_DIRECTORY)  # the way to it may be closed to others
    child = os.fork()
    if not child:
        try:
            os.fchdir(here)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(12345, 12345, 12345)
                os.setresuid(12345, 12345, 12345)
            action(Path(tree.name))
            os._exit(0)
        except BaseException:  # noqa: BLE001  # whatever it is, the child must not go on as a second pytest
            traceback.print_exc()
            os._exit(1)
    os.close(here)
    assert os.waitpid(child, 0)[1] == 0


@needs_root
def test_a_copy_keeps_owners_modes_times_attributes_and_capabilities(source: Path) -> None:
    file = source / "file"
    file.write_text("x")
    os.chown(file, 1000, 4000000000)
    os.chmod(file, 0o6751)
    for name, value in {"user.a": b"\0\xff", "trusted.b": b"", "security.capability": CAPABILITY}.items():
        os.setxattr(file, name, value)
    os.utime(file, ns=(1, -1234567890))
    (source / "sticky").mkdir()
    os.chmod(source / "sticky", 0o3777)
    os.utime(source / "sticky", ns=(5, 987654321123456789))
    os.setxattr(source, "user.root", b"1")
    os.utime(source, ns=(5, 77))

    assert manifest(copied(source)) == manifest(source)


@needs_root
def test_a_copy_keeps_access_control_lists(source: Path) -> None:
    (source / "file").write_text("x")
    (source / "dir").mkdir()
    subprocess.run(["setfacl", "-m", "u:1:rw,g:2:r", source / "file"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1:rwx", source / "dir"], check=True)
    (source / "dir" / "heir").write_text("y")

    assert manifest(copied(source)) == manifest(source)


@needs_root
def test_a_copy_keeps_devices_fifos_sockets_and_links(source: Path) -> None:
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(source / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(source / "block", stat.S_IFBLK | 0o600, os.makedev(259, 1000000))
    os.mkfifo(source / "fifo", 0o622)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(source / "sock"))
    (source / "dangling").symlink_to("/nowhere/at/all")
    (source / "long").symlink_to("a" * 4000)
    os.lchown(source / "long", 7, 8)
    os.link(source / "long", source / "long2", follow_symlinks=False)
    os.link(source / "fifo", source / "fifo2")
    os.setxattr(source / "dangling", "trusted.onlink", b"1", follow_symlinks=False)
    os.utime(source / "dangling", ns=(3, 4), follow_symlinks=False)

    assert manifest(copied(source)) == manifest(source)


def test_a_copy_keeps_hard_links_across_directories(source: Path) -> None:
    (source / "a").mkdir()
    (source / "z").mkdir()
    (source / "a" / "one").write_text("shared")
    os.link(source / "a" / "one", source / "z" / "two")

    target = copied(source)
    (target / "z" / "two").write_text("changed")

    assert (target / "a" / "one").read_text() == "changed"
    assert (source / "a" / "one").read_text() == "shared"


def test_a_copy_keeps_holes(source: Path) -> None:
    with (source / "sparse").open("wb") as file:
        file.seek(300 << 20)
        file.write(b"end")
        file.truncate(400 << 20)

    target = copied(source)

    assert (target / "sparse").stat().st_size == 400 << 20
    assert (target / "sparse").stat().st_blocks * 512 < 1 << 20
    with (target / "sparse").open("rb") as file:
        file.seek(300 << 20)
        assert file.read(3) == b"end"


@pytest.mark.parametrize("name", [b"\xff\xfe\x80", b"new\nline", b"n" * 255, b"-rf", b"sp ace", b"*"])
def test_a_copy_keeps_any_name(source: Path, name: bytes) -> None:
    (source / os.fsdecode(name)).write_text("x")

    assert os.listdir(os.fsencode(copied(source))) == [name]


def test_trees_deeper_than_a_path_may_be_long_are_copied_measured_and_removed(source: Path) -> None:
    depth = 3000
    directory = os.open(source, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=directory)
        child = os.open("deeper", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = child
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.link("bottom", "bottom2", src_dir_fd=directory, dst_dir_fd=directory)
    os.close(directory)

    target = copied(source)

    assert measure_tree(target).inodes == measure_tree(source).inodes == depth + 2
    remove_tree(source)
    remove_tree(target)
    assert not target.exists()


@needs_root
@pytest.mark.parametrize("name", ["plain", "with space\\and backslash"])
def test_a_copy_has_what_lies_beneath_mounts(tmp_path: Path, name: str) -> None:
    source, other = tmp_path / name, tmp_path / "other"
    for directory in (source / "mnt", other):
        directory.mkdir(parents=True)
    (source / "mnt" / "beneath").write_text("x")
    (source / "mnt").chmod(0o1770)
    (source / "file").write_text("beneath")
    (other / "secret").write_text("y")
    expected = manifest(source)
    mount_all([bind(other, writable=False)], source / "mnt")
    mount_all([bind(other / "secret", writable=False)], source / "file")
    try:
        copy_tree(source, tmp_path / "target")
    finally:
        unmount(source / "file")
        unmount(source / "mnt")

    assert manifest(tmp_path / "target") == expected


@needs_root
def test_a_copy_inherits_nothing_from_the_place_where_it_is_made(source: Path, tmp_path: Path) -> None:
    (source / "dir").mkdir()
    (source / "dir" / "file").write_text("x")
    heir = tmp_path / "heir"
    heir.mkdir()
    subprocess.run(["setfacl", "-d", "-m", "u:1:rwx", heir], check=True)
    os.chown(heir, 0, 5)
    heir.chmod(0o2755)
    (heir / "target").mkdir()
    os.setxattr(heir / "target", "user.old", b"1")

    copy_tree(source, heir / "target")

    assert manifest(heir / "target") == manifest(source)


def test_a_tree_is_not_copied_into_itself(source: Path) -> None:
    (source / "dir").mkdir()

    with pytest.raises(OSError, match="into itself"):
        copy_tree(source, source / "dir" / "target")


def test_a_link_instead_of_a_tree_is_not_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)

    with pytest.raises(NotADirectoryError):
        copy_tree(tmp_path / "link", tmp_path / "target")


def test_a_copy_survives_directories_that_become_links_meanwhile(source: Path, tmp_path: Path) -> None:
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "secret").write_text("x")
    for number in range(40):
        (source / f"{number:02}").mkdir()

    def swap() -> None:
        for directory in source.iterdir():
            if directory.name.isdecimal() and not directory.is_symlink():
                directory.rmdir()
                directory.symlink_to(secret)

    copy_tree(source, tmp_path / "target", checkpoint=swap)

    assert not list((tmp_path / "target").rglob("secret"))


def test_many_files_in_many_directories_are_copied_with_the_times_of_all(source: Path) -> None:
    for place in [source, *(source / f"{number}" / "sub" for number in range(12))]:
        place.mkdir(parents=True, exist_ok=True)
        for number in range(300):  # more than one batch
            (place / f"file{number}").write_text(str(number))
        os.link(place / "file7", source / f"link{place.parent.name}")
        os.utime(place, ns=(7, 7))

    assert manifest(copied(source)) == manifest(source)


def test_a_stopped_filler_breaks_off(source: Path) -> None:
    (source / "large").write_bytes(b"x" * (1 << 20))
    filler = Filler()
    filler.stop()

    with (source / "large").open("rb") as old, (source / "new").open("wb") as new, pytest.raises(InterruptedError):
        filler.fill(old.fileno(), new.fileno(), os.fstat(old.fileno()))


@needs_root
def test_an_attribute_that_the_target_cannot_keep_is_an_error_that_names_both(source: Path, tmp_path: Path) -> None:
    (source / "dir").mkdir()
    (source / "dir" / "file").write_text("x")
    os.setxattr(source / "dir" / "file", "user.precious", b"x")
    poor = tmp_path / "poor"
    poor.mkdir()
    mount_all([Mount("ramfs", "ramfs")], poor)
    try:
        with pytest.raises(OSError, match=r"user\.precious") as caught:
            copy_tree(source, poor / "target")
    finally:
        unmount(poor)

    assert caught.value.filename == "dir/file"


@needs_root
def test_removing_stops_at_a_mount_and_keeps_what_is_mounted(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    (source / "mnt").mkdir()
    mount_all([bind(other, writable=True)], source / "mnt")
    try:
        with pytest.raises(OSError, match="mounted") as caught:
            remove_tree(source)
    finally:
        unmount(source / "mnt")

    assert caught.value.errno == errno.EBUSY
    assert (other / "precious").exists()


def test_removing_does_not_follow_links(source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    (source / "link").symlink_to(outside)

    remove_tree(source)

    assert (outside / "file").exists()
    assert not source.exists()


def test_removing_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    remove_tree(tmp_path / "missing")
    remove_tree(tmp_path / "missing" / "deeper")


def test_removing_opens_directories_that_forbid_it(source: Path) -> None:
    """As an ordinary user: root is never stopped by modes."""
    for number, mode in enumerate((0o000, 0o100, 0o200, 0o400, 0o500, 0o600)):
        directory = source / str(number)
        (directory / "sub").mkdir(parents=True)
        (directory / "sub" / "file").write_text("x")
        (directory / "sub").chmod(mode)
        directory.chmod(mode)

    as_an_ordinary_user(source, remove_tree)

    assert not source.exists()


def test_an_ordinary_user_copies_read_only_files_with_their_attributes(source: Path) -> None:
    (source / "file").write_text("x")
    os.setxattr(source / "file", "user.kept", b"1")
    (source / "file").chmod(0o444)
    source.chmod(0o555)
    expected = manifest(source)

    as_an_ordinary_user(source, lambda tree: copy_tree(tree, tree.parent / "target"))

    kept = {path: entry[:1] + entry[3:] for path, entry in manifest(source.parent / "target").items()}
    assert kept == {path: entry[:1] + entry[3:] for path, entry in expected.items()}


@needs_root
def test_removing_clears_immutable_flags(source: Path) -> None:
    (source / "file").write_text("x")
    changed = subprocess.run(["chattr", "+i", source / "file", source], check=False, capture_output=True)
    if changed.returncode:
        pytest.skip("this file system has no immutable flag")

    remove_tree(source)

    assert not source.exists()


def test_a_failing_checkpoint_stops_the_copy(source: Path, tmp_path: Path) -> None:
    for number in range(10):
        (source / str(number)).write_text("x")
    calls: Iterator[int] = iter(range(100))

    def stop_at_the_third() -> None:
        if next(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        copy_tree(source, tmp_path / "target", checkpoint=stop_at_the_third)

    assert len(list((tmp_path / "target").iterdir())) < 10


def test_an_error_names_the_file(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "dir").mkdir()
    (source / "dir" / "broken").write_text("x")

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(Filler, "fill", refuse)

    with pytest.raises(OSError, match="broken disk") as caught:
        copied(source)

    assert caught.value.filename == "dir/broken"


def test_measuring_counts_a_file_with_two_names_once(source: Path) -> None:
    (source / "a").write_bytes(b"x" * 100_000)
    alone = measure_tree(source)
    os.link(source / "a", source / "b")

    assert measure_tree(source) == alone
    assert alone.size >= 100_000


def test_flushing_a_tree_succeeds(source: Path) -> None:
    sync_tree(source)


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
trees = st.recursive(
    st.binary(max_size=200) | st.integers(0, 1 << 22),
    lambda children: st.dictionaries(names, children, max_size=5),
    max_leaves=25,
)


def build(place: bytes, tree: object) -> None:
    if isinstance(tree, dict):
        os.mkdir(place)
        for name, child in tree.items():
            build(os.path.join(place, name), child)
    elif isinstance(tree, int):
        with open(place, "wb") as file:
            file.seek(tree)
            file.write(b"after a hole")
    elif isinstance(tree, bytes):
        with open(place, "wb") as file:
            file.write(tree)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=st.dictionaries(names, trees, max_size=6))
def test_a_copy_of_any_tree_equals_it(tmp_path: Path, tree: dict[bytes, object]) -> None:
    place = tmp_path / "tree"
    target = tmp_path / "target"
    build(os.fsencode(place), tree)
    try:
        copy_tree(place, target)

        assert manifest(target) == manifest(place)
    finally:
        remove_tree(place)
        remove_tree(target)

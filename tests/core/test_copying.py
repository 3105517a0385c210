"""Copying real trees."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.filling import Filler
from lamina.mount import Mount, bind, mount_all, unmount
from lamina.trees import copy_tree, remove_tree, shares_blocks, sync_tree

needs_root = pytest.mark.needs_root


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


def copied(source: Path) -> Path:
    target = source.parent / "target"
    copy_tree(source, target)
    return target


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


def test_an_ordinary_user_copies_read_only_files_with_their_attributes(
    source: Path, as_an_ordinary_user: Callable[[Path, Callable[[Path], None]], None]
) -> None:
    (source / "file").write_text("x")
    os.setxattr(source / "file", "user.kept", b"1")
    (source / "file").chmod(0o444)
    source.chmod(0o555)
    expected = manifest(source)

    as_an_ordinary_user(source, lambda tree: copy_tree(tree, tree.parent / "target"))

    kept = {path: entry[:1] + entry[3:] for path, entry in manifest(source.parent / "target").items()}
    assert kept == {path: entry[:1] + entry[3:] for path, entry in expected.items()}


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


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Path]:
    """A file system that shares blocks."""
    if os.geteuid() != 0 or shutil.which("mkfs.btrfs", path="/usr/sbin:/sbin") is None:
        pytest.skip("needs root and mkfs.btrfs")
    disk, place = tmp_path / "disk", tmp_path / "sharing"
    with disk.open("wb") as file:
        file.truncate(512 << 20)
    place.mkdir()
    subprocess.run(["/usr/sbin/mkfs.btrfs", "-q", disk], check=True)
    if subprocess.run(["mount", "-o", "loop", disk, place], check=False, capture_output=True).returncode:
        pytest.skip("this kernel has no btrfs or no loop devices")
    try:
        yield place
    finally:
        unmount(place, lazy=True)


def test_where_blocks_can_be_shared_a_copy_takes_no_room(sharing: Path) -> None:
    (sharing / "source").mkdir()
    (sharing / "source" / "large").write_bytes(os.urandom(1 << 20) * 100)
    sync_tree(sharing)
    before = os.statvfs(sharing).f_bfree

    copy_tree(sharing / "source", sharing / "target")
    sync_tree(sharing)

    used = (before - os.statvfs(sharing).f_bfree) * os.statvfs(sharing).f_frsize
    assert used < 10 << 20
    assert manifest(sharing / "target") == manifest(sharing / "source")
    assert shares_blocks(sharing)


def test_a_copy_onto_another_file_system_is_as_faithful(source: Path, sharing: Path) -> None:
    (source / "dir").mkdir()
    (source / "dir" / "data").write_bytes(os.urandom(3 << 20))
    os.link(source / "dir" / "data", source / "again")
    with (source / "sparse").open("wb") as file:
        file.seek(30 << 20)
        file.write(b"end")
        file.truncate(40 << 20)

    copy_tree(source, sharing / "target")

    assert manifest(sharing / "target") == manifest(source)
    assert (sharing / "target" / "sparse").stat().st_blocks * 512 < 1 << 20


@attrs.frozen
class Node:
    """One entry of a random tree; `same` is a hard link to something made before, or else a file."""

    shape: str  # file, hole, link, fifo, socket, device, same or directory
    content: bytes
    mode: int
    owner: int
    mtime_ns: int
    xattrs: dict[str, bytes]
    children: dict[bytes, Node]


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


def nodes(children: st.SearchStrategy[dict[bytes, Node]], shapes: str) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        shape=st.sampled_from(shapes.split()),
        content=st.binary(min_size=1, max_size=300).filter(lambda text: b"\0" not in text),
        mode=st.integers(0, 0o7777),
        owner=st.sampled_from([0, 1, 1000, 1 << 31]),
        mtime_ns=st.integers(-(1 << 60), 1 << 61),
        xattrs=st.dictionaries(st.sampled_from(["user.a", "user.b", "trusted.c"]), st.binary(max_size=40), max_size=3),
        children=children,
    )


leaves = nodes(st.just({}), "file file hole link fifo socket device same")


trees = st.recursive(
    st.dictionaries(names, leaves, max_size=6),
    lambda below: st.dictionaries(names, leaves | nodes(below, "directory"), max_size=6),
    max_leaves=12,
)


def build(place: bytes, tree: dict[bytes, Node], made: list[bytes]) -> None:
    for name, node in tree.items():
        path = os.path.join(place, name)
        if node.shape == "same" and made:
            os.link(made[len(node.content) % len(made)], path, follow_symlinks=False)
            continue
        make(path, node)
        if node.shape == "directory":
            build(path, node.children, made)
        else:
            made.append(path)
        dress(path, node)


def make(path: bytes, node: Node) -> None:
    if node.shape == "directory":
        os.mkdir(path)
    elif node.shape == "link":
        os.symlink(node.content, path)
    elif node.shape in _SPECIAL:
        os.mknod(path, _SPECIAL[node.shape], os.makedev(len(node.content), 7) if node.shape == "device" else 0)
    else:
        with open(path, "wb") as file:
            file.seek(len(node.content) << 13 if node.shape == "hole" else 0)
            file.write(node.content)


_SPECIAL = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "device": stat.S_IFCHR}


def dress(path: bytes, node: Node) -> None:
    os.lchown(path, node.owner, node.owner)
    for name, value in node.xattrs.items():
        if name.startswith("trusted.") or node.shape in {"file", "hole", "same", "directory"}:
            os.setxattr(path, name, value, follow_symlinks=False)
    if node.shape != "link":
        os.chmod(path, node.mode)
    os.utime(path, ns=(1, node.mtime_ns), follow_symlinks=False)


@needs_root
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=trees)
def test_a_copy_of_any_tree_equals_it(tmp_path: Path, tree: dict[bytes, Node]) -> None:
    place, target = tmp_path / "tree", tmp_path / "target"
    place.mkdir()
    try:
        build(os.fsencode(place), tree, [])

        copy_tree(place, target)

        assert manifest(target) == manifest(place)
    finally:
        remove_tree(place)
        remove_tree(target)

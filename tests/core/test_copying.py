"""Copying real trees: each kind of thing, each kind of trouble."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lamina.filling import Filler
from lamina.mount import Mount, bind, mount_all, unmount
from lamina.trees import copy_tree

Manifest = Callable[[Path], dict[bytes, tuple[object, ...]]]

needs_root = pytest.mark.needs_root


CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def copied(source: Path) -> Path:
    target = source.parent / "target"
    copy_tree(source, target)
    return target


@needs_root
def test_a_copy_keeps_owners_modes_times_attributes_and_capabilities(source: Path, manifest: Manifest) -> None:
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
def test_a_copy_keeps_access_control_lists(source: Path, manifest: Manifest) -> None:
    (source / "file").write_text("x")
    (source / "dir").mkdir()
    subprocess.run(["setfacl", "-m", "u:1:rw,g:2:r", source / "file"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1:rwx", source / "dir"], check=True)
    (source / "dir" / "heir").write_text("y")

    assert manifest(copied(source)) == manifest(source)


@needs_root
def test_a_copy_keeps_devices_fifos_sockets_and_links(source: Path, manifest: Manifest) -> None:
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
def test_a_copy_has_what_lies_beneath_mounts(tmp_path: Path, name: str, manifest: Manifest) -> None:
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
def test_a_copy_inherits_nothing_from_the_place_where_it_is_made(
    source: Path, tmp_path: Path, manifest: Manifest
) -> None:
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


def test_many_files_in_many_directories_are_copied_with_the_times_of_all(source: Path, manifest: Manifest) -> None:
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
    source: Path, as_an_ordinary_user: Callable[[Path, Callable[[Path], None]], None], manifest: Manifest
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

"""Live use: mmap, unlinked files, readdir while changing, locks, stable inodes: what programs rely on."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from lamina.conformance.harness import Room, grow, mkdir, mounted, read, write
from lamina.conformance.marks import needs, needs_root
from lamina.driver import Ability
from lamina.snapshotter import Snapshotter


def test_a_shared_mapping_of_a_lower_file_reaches_the_file(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x" * 8192))
    snapshots.prepare("child", "base")

    with (
        mounted(room, snapshots, "child") as root,
        (root / "file").open("r+b") as file,
        mmap.mmap(file.fileno(), 8192) as memory,
    ):
        memory[5000:5005] = b"hello"
        memory.flush()
        assert (root / "file").read_bytes()[5000:5005] == b"hello"

    assert read(snapshots, "child", "file")[5000:5005] == "hello"
    assert "hello" not in read(snapshots, "base", "file")


def test_a_private_mapping_does_not_reach_the_file(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x" * 4096))
    snapshots.prepare("child", "base")

    with (
        mounted(room, snapshots, "child") as root,
        (root / "file").open("rb") as file,
        mmap.mmap(file.fileno(), 4096, access=mmap.ACCESS_COPY) as memory,
    ):
        memory[:5] = b"hello"

    assert read(snapshots, "child", "file") == "x" * 4096


def test_a_file_unlinked_while_open_lives_until_it_is_closed(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("lower", "lower text"))
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root:
        (root / "upper").write_text("upper text")
        for name in ("lower", "upper"):
            with (root / name).open("r+") as file:
                (root / name).unlink()
                assert file.read() == f"{name} text"
                file.write("!")
                file.seek(0)
                assert file.read() == f"{name} text!"
                assert not (root / name).exists()

    assert read(snapshots, "base", "lower") == "lower text"


def test_an_open_file_keeps_its_text_when_another_takes_its_name(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "old"))
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root, (root / "file").open() as old:
        (root / "new").write_text("new")
        (root / "new").rename(root / "file")

        assert old.read() == "old"
        assert (root / "file").read_text() == "new"


def test_a_directory_can_be_emptied_while_it_is_read(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", mkdir("dir"), *(write(f"dir/lower{number}") for number in range(300)))
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root:
        for number in range(300):
            (root / f"dir/upper{number}").touch()
        met = []
        with os.scandir(root / "dir") as entries:
            for entry in entries:
                met.append(entry.name)
                os.unlink(entry.path)

        assert len(met) == len(set(met)) == 600
        assert os.listdir(root / "dir") == []


def test_files_made_while_a_directory_is_read_do_not_hide_or_repeat_others(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", mkdir("dir"), *(write(f"dir/{number}") for number in range(300)))
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root:
        met = []
        with os.scandir(root / "dir") as entries:
            for number, entry in enumerate(entries):
                met.append(entry.name)
                if number < 100:
                    (root / f"dir/new{number}").touch()

    old = [name for name in met if not name.startswith("new")]
    assert sorted(old) == sorted(map(str, range(300)))
    assert len(met) == len(set(met))


def test_inode_numbers_are_stable_and_distinct_within_a_mount(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", mkdir("dir"), *(write(f"dir/{number}", "x") for number in range(20)))
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root:
        paths = [root, root / "dir", *(root / f"dir/{number}" for number in range(20))]
        first = {path: _identity(path) for path in paths}
        os.listdir(root / "dir")
        again = {path: _identity(path) for path in paths}

        assert first == again
        assert len(set(first.values())) == len(paths)


def test_a_files_inode_number_stays_when_it_is_copied_up(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x"), mkdir("dir"))
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root:
        before = (root / "file").stat().st_ino, (root / "dir").stat().st_ino
        (root / "file").write_text("y")
        (root / "dir/new").touch()

        assert ((root / "file").stat().st_ino, (root / "dir").stat().st_ino) == before


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def test_readdir_and_stat_agree_on_types_and_inodes(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("lower", "x"), mkdir("dir"))
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root:
        (root / "upper").write_text("y")
        (root / "link").symlink_to("lower")
        with os.scandir(root) as entries:
            for entry in entries:
                status = os.lstat(entry.path)
                assert entry.is_dir(follow_symlinks=False) == os.path.isdir(entry.path)
                assert entry.is_symlink() == (entry.name == "link")
                assert entry.inode() == status.st_ino, entry.name


def test_a_working_directory_can_be_named(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", mkdir("one/two"))
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root:
        told = subprocess.run(["/bin/pwd", "-P"], cwd=root / "one/two", check=True, capture_output=True, text=True)

    assert told.stdout.strip() == f"{root}/one/two"


def test_programs_of_a_lower_layer_run(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("hello", "#!/bin/sh\necho hello", mode=0o755))
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root:
        told = subprocess.run([root / "hello"], check=True, capture_output=True, text=True)

    assert told.stdout == "hello\n"


def test_locks_exclude(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("lock", "x"))
    snapshots.prepare("child", "base")

    with (
        mounted(room, snapshots, "child") as root,
        (root / "lock").open("r+") as first,
        (root / "lock").open("r+") as second,
    ):
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_socket_and_a_fifo_carry_messages(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", lambda root: os.mkfifo(root / "fifo"))
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root:
        writer = threading.Thread(target=(root / "fifo").write_text, args=("through the fifo",))
        writer.start()
        assert (root / "fifo").read_text() == "through the fifo"
        writer.join()
        directory = os.open(root, os.O_RDONLY)
        name = f"/proc/self/fd/{directory}/socket"  # a socket's name may have 107 bytes only
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(name)
            server.listen()
            client.connect(name)
            client.sendall(b"through the socket")
            with server.accept()[0] as accepted:
                assert accepted.recv(100) == b"through the socket"
        os.close(directory)


@needs_root
def test_a_setuid_program_keeps_its_mark_when_only_its_time_changes(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("su", "x", mode=0o4755))
    grow(room, snapshots, "child", lambda root: os.utime(root / "su", (1, 1)), parent="base")

    with snapshots.look("child") as root:
        assert (root / "su").stat().st_mode & 0o7777 == 0o4755


@needs(Ability.TMPFILE)
def test_an_unnamed_file_can_be_given_a_name(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", mkdir("dir"))
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root:
        unnamed = os.open(root / "dir", os.O_TMPFILE | os.O_RDWR, 0o640)
        os.write(unnamed, b"named at last")
        directory = os.open(root / "dir", os.O_RDONLY)
        os.link(f"/proc/self/fd/{unnamed}", "name", dst_dir_fd=directory, follow_symlinks=True)
        os.close(unnamed)
        os.close(directory)

    assert read(snapshots, "child", "dir/name") == "named at last"


def test_sync_and_statvfs_work(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x"))
    snapshots.prepare("child", "base")

    with mounted(room, snapshots, "child") as root, (root / "file").open("r+") as file:
        file.write("y")
        file.flush()
        os.fsync(file.fileno())
        assert os.statvfs(root).f_bsize > 0

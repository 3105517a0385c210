"""Mounts and looks: counted, remembered, shared, gone astray, and in other namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rooms import Room, grow

from lamina.errors import (
    BadRequest,
    InUse,
    NotFound,
    WrongKind,
)
from lamina.mount import is_mounted, mountinfo
from lamina.snapshotter import Snapshotter
from lamina_vfs.driver import VfsDriver

pytestmark = pytest.mark.needs_root

# mounts


def test_mounts_at_one_target_are_counted(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    place = room.place()
    snapshots.mount("key", place)
    snapshots.mount("key", place)

    snapshots.unmount(place)
    assert is_mounted(place)
    snapshots.unmount(place)
    assert not is_mounted(place)
    with pytest.raises(NotFound):
        snapshots.unmount(place)


def test_a_mount_outlives_the_process_and_another_can_end_it(room: Room) -> None:
    place = room.place()
    with room.open() as snapshots:
        grow(snapshots, place, "base")
        snapshots.prepare("key", "base")
        snapshots.mount("key", place)

    with room.open() as snapshots:
        assert (place / "file").read_text() == "x"
        with pytest.raises(InUse, match=str(place)):
            snapshots.remove("key")
        snapshots.unmount(place)
        snapshots.remove("key")


def test_closing_lets_go_of_what_nobody_sees_and_of_nothing_else(tmp_path: Path) -> None:
    released: list[int] = []

    class Telling(VfsDriver):
        def release(self, layer_id: int) -> None:
            released.append(layer_id)

    with Snapshotter(tmp_path, Telling(tmp_path / "vfs/layers")) as snapshots:
        for key in ("seen", "unseen"):
            snapshots.prepare(key)
        (tmp_path / "at").mkdir()
        snapshots.mount("seen", tmp_path / "at")

    assert released == [2]
    with Snapshotter(tmp_path, Telling(tmp_path / "vfs/layers")) as snapshots:
        snapshots.unmount(tmp_path / "at")
    assert released == [2, 1]


def test_what_we_look_at_is_unmounted_also_in_a_store_with_a_relative_name(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(room.path)
    store = Path("store")

    with Snapshotter(store, VfsDriver(store / "vfs/layers")) as snapshots:
        grow(snapshots, room.place(), "base")
        assert [change.path for change in snapshots.changes("base")] == [b"", b"file"]

        assert os.listdir(store / "vfs/mnt") == []


def test_the_second_mount_outlives_the_first(room: Room, snapshots: Snapshotter) -> None:
    grow(snapshots, room.place(), "base")
    snapshots.prepare("key", "base")
    first, second = room.place("first"), room.place("second")
    snapshots.mount("key", first)
    snapshots.mount("key", second)

    snapshots.unmount(first)
    (second / "file").write_text("y")
    snapshots.mount("key", first)

    assert (first / "file").read_text() == "y"
    snapshots.unmount(first)
    snapshots.unmount(second)
    snapshots.remove("key")


def test_a_look_at_a_mounted_snapshot_is_live_and_read_only(room: Room, snapshots: Snapshotter) -> None:
    grow(snapshots, room.place(), "base")
    snapshots.prepare("key", "base")
    place = room.place()

    with snapshots.look("key") as root:
        snapshots.mount("key", place)  # a look that came first does not make the mount read-only
        (place / "file").write_text("changed")
        assert (root / "file").read_text() == "changed"
        with pytest.raises(OSError, match="Read-only"):
            (root / "file").write_text("no")
    (place / "file").write_text("the look's end is not the mount's")
    snapshots.unmount(place)


def test_what_is_looked_at_is_not_removed(room: Room, snapshots: Snapshotter) -> None:
    grow(snapshots, room.place(), "base")
    snapshots.prepare("key", "base")

    for key in ("key", "base"):
        with snapshots.look(key), pytest.raises(InUse):
            snapshots.remove(key)
    with snapshots.look("key"), pytest.raises(InUse, match="looked at"):
        snapshots.commit("name", "key")
    snapshots.commit("name", "key")


def test_a_look_leaves_nothing(room: Room, snapshots: Snapshotter) -> None:
    grow(snapshots, room.place(), "base")
    with pytest.raises(ZeroDivisionError), snapshots.look("base") as root:
        raise ZeroDivisionError

    assert not root.exists()
    assert os.listdir(room.root / room.driver.name / "mnt") == []
    snapshots.remove("base")


def test_a_target_that_shows_another_snapshot_is_refused(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("one")
    snapshots.prepare("two")
    place = room.place()
    snapshots.mount("one", place)

    with pytest.raises(InUse, match="another snapshot"):
        snapshots.mount("two", place)

    snapshots.unmount(place)
    assert not is_mounted(place)


def test_what_is_not_ours_is_not_unmounted(room: Room, snapshots: Snapshotter) -> None:
    place = room.place()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)

    with pytest.raises(NotFound):
        snapshots.unmount(place)
    snapshots.prepare("key")
    snapshots.mount("key", place)  # on top of it
    snapshots.unmount(place)

    assert is_mounted(place)
    subprocess.run(["umount", place], check=True)


def test_what_somebody_mounted_over_ours_is_left_alone(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    place = room.place()
    snapshots.mount("key", place)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)

    with pytest.raises(InUse, match="over it"):
        snapshots.unmount(place)

    subprocess.run(["umount", place], check=True)
    snapshots.unmount(place)


def test_what_somebody_else_unmounted_is_forgotten(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    place = room.place()
    snapshots.mount("key", place)
    subprocess.run(["umount", place], check=True)

    snapshots.unmount(place)
    snapshots.mount("key", place)
    subprocess.run(["umount", place], check=True)
    snapshots.remove("key")


def test_a_mount_in_use_stays_and_says_so(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    place = room.place()
    snapshots.mount("key", place)

    with (place / "file").open("w"), pytest.raises(InUse, match="works in it"):
        snapshots.unmount(place)

    assert is_mounted(place)
    snapshots.unmount(place)


def test_a_link_to_the_target_is_the_target(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    place = room.place("with a space")
    (room.path / "link").symlink_to(place)

    snapshots.mount("key", room.path / "link")
    assert is_mounted(place)
    snapshots.unmount(place)


def test_a_target_that_is_no_directory_is_refused(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")

    with pytest.raises(BadRequest, match="not a directory"):
        snapshots.mount("key", room.path / "nothing")
    snapshots.remove("key")


def test_a_committed_snapshot_is_not_mounted(room: Room, snapshots: Snapshotter) -> None:
    grow(snapshots, room.place(), "base")

    with pytest.raises(WrongKind, match="view"):
        snapshots.mount("base", room.place())


def test_a_mount_in_another_namespace_is_known_and_not_undone_here(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    place = room.place()
    script = (
        "import sys; from pathlib import Path; from lamina.plugins import load_driver\n"
        "from lamina.snapshotter import Snapshotter\n"
        "root, name, place = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])\n"
        "with Snapshotter(root, load_driver(name)(root / name / 'layers')) as snapshots:\n"
        "    snapshots.mount('key', place)\n"
        "print('mounted', flush=True); sys.stdin.read()\n"
    )
    elsewhere = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", script]
    with subprocess.Popen(
        [*elsewhere, room.root, room.driver.name, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"mounted\n"
        with pytest.raises(InUse, match=str(place)):
            snapshots.remove("key")
        with pytest.raises(InUse, match="namespace"):
            snapshots.unmount(place)
        other.stdin.close()
    assert other.returncode == 0

    snapshots.remove("key")  # its namespace went with it


def test_two_snapshots_race_for_one_target_and_one_wins(room: Room, snapshots: Snapshotter) -> None:
    place = room.place()
    keys = [f"key{number}" for number in range(4)]
    for key in keys:
        snapshots.prepare(key)

    def try_to_mount(key: str) -> str | None:
        try:
            snapshots.mount(key, place)
        except InUse:
            return None
        return key

    for _ in range(5):
        with ThreadPoolExecutor(len(keys)) as threads:
            winners = [key for key in threads.map(try_to_mount, keys) if key]
        assert len(winners) == 1
        assert sum(point.target == os.fsencode(place) for point in mountinfo()) == 1
        with pytest.raises(InUse, match=str(place)):
            snapshots.remove(winners[0])
        snapshots.unmount(place)
        assert not is_mounted(place)

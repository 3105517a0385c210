"""Life cycle: prepare, view, commit, mount, remove, restart, move."""

from __future__ import annotations

import os

import pytest

from lamina.conformance.harness import (
    Room,
    append,
    edit,
    grow,
    mkdir,
    mounted,
    read,
    rmtree,
    seen,
    unlink,
    write,
)
from lamina.conformance.leaks import mounts_below
from lamina.conformance.witness import assert_same, manifest
from lamina.driver import NativeUsage, StoresChanges
from lamina.layer import Kind
from lamina.snapshotter import Snapshotter


def test_a_new_snapshot_is_an_empty_writable_directory(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("new")

    with mounted(room, snapshots, "new") as root:
        assert os.listdir(root) == []
        (root / "file").write_text("written")

    assert read(snapshots, "new", "file") == "written"


def test_commit_keeps_what_was_written_and_frees_the_key(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    edit(room, snapshots, "key", write("dir/file", "text"), mkdir("empty"))
    with mounted(room, snapshots, "key") as root:
        wanted = manifest(root)

    committed = snapshots.commit("name", "key")
    snapshots.prepare("key", "name")

    assert committed.kind is Kind.COMMITTED
    assert_same(wanted, seen(snapshots, "name"))


@pytest.mark.parametrize("key", ["view", "base"])
def test_what_is_not_active_cannot_be_written(room: Room, snapshots: Snapshotter, key: str) -> None:
    grow(room, snapshots, "base", write("file", "x"), mkdir("dir"))
    grow(room, snapshots, "child", write("other", "x"), parent="base")
    snapshots.view("view", "child")

    with snapshots.look(key) as root:
        for attempt in (write("new", "y"), append("file", "y"), unlink("file"), mkdir("dir/sub")):
            with pytest.raises(OSError, match="Read-only file system"):
                attempt(root)
        with pytest.raises(OSError, match="Read-only file system"):
            os.utime(root / "file", (1, 1))


def test_a_mounted_view_is_read_only(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x"))
    snapshots.view("view", "base")
    snapshots.view("empty view")

    for key in ("view", "empty view"):
        with mounted(room, snapshots, key) as root, pytest.raises(OSError, match="Read-only file system"):
            (root / "new").write_text("y")


def test_mounting_shows_the_snapshot_and_unmounting_shows_the_place_again(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x"))
    snapshots.prepare("active", "base")
    place = room.place()

    snapshots.mount("active", place)
    during = os.listdir(place)
    snapshots.unmount(place)

    assert during == ["file"]
    assert os.listdir(place) == []
    assert mounts_below(place) == []


def test_one_active_snapshot_mounted_twice_is_one_tree(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x"))
    snapshots.prepare("active", "base")

    with mounted(room, snapshots, "active") as first:
        with mounted(room, snapshots, "active") as second:
            write("file", "changed")(first)
            append("file", " twice")(second)
        assert (first / "file").read_text() == "changed twice"  # the other mount's end does not end this one


def test_two_mounts_of_one_view_agree(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x"))
    snapshots.view("view", "base")

    with mounted(room, snapshots, "view") as first, mounted(room, snapshots, "view") as second:
        assert_same(manifest(first), manifest(second))


def test_what_is_written_through_mounts_given_as_data_is_kept(room: Room, snapshots: Snapshotter) -> None:
    """containerd mounts for itself: it asks for `mounts` and never says that it has unmounted."""
    grow(room, snapshots, "base", write("file", "x"))
    given = snapshots.prepare("active", "base")

    assert given == snapshots.mounts("active")
    assert given
    assert all(mount.type and mount.source for mount in given)


def test_intermediate_snapshots_go_when_nothing_stands_on_them(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "one", write("a"))
    grow(room, snapshots, "two", write("b"), parent="one")
    grow(room, snapshots, "three", write("c"), parent="two")

    for name in ("three", "two", "one"):
        snapshots.remove(name)

    assert list(snapshots.list()) == []
    assert room.driver().layers() == set()


def test_removing_an_active_snapshot_leaves_its_parent_as_it_was(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x"), mkdir("dir"))
    wanted = seen(snapshots, "base")
    snapshots.prepare("active", "base")
    edit(room, snapshots, "active", write("file", "y"), rmtree("dir"))

    snapshots.remove("active")

    assert_same(wanted, seen(snapshots, "base"))


def test_everything_is_there_after_a_restart(room: Room) -> None:
    with room.open() as snapshots:
        grow(room, snapshots, "base", write("file", "x"), labels={"color": "blue"})
        snapshots.prepare("active", "base")
        edit(room, snapshots, "active", write("more", "y"))
        before = [(one.name, one.kind, one.parent, dict(one.labels)) for one in snapshots.list()]
        wanted = seen(snapshots, "active")

    with room.open() as snapshots:
        after = [(one.name, one.kind, one.parent, dict(one.labels)) for one in snapshots.list()]
        assert after == before
        assert_same(wanted, seen(snapshots, "active"))
        snapshots.commit("child", "active")
        assert_same(wanted, seen(snapshots, "child"))


def test_a_store_that_was_moved_goes_on_at_its_new_place(room: Room) -> None:
    with room.open() as snapshots:
        grow(room, snapshots, "base", write("file", "x"))
        grow(room, snapshots, "child", write("more", "y"), parent="base")
        snapshots.prepare("active", "child")
        wanted = seen(snapshots, "child")
    moved = Room(room.path / "moved", room.driver_class, room.options)
    moved.path.mkdir(mode=0o711)
    room.store.rename(moved.store)

    with moved.open() as snapshots:
        assert_same(wanted, seen(snapshots, "child"))
        edit(moved, snapshots, "active", write("file", "z"))
        snapshots.commit("grandchild", "active")
        assert read(snapshots, "grandchild", "file") == "z"
    moved.store.rename(room.store)


def test_two_places_hold_the_same_store_open_at_once(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x"))

    with room.open() as second:
        grow(room, second, "child", write("more", "y"), parent="base")

    assert read(snapshots, "child", "more") == "y"


def test_usage_counts_what_a_layer_itself_occupies(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", lambda root: (root / "big").write_bytes(os.urandom(8 << 20)))
    grow(room, snapshots, "child", lambda root: (root / "small").write_bytes(os.urandom(1 << 20)), parent="base")

    assert snapshots.usage("base").size >= 8 << 20
    assert snapshots.usage("child").size >= 1 << 20
    if isinstance(snapshots.driver, (NativeUsage, StoresChanges)):  # others keep whole trees
        assert snapshots.usage("child").size < 8 << 20
    if not isinstance(snapshots.driver, NativeUsage):  # a backend may count bytes alone
        assert snapshots.usage("base").inodes >= 1

"""Life cycle: prepare, view, commit, mount, remove; what a child sees and what its parent keeps."""

from __future__ import annotations

import os

import pytest

from lamina.conformance.harness import (
    Room,
    append,
    edit,
    exists,
    grow,
    mkdir,
    mounted,
    needs,
    needs_root,
    read,
    rename,
    rmtree,
    seen,
    unlink,
    write,
)
from lamina.conformance.leaks import mounts_below
from lamina.conformance.witness import assert_same, manifest
from lamina.driver import Ability
from lamina.layer import Kind
from lamina.snapshotter import Snapshotter


def test_a_new_snapshot_is_an_empty_writable_directory(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("new")

    with mounted(room, snapshots, "new") as root:
        assert os.listdir(root) == []
        (root / "file").write_text("written")

    assert read(snapshots, "new", "file") == "written"


def test_a_child_sees_its_parent_but_not_the_other_way(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("greeting", "hello"))
    grow(room, snapshots, "child", write("answer", "hi"), append("greeting", " there"), parent="base")

    assert read(snapshots, "child", "greeting") == "hello there"
    assert read(snapshots, "base", "greeting") == "hello"
    assert not exists(snapshots, "base", "answer")


def test_siblings_do_not_see_each_other(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("shared", "base"))
    snapshots.prepare("left", "base")
    snapshots.prepare("right", "base")

    edit(room, snapshots, "left", write("shared", "left"))

    assert read(snapshots, "right", "shared") == "base"
    assert read(snapshots, "base", "shared") == "base"


def test_every_generation_shows_the_whole_ancestry(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "one", write("a", "1"), write("b", "1"), write("c", "1"))
    grow(room, snapshots, "two", write("b", "2"), unlink("c"), parent="one")
    grow(room, snapshots, "three", write("c", "3"), write("d", "3"), parent="two")
    snapshots.view("four", "three")

    texts = {name: read(snapshots, "four", name) for name in "abcd"}

    assert texts == {"a": "1", "b": "2", "c": "3", "d": "3"}


def test_commit_keeps_what_was_written_and_frees_the_key(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    edit(room, snapshots, "key", write("dir/file", "text"), mkdir("empty"))
    with mounted(room, snapshots, "key") as root:
        wanted = manifest(root)

    committed = snapshots.commit("name", "key")
    snapshots.prepare("key", "name")

    assert committed.kind is Kind.COMMITTED
    assert_same(wanted, seen(snapshots, "name"))


def test_a_directory_removed_from_a_lower_layer_stays_removed(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "one", write("gone/deep/file", "x"), write("kept", "y"))
    grow(room, snapshots, "two", rmtree("gone"), parent="one")
    grow(room, snapshots, "three", write("other", "z"), parent="two")

    assert not exists(snapshots, "three", "gone")
    assert sorted(seen(snapshots, "three")) == [b"", b"kept", b"other"]


def test_a_directory_made_anew_does_not_show_what_the_old_one_held(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "one", write("dir/old", "x"), write("dir/sub/older", "x"))
    grow(room, snapshots, "two", rmtree("dir"), write("dir/new", "y"), parent="one")
    grow(room, snapshots, "three", write("dir/newest", "z"), parent="two")

    assert sorted(seen(snapshots, "three")) == [b"", b"dir", b"dir/new", b"dir/newest"]


def test_files_deleted_in_a_child_are_gone_for_its_children_and_kept_by_its_parent(
    room: Room, snapshots: Snapshotter
) -> None:
    grow(room, snapshots, "base", write("a", "a"), write("b", "b"))
    grow(room, snapshots, "child", unlink("a"), parent="base")
    grow(room, snapshots, "grandchild", unlink("b"), write("a", "again"), parent="child")

    assert sorted(seen(snapshots, "base")) == [b"", b"a", b"b"]
    assert sorted(seen(snapshots, "child")) == [b"", b"b"]
    assert sorted(seen(snapshots, "grandchild")) == [b"", b"a"]


def test_a_file_moved_from_a_lower_layer_is_at_its_new_place_only(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("dir/file", "moved"), mkdir("other"))
    grow(room, snapshots, "child", rename("dir/file", "other/file"), parent="base")

    assert read(snapshots, "child", "other/file") == "moved"
    assert not exists(snapshots, "child", "dir/file")
    assert exists(snapshots, "base", "dir/file")


@needs(Ability.RENAME_LOWER_DIRECTORY)
def test_a_directory_of_a_lower_layer_can_be_renamed(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("dir/sub/file", "text"))
    grow(room, snapshots, "child", rename("dir", "renamed"), append("renamed/sub/file", "!"), parent="base")

    assert read(snapshots, "child", "renamed/sub/file") == "text!"
    assert not exists(snapshots, "child", "dir")


def test_a_directory_of_this_layer_can_be_renamed(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("dir/file", "text"))
    grow(room, snapshots, "child", write("new/file", "x"), rename("new", "dir/renamed"), parent="base")

    assert read(snapshots, "child", "dir/renamed/file") == "x"


@needs_root
def test_a_changed_owner_and_mode_reach_the_children(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x"), mkdir("dir/sub"))
    grow(
        room,
        snapshots,
        "child",
        lambda root: os.chown(root / "file", 1, 2),
        lambda root: os.chown(root / "dir", 3, 4),
        lambda root: (root / "dir").chmod(0o2770),
        parent="base",
    )
    grow(room, snapshots, "grandchild", write("dir/sub/file", "y"), parent="child")

    tree = seen(snapshots, "grandchild")
    assert (tree[b"file"].uid, tree[b"file"].gid) == (1, 2)
    assert (tree[b"dir"].uid, tree[b"dir"].gid, tree[b"dir"].mode) == (3, 4, 0o2770)


@needs_root
def test_the_root_directory_keeps_its_mode_and_owner_through_generations(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", lambda root: root.chmod(0o711), lambda root: os.chown(root, 5, 6))
    grow(room, snapshots, "child", write("file"), parent="base")
    snapshots.prepare("active", "child")
    snapshots.view("view", "child")

    for key in ("base", "child", "active", "view"):
        top = seen(snapshots, key)[b""]
        assert (top.mode, top.uid, top.gid) == (0o711, 5, 6), key


def test_the_root_of_a_first_layer_is_0755(snapshots: Snapshotter) -> None:
    snapshots.prepare("first")

    assert seen(snapshots, "first")[b""].mode == 0o755


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
    grow(room, snapshots, "base", lambda root: (root / "big").write_bytes(os.urandom(4 << 20)))
    grow(room, snapshots, "child", lambda root: (root / "small").write_bytes(os.urandom(1 << 20)), parent="base")

    assert snapshots.usage("base").size >= 4 << 20
    assert snapshots.usage("child").size >= 1 << 20
    assert snapshots.usage("base").inodes >= 1

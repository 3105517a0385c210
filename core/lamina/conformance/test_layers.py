"""Layers on layers: what a child sees, what its parent keeps, what stays removed, who owns the root."""

from __future__ import annotations

import os

from lamina.conformance.harness import (
    Room,
    append,
    edit,
    exists,
    grow,
    mkdir,
    read,
    rename,
    rmtree,
    seen,
    unlink,
    write,
)
from lamina.conformance.marks import needs, needs_root
from lamina.driver import Ability
from lamina.snapshotter import Snapshotter


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
def test_the_root_directory_keeps_its_mode_owner_and_attributes_through_generations(
    room: Room, snapshots: Snapshotter
) -> None:
    edits = (lambda root: os.chown(root, 5, 6), lambda root: os.setxattr(root, "user.lamina", b"x"))
    grow(room, snapshots, "base", lambda root: root.chmod(0o711), *edits)
    grow(room, snapshots, "child", write("file"), parent="base")
    snapshots.prepare("active", "child")
    snapshots.view("view", "child")

    for key in ("base", "child", "active", "view"):
        top = seen(snapshots, key)[b""]
        assert (top.mode, top.uid, top.gid, top.xattrs) == (0o711, 5, 6, {"user.lamina": b"x"}), key


def test_the_root_of_a_first_layer_is_0755(snapshots: Snapshotter) -> None:
    snapshots.prepare("first")

    assert seen(snapshots, "first")[b""].mode == 0o755

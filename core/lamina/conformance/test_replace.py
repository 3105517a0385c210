"""Replacing and removing: entries of another type, removals of removals, directories made anew."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.conformance.harness import (
    Edit,
    Room,
    edit,
    foreign_tar,
    grow,
    mkdir,
    rename,
    rmtree,
    seen,
    symlink,
    together,
    unlink,
    write,
)
from lamina.conformance.marks import needs
from lamina.conformance.witness import assert_same
from lamina.driver import Ability
from lamina.snapshotter import Snapshotter

TEXT = "0123456789" * 1000


REPLACEMENTS: list[tuple[str, Edit, int]] = [
    ("file by directory", together(unlink("x"), mkdir("x")), stat.S_IFDIR),
    ("file by symlink", together(unlink("x"), symlink("x", "y")), stat.S_IFLNK),
    ("file by fifo", together(unlink("x"), lambda root: os.mkfifo(root / "x")), stat.S_IFIFO),
    ("directory by file", together(rmtree("d"), write("d")), stat.S_IFREG),
    ("directory by symlink", together(rmtree("d"), symlink("d", "x")), stat.S_IFLNK),
    ("symlink by directory", together(unlink("s"), mkdir("s")), stat.S_IFDIR),
    ("file by a renamed directory", together(mkdir("n"), unlink("x"), rename("n", "x")), stat.S_IFDIR),
]


@pytest.mark.parametrize(("change", "kind"), [pytest.param(*rest, id=name) for name, *rest in REPLACEMENTS])
def test_an_entry_is_replaced_by_one_of_another_type_and_back(
    room: Room, snapshots: Snapshotter, change: Callable[[Path], object], kind: int
) -> None:
    grow(room, snapshots, "base", write("x", "x"), write("d/inside", "y"), symlink("s", "d"))
    before = seen(snapshots, "base")

    grow(room, snapshots, "child", change, parent="base")
    after = seen(snapshots, "child")
    (path,) = {name for name in before if name and name in after and after[name].type != before[name].type}
    grow(room, snapshots, "back", _put_back(path), parent="child")

    assert after[path].type == kind
    assert not any(name.startswith(path + b"/") for name in after)
    assert seen(snapshots, "back")[path].type == before[path].type
    # what the old directory held does not come back with the new one
    assert not any(name.startswith(path + b"/") for name in seen(snapshots, "back"))


def _put_back(path: bytes) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        target = root / os.fsdecode(path)
        rmtree(os.fsdecode(path))(root)
        if path == b"d":
            target.mkdir()
        elif path == b"x":
            target.write_text("x")
        else:
            target.symlink_to("d")

    return change


def test_a_removal_of_what_was_removed_and_made_anew(room: Room, snapshots: Snapshotter) -> None:
    remove = lambda root: (root / "file").unlink()  # noqa: E731  # three times the same
    grow(room, snapshots, "one", write("file", "1"), write("other"))
    grow(room, snapshots, "two", remove, parent="one")
    grow(room, snapshots, "three", write("file", "3"), parent="two")
    grow(room, snapshots, "four", remove, parent="three")
    grow(room, snapshots, "five", write("file", "5"), remove, write("file", "6"), remove, parent="four")

    assert [b"file" in seen(snapshots, name) for name in ("one", "two", "three", "four", "five")] == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_directories_removed_and_made_anew_through_many_layers(room: Room, snapshots: Snapshotter) -> None:
    parent = None
    for number in range(6):
        grow(room, snapshots, str(number), rmtree("d"), write(f"d/{number}/file", str(number)), parent=parent)
        parent = str(number)

        assert sorted(seen(snapshots, parent)) == [b"", b"d", b"d/%d" % number, b"d/%d/file" % number]


def test_a_directory_that_is_not_empty_is_not_removed(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("dir/file", "x"))
    before = seen(snapshots, "base")
    snapshots.prepare("child", "base")

    with pytest.raises(OSError, match=os.strerror(errno.ENOTEMPTY)):
        edit(room, snapshots, "child", lambda root: (root / "dir").rmdir())

    assert_same(before, seen(snapshots, "child"))


@pytest.mark.parametrize("alone", [False, pytest.param(True, marks=needs(Ability.REBASE))], ids=["on top", "alone"])
def test_a_removal_of_what_never_was_leaves_no_trace(room: Room, snapshots: Snapshotter, *, alone: bool) -> None:
    """In a directory that only this layer has, unions do not look for removals of their own accord."""
    grow(room, snapshots, "base", write("old"))
    layer = foreign_tar(
        [("new", None), ("new/.wh.never", b""), ("new/dir", None), ("new/dir/.wh.never", b""), ("new/file", b"x")]
    )
    snapshots.prepare("active", None if alone else "base")

    snapshots.apply("active", layer, alone=alone)
    snapshots.commit("child", "active", parent="base")
    grow(room, snapshots, "grandchild", write("more"), parent="child")

    for name in ("child", "grandchild"):
        assert {path for path in seen(snapshots, name) if path.startswith(b"new")} == {b"new", b"new/dir", b"new/file"}
    grow(room, snapshots, "emptied", rmtree("new"), parent="child")

"""Content: every kind of entry, name and attribute survives commit, copy-up, restart, diff and apply."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from lamina.conformance.harness import Edit, Room, can, edit, grow, mounted, seen
from lamina.conformance.marks import needs
from lamina.conformance.specimens import SPECIMENS, huge, late_times, make_or_skip, nanoseconds, sparse, times
from lamina.conformance.witness import Manifest, assert_same, in_whole_seconds, manifest, undated, walk
from lamina.driver import Ability
from lamina.snapshotter import Snapshotter

every_specimen = pytest.mark.parametrize("make", SPECIMENS)


@every_specimen
def test_what_is_written_is_what_the_caller_wrote(room: Room, snapshots: Snapshotter, make: Edit) -> None:
    plain = _plain(room, make)

    snapshots.prepare("active")
    edit(room, snapshots, "active", make)

    # the root directory is the driver's to make; most specimens are made "now", which is later each time
    excused = set() if make in (times, late_times, nanoseconds) else {"mtime_ns"}
    assert_same(_without(plain, b""), _without(seen(snapshots, "active"), b""), ignoring=excused)


@every_specimen
def test_what_was_committed_is_seen_by_children_and_after_a_restart(room: Room, make: Edit) -> None:
    _plain(room, make)
    with room.open() as snapshots:
        snapshots.prepare("active")
        with mounted(room, snapshots, "active") as root:
            make(root)
            wanted = manifest(root)
        snapshots.commit("base", "active")
        snapshots.prepare("child", "base")

        assert_same(wanted, seen(snapshots, "base"))
        with mounted(room, snapshots, "child") as root:
            assert_same(wanted, manifest(root))

    with room.open() as snapshots:
        snapshots.view("later", "base")
        assert_same(wanted, seen(snapshots, "base"))
        assert_same(wanted, seen(snapshots, "later"))


@every_specimen
def test_copying_up_keeps_everything(room: Room, snapshots: Snapshotter, make: Edit) -> None:
    _plain(room, make)
    grow(room, snapshots, "base", make)
    wanted = seen(snapshots, "base")

    grow(room, snapshots, "child", _touch_everything, parent="base")

    excused = set() if can(room.driver_class, Ability.LOWER_HARD_LINKS) else {"links"}
    assert_same(_as_kept(room, wanted), _as_kept(room, seen(snapshots, "child")), ignoring=excused)
    assert_same(wanted, seen(snapshots, "base"))


def _as_kept(room: Room, tree: Manifest) -> Manifest:
    """The tree, but for times that the driver cannot keep when something is changed."""
    if not can(room.driver_class, Ability.DIRECTORY_TIMES):
        tree = undated(tree)
    return tree if can(room.driver_class, Ability.NANOSECOND_TIMES) else in_whole_seconds(tree)


@every_specimen
def test_diff_and_apply_make_the_same_tree_again(room: Room, snapshots: Snapshotter, make: Edit) -> None:
    _plain(room, make)
    grow(room, snapshots, "base", make)
    tar = io.BytesIO()
    snapshots.diff("base", tar)
    tar.seek(0)

    snapshots.prepare("copy growing")
    snapshots.apply("copy growing", tar)
    snapshots.commit("copy", "copy growing")

    assert_same(_without_sockets(seen(snapshots, "base")), seen(snapshots, "copy"))


def test_a_huge_directory_is_kept_and_can_be_changed(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", huge)
    wanted = {path: entry for path, entry in seen(snapshots, "base").items() if not path.endswith(b"7")}

    grow(room, snapshots, "child", _drop_every_seventh, parent="base")

    assert len(seen(snapshots, "base")) == 10_002
    left = _as_kept(room, seen(snapshots, "child"))
    assert_same(_without(_as_kept(room, wanted), b"huge"), _without(left, b"huge"))


@needs(Ability.SPARSE_FILES)
def test_holes_stay_holes(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", sparse)
    grow(room, snapshots, "child", _touch_everything, parent="base")
    tar = io.BytesIO()
    snapshots.diff("base", tar)
    tar.seek(0)
    snapshots.prepare("copy")
    snapshots.apply("copy", tar)

    for key in ("base", "child", "copy"):
        with snapshots.look(key) as root:
            blocks = {path.name: path.lstat().st_blocks * 512 for path in root.iterdir()}
        # each file has 8 MiB or more; a kernel may copy the islands in pieces of 1 MiB
        assert max(blocks.values()) <= 4 << 20, f"{key}: {blocks}"


def test_a_sticky_world_writable_directory_stays_so(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", lambda root: (root / "tmp").mkdir(), lambda root: (root / "tmp").chmod(0o1777))
    grow(room, snapshots, "child", lambda root: (root / "tmp/file").touch(), parent="base")

    assert seen(snapshots, "child")[b"tmp"].mode == 0o1777


def test_the_callers_umask_changes_nothing(room: Room, snapshots: Snapshotter) -> None:
    before = os.umask(0o077)
    try:
        grow(room, snapshots, "base", lambda root: (root / "d").mkdir(), lambda root: (root / "d").chmod(0o755))
        snapshots.prepare("child", "base")
    finally:
        os.umask(before)

    assert seen(snapshots, "base")[b""].mode == 0o755
    assert seen(snapshots, "child")[b""].mode == 0o755
    assert seen(snapshots, "child")[b"d"].mode == 0o755


def _plain(room: Room, make: Edit) -> Manifest:
    place = room.place("plain")
    make_or_skip(make, place)
    return manifest(place)


def _without(tree: Manifest, *paths: bytes) -> Manifest:
    return {path: entry for path, entry in tree.items() if path not in paths}


def _without_sockets(tree: Manifest) -> Manifest:
    # a tar has no way to say "socket"; docker and containerd leave them out too
    return {path: entry for path, entry in tree.items() if entry.type != stat.S_IFSOCK}


def _touch_everything(root: Path) -> None:
    """Set every entry's time to what it is: nothing changes, and everything has to be copied up."""
    top = os.open(root, os.O_RDONLY)
    try:
        for path, directory, status in walk(top):
            name = os.path.basename(path)
            os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(top)


def _drop_every_seventh(root: Path) -> None:
    for entry in (root / "huge").iterdir():
        if entry.name.endswith("7"):
            entry.unlink()

"""Layers that get their parent at commit: as images are unpacked in parallel, each by itself."""

from __future__ import annotations

import io
import os
from pathlib import Path

import attrs
import pytest

from lamina.conformance.harness import Edit, Room, append, foreign_tar, grow, layer_tar, rmtree, seen, unlink, write
from lamina.conformance.marks import needs, needs_root
from lamina.conformance.witness import assert_same
from lamina.driver import Ability
from lamina.errors import BadArchive, WrongParent
from lamina.snapshotter import Snapshotter

pytestmark = needs(Ability.REBASE)


def _two(room: Room, snapshots: Snapshotter, *edits: Edit) -> None:
    grow(room, snapshots, "base", write("file", "text"), write("linked", "x"), write("dir/old", "old"))
    grow(room, snapshots, "child", *edits, parent="base")


def _made_anew(root: Path) -> None:
    rmtree("dir")(root)
    write("dir/new", "new")(root)


def test_layers_applied_alone_and_joined_at_commit_make_the_same_trees(room: Room, snapshots: Snapshotter) -> None:
    """Whiteouts, opaque directories, a file that becomes a directory."""
    _two(room, snapshots, _made_anew, unlink("file"), append("linked", "more"), write("file/now/a/directory", "x"))
    tar = layer_tar(snapshots, "child")

    snapshots.prepare("alone")
    snapshots.apply("alone", io.BytesIO(tar), alone=True)
    snapshots.commit("joined", "alone", parent="base")

    assert_same(seen(snapshots, "child"), seen(snapshots, "joined"))
    assert layer_tar(snapshots, "joined") == tar


@needs_root
def test_a_root_that_the_layer_does_not_bring_is_the_late_parents(room: Room, snapshots: Snapshotter) -> None:
    edits = (lambda root: os.chown(root, 5, 6), lambda root: os.setxattr(root, "user.lamina", b"x"), write("file"))
    grow(room, snapshots, "base", lambda root: root.chmod(0o711), *edits)
    snapshots.prepare("alone")
    snapshots.apply("alone", foreign_tar([("new", b"x")]), alone=True)
    snapshots.commit("joined", "alone", parent="base")

    before, after = seen(snapshots, "base")[b""], seen(snapshots, "joined")[b""]

    assert attrs.evolve(after, mtime_ns=0) == attrs.evolve(before, mtime_ns=0)


def test_removals_that_were_carried_out_do_not_get_lost_under_a_new_parent(room: Room, snapshots: Snapshotter) -> None:
    """Without `alone` a tar's whiteouts have nothing to hide, so nothing is kept that could hide the parent's files."""
    _two(room, snapshots, unlink("file"))
    snapshots.prepare("late")
    snapshots.apply("late", io.BytesIO(layer_tar(snapshots, "child")))

    with pytest.raises(WrongParent, match="alone"):
        snapshots.commit("joined", "late", parent="base")

    snapshots.commit("rooted", "late")
    assert snapshots.stat("rooted").parent is None


def _late(room: Room, snapshots: Snapshotter, *, alone: bool = False) -> None:
    """An active snapshot on nothing, which holds something already."""
    grow(room, snapshots, "first", write("first", "x"))
    snapshots.prepare("late")
    snapshots.apply("late", io.BytesIO(layer_tar(snapshots, "first")), alone=alone)


@pytest.mark.parametrize("alone", [True, False])
def test_removals_on_top_of_content_do_not_get_lost_either(room: Room, snapshots: Snapshotter, *, alone: bool) -> None:
    """Nothing records what a second tar removes: it is unpacked through a mount, where nothing lies below."""
    _two(room, snapshots, unlink("file"))
    _late(room, snapshots, alone=alone)
    snapshots.apply("late", io.BytesIO(layer_tar(snapshots, "child")), alone=alone)

    with pytest.raises(WrongParent, match="alone"):
        snapshots.commit("joined", "late", parent="base")


def test_removals_of_a_tar_that_was_cut_short_do_not_get_lost_either(room: Room, snapshots: Snapshotter) -> None:
    _two(room, snapshots, unlink("file"), write("more", "text" * 1000))
    whole = layer_tar(snapshots, "child")
    _late(room, snapshots)
    with pytest.raises(BadArchive):
        snapshots.apply("late", io.BytesIO(whole[: whole.index(b"texttext") + 1000]))

    with pytest.raises(WrongParent, match="alone"):
        snapshots.commit("joined", "late", parent="base")

"""Layers that get their parent at commit: as images are unpacked in parallel, each by itself."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from lamina.conformance.harness import Edit, Room, append, grow, layer_tar, rmtree, seen, unlink, write
from lamina.conformance.marks import needs
from lamina.conformance.witness import assert_same
from lamina.driver import Ability
from lamina.errors import WrongParent
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


def test_removals_that_were_carried_out_do_not_get_lost_under_a_new_parent(room: Room, snapshots: Snapshotter) -> None:
    """Without `alone` a tar's whiteouts have nothing to hide, so nothing is kept that could hide the parent's files."""
    _two(room, snapshots, unlink("file"))
    snapshots.prepare("late")
    snapshots.apply("late", io.BytesIO(layer_tar(snapshots, "child")))

    with pytest.raises(WrongParent, match="alone"):
        snapshots.commit("joined", "late", parent="base")

    snapshots.commit("rooted", "late")
    assert snapshots.stat("rooted").parent is None

"""Depth: 128 layers of files, 500 layers, long names of places, and their diffs."""

from __future__ import annotations

import io
import os

import pytest

from lamina.conformance.harness import Room, mounted, write
from lamina.snapshotter import Snapshotter


@pytest.fixture
def hasty(room: Room) -> Snapshotter:
    """A snapshotter that does not flush: these tests are about depth, not about power cuts."""
    return room.open(durability="none")


def _stack(snapshots: Snapshotter, room: Room, depth: int) -> str:
    """A chain of `depth` layers. Each brings a file of its own, changes one of its parent's and removes another."""
    parent = None
    for number in range(depth):
        key = f"{number} growing"
        snapshots.prepare(key, parent)
        with mounted(room, snapshots, key) as root:
            (root / f"file{number}").write_text(str(number))
            (root / "last").write_text(str(number))
            if number % 3 == 2:
                (root / f"file{number - 1}").unlink()
            if number % 10 == 0:
                write(f"dir/{number}/file", str(number))(root)
        snapshots.commit(str(number), key)
        parent = str(number)
    assert parent is not None
    return parent


def _expected(depth: int) -> set[str]:
    removed = {number - 1 for number in range(2, depth, 3)}
    return {f"file{number}" for number in range(depth) if number not in removed} | {"last", "dir"}


@pytest.mark.parametrize("depth", [1, 2, 128, 500])
def test_a_deep_stack_shows_every_layer(room: Room, hasty: Snapshotter, depth: int) -> None:
    with hasty as snapshots:
        top = _stack(snapshots, room, depth)
        snapshots.prepare("active", top)
        snapshots.view("view", top)

        for key in (top, "active", "view"):
            with snapshots.look(key) as root:
                assert set(os.listdir(root)) == _expected(depth)
                assert (root / "last").read_text() == str(depth - 1)
                assert (root / "file0").read_text() == "0"
        with mounted(room, snapshots, "active") as root:
            (root / "file0").write_text("changed at the top")
            assert sorted(os.listdir(root / "dir")) == sorted(str(number) for number in range(0, depth, 10))

        out = io.BytesIO()
        snapshots.diff("active", out)
        assert b"changed at the top" in out.getvalue()
        assert b"file1\0" not in out.getvalue()


def test_a_store_whose_place_has_a_long_and_awkward_name(room: Room) -> None:
    """Mount options have an end; commas, colons and backslashes have a meaning in them."""
    place = room.path / "a:b,c\\d e" / ("x" * 200) / ("y" * 200)
    place.mkdir(parents=True)
    awkward = Room(place, room.driver_class, room.options)

    with awkward.open(durability="none") as snapshots:
        top = _stack(snapshots, awkward, 12)
        with snapshots.look(top) as root:
            assert set(os.listdir(root)) == _expected(12)
    awkward.clear()


def test_a_mount_point_may_have_an_awkward_name(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("active")
    place = room.path / "a b,c:d\\e\nf"
    place.mkdir()

    snapshots.mount("active", place)
    (place / "file").write_text("x")
    snapshots.unmount(place)

    assert os.listdir(place) == []
    with snapshots.look("active") as root:
        assert os.listdir(root) == ["file"]

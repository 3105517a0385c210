"""Two drivers, one script: trees, changes and tar bytes are those of vfs, the plain copy that cannot be wrong."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.conformance.harness import LONG_AGO, Room, mounted, seen
from lamina.conformance.model import Model, ModelTree, Step
from lamina.conformance.play import RealTree
from lamina.conformance.plugin import Rooms
from lamina.conformance.strategies import Whim, resolve, whims
from lamina.conformance.witness import Manifest, assert_same
from lamina.driver import Ability, Driver
from lamina.plugins import load_driver
from lamina.snapshotter import Snapshotter

REFERENCE = "vfs"
Script = list[list[Step]]  # the steps of each layer


def resolved(layers: list[list[Whim]], cannot: frozenset[Ability]) -> Script:
    """The whims as steps that both drivers can do: what one names as lacking is not asked for."""
    model, script, number = Model(cannot), [], 0
    for layer in layers:
        steps = []
        for whim in layer:
            number += 1
            step = resolve(whim, model, number)
            if step is not None and not _parts_links(step, model, cannot):
                ModelTree(model).do(step)
                steps.append(step)
        script.append(steps)
        model = model.child()
    return script


def _parts_links(step: Step, model: Model, cannot: frozenset[Ability]) -> bool:
    """Whether this step would part the names of a lower file on a driver that cannot keep them together."""
    if Ability.LOWER_HARD_LINKS not in cannot or step.verb in ("make", "remove"):
        return False
    node = model.at(step.path)
    return node.lower and len(model.names_of(node)) > 1 and step.path != b""


def played(room: Room, script: Script) -> list[tuple[Manifest, list[tuple[str, bytes]], bytes]]:
    """For each layer of the script: its tree, its changes, its tar."""
    told = []
    with room.open(durability="none") as snapshots:
        parent = None
        for number, steps in enumerate(script):
            snapshots.prepare("growing", parent)
            _play(room, snapshots, steps, first=parent is None)
            parent = str(number)
            snapshots.commit(parent, "growing")
            out = io.BytesIO()
            snapshots.diff(parent, out)
            changes = [(change.kind.value, change.path) for change in snapshots.changes(parent)]
            told.append((seen(snapshots, parent), changes, out.getvalue()))
    return told


def _play(room: Room, snapshots: Snapshotter, steps: list[Step], *, first: bool) -> None:
    start = Step("attributes", b"", {"uid": 0, "gid": 0, "mode": 0o755}, time=LONG_AGO * 10**9)
    all_steps = [start, *steps] if first else steps
    with mounted(room, snapshots, "growing") as root:
        for step in all_steps:
            RealTree(root, room.driver_class.cannot).do(step)


@contextmanager
def both_rooms(rooms: Rooms) -> Iterator[tuple[Room, Room]]:
    """A room of the driver under test, and one of the reference driver."""
    with rooms() as tested, rooms() as other:
        yield tested, Room(other.path, load_driver(REFERENCE))


@given(layers=st.lists(st.lists(whims(), min_size=1, max_size=25), min_size=1, max_size=4))
def test_the_driver_and_the_reference_agree(rooms: Rooms, driver_class: type[Driver], layers: list[list[Whim]]) -> None:
    if driver_class.name == REFERENCE:
        pytest.skip(f"this is {REFERENCE} itself")
    script = resolved(layers, driver_class.cannot)

    with both_rooms(rooms) as (tested, reference):
        for mine, theirs in zip(played(tested, script), played(reference, script), strict=True):
            assert_same(theirs[0], mine[0])
            assert mine[1] == theirs[1]
            assert mine[2] == theirs[2], "the tar bytes differ"

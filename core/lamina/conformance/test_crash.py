"""Crashes: killed at every step of every verb, and the power cut: acknowledged work is there, nothing is half made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest

from lamina.conformance.crash import Death, Steps, in_a_child, mortal
from lamina.conformance.harness import Room, assert_ids_agree, exists, grow, read, seen, write
from lamina.conformance.leaks import mounts_below
from lamina.conformance.marks import needs_root
from lamina.conformance.plugin import Rooms
from lamina.conformance.smalldisk import btrfs, cut_the_power, ext4, has_loops, mounted_image
from lamina.conformance.story import Scene, State, Verb, place_of, story
from lamina.conformance.witness import Manifest, assert_same
from lamina.driver import Driver
from lamina.errors import LaminaError, NotFound
from lamina.layer import Kind
from lamina.snapshotter import Snapshotter

CHAPTERS = [verb.name for verb in story(frozenset())]


def _live(room: Room, verbs: list[Verb], fatal: int | None) -> Death:
    """Live the story in a child that dies at step `fatal` of its last verb."""

    def work(tell: Callable[[str], None]) -> None:
        steps = Steps(fatal)
        with Snapshotter(room.store, mortal(room.driver_class, steps)(room.home, room.options)) as snapshots:
            for verb in verbs[:-1]:
                verb.act(Scene(room, snapshots, steps))
                tell(verb.name)
            with steps.watching():
                verbs[-1].act(Scene(room, snapshots, steps))
            tell(verbs[-1].name)

    return in_a_child(work)


@pytest.fixture(scope="module")
def contents(rooms: Rooms, driver_class: type[Driver]) -> Mapping[str, Manifest]:
    """What each committed snapshot of the story holds when nothing goes wrong."""
    told: dict[str, Manifest] = {}
    with rooms() as room, room.open() as snapshots:
        for verb in story(driver_class.cannot):
            verb.act(Scene(room, snapshots))
            told |= {name: seen(snapshots, name) for name, kind in verb.after.items() if kind is Kind.COMMITTED}
    return told


@pytest.mark.parametrize("chapter", range(len(CHAPTERS)), ids=lambda number: CHAPTERS[number].replace(" ", "-"))
def test_killed_at_every_step_of(
    rooms: Rooms,
    driver_class: type[Driver],
    contents: Mapping[str, Manifest],
    *,
    chapter: int,
    record_property: Callable[[str, object], None],
    pytestconfig: pytest.Config,
) -> None:
    verbs = story(driver_class.cannot)[: chapter + 1]
    if len(verbs) <= chapter:
        pytest.skip("lacks REBASE")
    before: State = verbs[-2].after if chapter else {}
    step, deaths, killed = 1, 0, True
    while killed:
        with rooms() as room:
            death = _live(room, verbs, step)
            assert not death.error, death.error
            killed = death.killed
            allowed = [before, verbs[-1].after] if verbs[-1].name not in death.acknowledged else [verbs[-1].after]
            try:
                _assert_sound(room, allowed, contents)
            except BaseException as error:
                error.add_note(f"after a death at step {step} of {verbs[-1].name!r}")
                raise
        deaths += killed
        step += pytestconfig.getoption("crash_stride")
    record_property("crash points", deaths)


def _assert_sound(room: Room, allowed: list[State], contents: Mapping[str, Manifest]) -> None:
    with room.open() as snapshots:
        _leave_all_places(room, snapshots)
    # also what the driver had brought up for a layer that still exists, and that nobody sees any more
    assert mounts_below(room.path) == [], "still mounted after the places were left and the store was closed"
    with room.open() as snapshots:
        states = {one.name: one.kind for one in snapshots.list()}
        assert states in [dict(state) for state in allowed]
        assert_ids_agree(room)
        for name, kind in states.items():
            if kind is Kind.COMMITTED:
                assert_same(contents[name], seen(snapshots, name))
        _assert_goes_on(room, snapshots)
    assert os.listdir(room.home) == _left_in_an_empty_home(room)


def _leave_all_places(room: Room, snapshots: Snapshotter) -> None:
    """The dead can not unmount; who comes after may, and it is enough to name the place."""
    for key in "bcvt":
        with suppress(NotFound):
            snapshots.unmount(place_of(room, key))


def _assert_goes_on(room: Room, snapshots: Snapshotter) -> None:
    """New work succeeds, and everything that is there can be removed."""
    parent = next((one.name for one in snapshots.list() if one.kind is Kind.COMMITTED), None)
    grow(room, snapshots, "after the crash", write("file", "x"), parent=parent)
    assert read(snapshots, "after the crash", "file") == "x"
    left = [one.name for one in snapshots.list()]
    while left:
        parents = {one.parent for one in snapshots.list()}
        for name in [name for name in left if name not in parents]:
            snapshots.remove(name)
        left = [one.name for one in snapshots.list()]
    assert room.driver().layers() == set() == room.known().keys()


def _left_in_an_empty_home(room: Room) -> list[str]:
    """What the driver keeps in its home when it has no layers: an opened, unused store tells."""
    fresh = attrs.evolve(room, path=room.place("fresh"))
    with fresh.open() as snapshots:
        snapshots.prepare("x")
        snapshots.remove("x")
    return os.listdir(fresh.home)


def test_a_child_that_raises_leaves_the_store_as_it_was(room: Room) -> None:
    """A verb of the driver that raises is told as a typed error, and its row is not left in between."""

    class Refusing(room.driver_class):  # type: ignore[name-defined, misc]  # the class is known only now
        def prepare(self, layer: object) -> None:
            super().prepare(layer)
            raise RuntimeError("no")

    with room.open() as snapshots:
        grow(room, snapshots, "base", write("file", "x"))
    with Snapshotter(room.store, Refusing(room.home, room.options)) as snapshots:
        with pytest.raises(LaminaError, match="no"):
            snapshots.prepare("active", "base")
        assert [one.name for one in snapshots.list()] == ["base"]
        assert_ids_agree(room)

    with room.open() as snapshots:
        snapshots.prepare("active", "base")


def test_a_commit_that_raises_leaves_the_snapshot_active(room: Room) -> None:
    class Refusing(room.driver_class):  # type: ignore[name-defined, misc]  # the class is known only now
        def commit(self, layer: object) -> None:
            raise RuntimeError("no")

    with Snapshotter(room.store, Refusing(room.home, room.options)) as snapshots:
        snapshots.prepare("active")
        with pytest.raises(LaminaError, match="no"):
            snapshots.commit("name", "active")
        assert snapshots.stat("active").kind is Kind.ACTIVE

    with room.open() as snapshots:
        snapshots.commit("name", "active")


@needs_root
@pytest.mark.parametrize(
    "chapter", ["commit the base", "commit the child", "commit the tar", "commit it onto a parent"]
)
def test_what_was_committed_survives_a_power_cut(
    rooms: Rooms, driver_class: type[Driver], contents: Mapping[str, Manifest], chapter: str
) -> None:
    verbs = story(driver_class.cannot)
    names = [verb.name for verb in verbs]
    if chapter not in names:
        pytest.skip("lacks REBASE")
    verbs = verbs[: names.index(chapter) + 1]
    with rooms() as room:
        image, copy = room.path / "disk", room.path / "disk after the cut"
        disk = room.place("disk")
        on_disk = attrs.evolve(room, path=disk)
        with _disk_for(on_disk, image), on_disk.open() as snapshots:
            for verb in verbs:
                verb.act(Scene(on_disk, snapshots))
            cut_the_power(image, copy)

        with mounted_image(disk, copy), on_disk.open() as snapshots:
            committed = {name for name, kind in verbs[-1].after.items() if kind is Kind.COMMITTED}
            assert committed <= {one.name for one in snapshots.list()}
            for name in committed:
                assert_same(contents[name], seen(snapshots, name))
            _assert_goes_on(on_disk, snapshots)


@contextmanager
def _disk_for(room: Room, image: Path) -> Iterator[None]:
    """A disk in a file, with the first file system that the driver takes."""
    why: tuple[str, ...] = ()
    if not has_loops():
        pytest.skip("this kernel has no loop devices")
    for kind in (ext4, btrfs):
        with kind(room.path, image, 96):
            health = room.driver().health()
            if health.ok:
                yield
                return
            why += health.problems
    pytest.skip("; ".join(why))


def test_what_was_written_to_an_active_snapshot_survives_the_death_of_the_process(room: Room) -> None:
    def work(tell: Callable[[str], None]) -> None:
        snapshots = room.open().__enter__()
        snapshots.prepare("active")
        place = room.path / "at"
        place.mkdir()
        snapshots.mount("active", place)
        (place / "file").write_text("written")
        tell("written")
        os.kill(os.getpid(), 9)

    death = in_a_child(work)

    assert death.acknowledged == ("written",)
    with room.open() as snapshots:
        # the mount outlives the process that made it, and the store knows of it; what lies in the home is the driver's
        assert [each for each in mounts_below(room.path) if not each.startswith(f"{room.home}/")] == [
            str(room.path / "at")
        ]
        snapshots.unmount(room.path / "at")
        assert mounts_below(room.path) == []
        assert exists(snapshots, "active", "file")
        assert read(snapshots, "active", "file") == "written"

"""The class itself: construction, health, repeated verbs, ids on disk; asked directly, with no core between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from lamina.conformance.harness import Room
from lamina.conformance.leaks import mounts_below
from lamina.conformance.witness import assert_same, manifest
from lamina.driver import Driver
from lamina.layer import Kind, Layer
from lamina.mount import Mount, mount_all, unmount

FIRST = Layer(1, Kind.ACTIVE)
UNKNOWN = 4711


@pytest.fixture
def driver(room: Room) -> Iterator[Driver]:
    """The driver, started; core would have made its home."""
    started = room.driver()
    started.home.mkdir(parents=True, mode=0o711)
    started.start()
    yield started
    started.stop()


@contextmanager
def shown(room: Room, driver: Driver, layer: Layer) -> Iterator[Path]:
    """The layer, mounted as core would; released afterwards."""
    place = room.place("shown")
    mount_all(driver.mounts(layer), place)
    try:
        yield place
    finally:
        unmount(place)
        driver.release(layer.id)


def committed(room: Room, driver: Driver, layer: Layer, **files: str) -> Layer:
    """A committed layer with these files added."""
    driver.prepare(layer)
    with shown(room, driver, layer) as root:
        for name, text in files.items():
            (root / name).write_text(text)
    frozen = attrs.evolve(layer, kind=Kind.COMMITTED)
    driver.commit(frozen)
    return frozen


def test_building_an_object_touches_nothing(room: Room) -> None:
    room.driver()

    assert not room.store.exists()


def test_health_leaves_no_trace_and_repeats_itself(room: Room) -> None:
    driver = room.driver()

    first, second = driver.health(), driver.health()

    assert first.ok
    assert second.ok
    assert not room.store.exists()
    assert mounts_below(room.path) == []


def test_the_name_is_a_word_and_cannot_holds_abilities(driver_class: type[Driver]) -> None:
    assert driver_class.name
    assert driver_class.name == os.path.basename(driver_class.name)
    assert isinstance(driver_class.cannot, frozenset)


def test_an_empty_home_has_no_layers(driver: Driver) -> None:
    assert driver.layers() == set()


def test_layers_tells_exactly_what_is_stored(room: Room, driver: Driver) -> None:
    base = committed(room, driver, FIRST, file="x")
    driver.prepare(Layer(7, Kind.ACTIVE, (base.id,)))
    driver.prepare(Layer(8, Kind.VIEW, (base.id,)))
    assert driver.layers() - {8} == {1, 7}  # a view may be nothing at all

    driver.remove(7)
    driver.remove(8)

    assert driver.layers() == {1}
    assert room.driver().layers() == {1}  # nothing of this is kept in memory


@pytest.mark.parametrize("verb", ["remove", "release"])
def test_an_unknown_id_is_accepted(driver: Driver, verb: str) -> None:
    getattr(driver, verb)(UNKNOWN)

    assert driver.layers() == set()


def test_prepare_repeated_starts_afresh(room: Room, driver: Driver) -> None:
    base = committed(room, driver, FIRST, file="x")
    layer = Layer(2, Kind.ACTIVE, (base.id,))
    driver.prepare(layer)
    with shown(room, driver, layer) as root:
        (root / "rest of an interrupted try").write_text("?")
        (root / "file").unlink()

    driver.prepare(layer)

    with shown(room, driver, layer) as root:
        assert os.listdir(root) == ["file"]


def test_commit_repeated_changes_nothing(room: Room, driver: Driver) -> None:
    base = committed(room, driver, FIRST, file="x")
    with shown(room, driver, base) as root:
        wanted = manifest(root)

    driver.commit(base)

    with shown(room, driver, base) as root:
        assert_same(wanted, manifest(root))


def test_remove_repeated_is_harmless(room: Room, driver: Driver) -> None:
    committed(room, driver, FIRST, file="x")

    driver.remove(1)
    driver.remove(1)
    driver.release(1)

    assert driver.layers() == set()


def test_remove_takes_that_layer_and_no_other(room: Room, driver: Driver) -> None:
    """Ids are numbers, also where they are parts of names."""
    other = committed(room, driver, Layer(10, Kind.ACTIVE), file="x")
    for layer_id in (1, 21):
        driver.prepare(Layer(layer_id, Kind.ACTIVE))

    driver.remove(1)

    assert driver.layers() == {10, 21}
    with shown(room, driver, other) as root:
        assert (root / "file").read_text() == "x"


def test_mounts_and_release_repeated_are_harmless(room: Room, driver: Driver) -> None:
    driver.prepare(FIRST)

    first, second = driver.mounts(FIRST), driver.mounts(FIRST)
    driver.release(1)
    driver.release(1)

    assert first == second
    with shown(room, driver, FIRST) as root:
        (root / "file").write_text("still usable")


def test_mounts_are_data(driver: Driver) -> None:
    driver.prepare(FIRST)

    mounts = driver.mounts(FIRST)

    assert mounts
    assert all(isinstance(mount, Mount) for mount in mounts)


def test_stop_repeated_is_harmless_and_layers_stay(room: Room, driver: Driver) -> None:
    base = committed(room, driver, FIRST, file="x")
    driver.stop()
    driver.stop()

    again = room.driver()
    again.start()

    with shown(room, again, base) as root:
        assert (root / "file").read_text() == "x"


def test_a_layer_that_was_never_mounted_can_be_committed_and_removed(driver: Driver) -> None:
    driver.prepare(FIRST)
    driver.commit(attrs.evolve(FIRST, kind=Kind.COMMITTED))
    driver.prepare(Layer(2, Kind.VIEW, (1,)))

    driver.remove(2)
    driver.remove(1)

    assert driver.layers() == set()


def test_what_a_view_and_a_committed_layer_mount_is_read_only(room: Room, driver: Driver) -> None:
    base = committed(room, driver, FIRST, file="x")
    view = Layer(2, Kind.VIEW, (base.id,))
    driver.prepare(view)

    for layer in (base, view):
        with shown(room, driver, layer) as root, pytest.raises(OSError, match="Read-only file system"):
            (root / "file").write_text("y")


def test_nothing_absolute_is_kept(room: Room, driver: Driver) -> None:
    """The home is moved while nobody uses it; the next object finds everything at its new place."""
    base = committed(room, driver, FIRST, file="x")
    child = committed(room, driver, Layer(2, Kind.ACTIVE, (1,)), more="y")
    driver.stop()
    moved = room.path / "elsewhere"
    shutil.move(room.home, moved)

    again = room.driver_class(moved, room.options)
    again.start()

    for layer, names in ((base, ["file"]), (child, ["file", "more"])):
        with shown(room, again, layer) as root:
            assert sorted(os.listdir(root)) == names
    again.stop()
    shutil.move(moved, room.home)


def test_nothing_stays_mounted_after_release(room: Room, driver: Driver) -> None:
    base = committed(room, driver, FIRST, file="x")
    child = Layer(2, Kind.ACTIVE, (base.id,))
    driver.prepare(child)

    with shown(room, driver, child) as root:
        (root / "file").write_text("y")

    assert mounts_below(room.path) == []


def test_removed_layers_leave_nothing_in_the_home(room: Room, driver: Driver) -> None:
    before = sorted(os.listdir(driver.home))
    base = committed(room, driver, FIRST, **{"file": "x" * 10_000, ".hidden": "x"})
    driver.prepare(Layer(2, Kind.ACTIVE, (base.id,)))

    driver.remove(2)
    driver.remove(1)

    assert sorted(os.listdir(driver.home)) == before

"""Killed where the suite does not kill: in recovery, while others live, and many at once on one store."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import attrs
import pytest

from lamina import rows
from lamina.conformance.crash import Death, Steps, in_a_child, mortal
from lamina.driver import Driver
from lamina.errors import LaminaError
from lamina.layer import Kind
from lamina.mount import mountinfo, unmount
from lamina.snapshotter import Snapshotter
from lamina_overlay.driver import OverlayDriver
from lamina_vfs.driver import VfsDriver

pytestmark = pytest.mark.needs_root

Act = Callable[[Snapshotter], object]


@attrs.frozen
class Room:
    path: Path
    driver: type[Driver]

    @property
    def place(self) -> Path:
        return self.path / "place"

    def open(self, driver: type[Driver] | None = None) -> Snapshotter:
        cls = driver or self.driver
        return Snapshotter(self.path / "store", cls(self.path / "store" / cls.name / "layers"))

    def dies(self, act: Act, fatal: int | None, *, also_opening: bool = False) -> Death:
        """A child opens the store, acts, and is killed at that step."""
        steps = Steps(fatal)

        def work(tell: Callable[[str], None]) -> None:
            if also_opening:
                with steps.watching(), self.open(mortal(self.driver, steps)) as snapshots:
                    act(snapshots)
            else:
                with self.open(mortal(self.driver, steps)) as snapshots, steps.watching():
                    act(snapshots)
            tell("done")

        return in_a_child(work)


@pytest.fixture(params=[VfsDriver, OverlayDriver], ids=lambda cls: cls.name)
def driver(request: pytest.FixtureRequest) -> type[Driver]:
    cls: type[Driver] = request.param
    return cls


@pytest.fixture
def new_room(tmp_path: Path, driver: type[Driver]) -> Iterator[Callable[[], Room]]:
    numbers = iter(range(10_000))

    def new() -> Room:
        room = Room(tmp_path / str(next(numbers)), driver)
        room.place.mkdir(parents=True)
        return room

    yield new
    for point in reversed(mountinfo()):
        if point.target.startswith(os.fsencode(tmp_path) + b"/"):
            unmount(Path(os.fsdecode(point.target)), lazy=True)


def begin(room: Room) -> None:
    """A committed base with content, and an active child."""
    with room.open() as snapshots:
        snapshots.prepare("growing")
        snapshots.mount("growing", room.place)
        (room.place / "file").write_text("base")
        snapshots.unmount(room.place)
        snapshots.commit("base", "growing")
        snapshots.prepare("active", "base")


def assert_sound(room: Room, wanted: list[dict[str, Kind]]) -> None:
    with room.open() as snapshots:
        assert {one.name: one.kind for one in snapshots.list()} in wanted
        with snapshots.look("base") as root:
            assert (root / "file").read_text() == "base"
        kinds = rows.ids(snapshots._store.meta.read())  # noqa: SLF001  # ids are nobody's business but ours
        stored = snapshots.driver.layers()
        assert stored <= kinds.keys()
        assert {layer_id for layer_id, kind in kinds.items() if kind is not Kind.VIEW} <= stored
    below = os.fsencode(room.path) + b"/"
    assert [point.target for point in mountinfo() if point.target.startswith(below)] == []


A, C = Kind.ACTIVE, Kind.COMMITTED
BEFORE = {"base": C, "active": A}

UNFINISHED: list[tuple[str, Act, list[dict[str, Kind]]]] = [
    ("prepare", lambda s: s.prepare("new", "base"), [BEFORE, {**BEFORE, "new": A}]),
    ("commit", lambda s: s.commit("child", "active"), [BEFORE, {"base": C, "child": C}]),
    ("remove", lambda s: s.remove("active"), [BEFORE, {"base": C}]),
    ("look", lambda s: list(s.changes("active")), [BEFORE]),
]


@pytest.mark.parametrize(("verb", "wanted"), [pytest.param(*rest, id=name) for name, *rest in UNFINISHED])
def test_recovery_itself_may_be_killed_at_every_step(
    new_room: Callable[[], Room], verb: Act, wanted: list[dict[str, Kind]]
) -> None:
    middle = _steps_of(new_room(), verb) // 2
    step, killed = 0, True
    while killed:
        step += 1
        room = new_room()
        begin(room)
        assert room.dies(verb, middle).killed

        death = room.dies(lambda _: None, step, also_opening=True)

        assert not death.error, death.error
        killed = death.killed
        assert_sound(room, wanted)


def _steps_of(room: Room, verb: Act) -> int:
    """How many steps the verb has, counted by living through it."""
    begin(room)
    low = 1
    while room.dies(verb, low).killed:
        with room.open() as snapshots:
            for key in ("new", "child", "active", "base"):
                with suppress(LaminaError):
                    snapshots.remove(key)
        begin(room)
        low += 1
    return low - 1


def test_whoever_lives_settles_what_the_dead_left_at_every_step(new_room: Callable[[], Room]) -> None:
    """No restart and no last process to wait for: the key of a killed prepare can be had at once."""
    room = new_room()
    begin(room)
    with room.open() as living:
        step, killed = 0, True
        while killed:
            step += 1
            killed = room.dies(lambda s: s.prepare("key", "base"), step).killed

            with suppress(LaminaError):
                living.remove("key")  # whether it was acknowledged or not
            living.prepare("key", "base")
            living.remove("key")

        living.remove("active")
        living.remove("base")
        assert living.driver.layers() == set()


def _random_life(room: Room, who: str, seed: int) -> Act:
    """Verbs in a random order on keys that all share; refusals are part of life."""
    chance = random.Random(seed)  # noqa: S311  # repeatable, not secret

    def live(snapshots: Snapshotter) -> None:
        for number in range(30):
            key, name = f"key{chance.randrange(4)}", f"name{chance.randrange(6)}"
            verb = chance.choice(["prepare", "prepare", "commit", "remove", "look", "mount", "list"])
            with suppress(LaminaError):
                _do(snapshots, verb, key, name, room.path / f"place-{who}-{number}")

    return live


def _do(snapshots: Snapshotter, verb: str, key: str, name: str, place: Path) -> None:
    if verb == "prepare":
        snapshots.prepare(key, "base")
    elif verb == "commit":
        snapshots.commit(name, key)
    elif verb == "remove":
        snapshots.remove(name)
    elif verb == "look":
        with snapshots.look(key) as root:
            assert (root / "file").read_text() == "base"
    elif verb == "mount":
        place.mkdir()
        snapshots.mount(key, place)
        snapshots.unmount(place)
    else:
        for one in snapshots.list():
            assert one.name


@pytest.mark.parametrize("seed", range(4))
def test_many_processes_on_one_store_of_which_most_are_killed(new_room: Callable[[], Room], seed: int) -> None:
    room = new_room()
    begin(room)
    chance = random.Random(seed)  # noqa: S311
    children: list[int] = []
    for number in range(6):
        fatal = None if number == 0 else chance.randrange(20, 600)
        life = _random_life(room, str(number), seed * 100 + number)
        child = os.fork()
        if child == 0:
            death = room.dies(life, fatal)
            os._exit(1 if death.error else 0)
        children.append(child)

    statuses = [os.waitpid(child, 0)[1] for child in children]

    assert statuses == [0] * len(children)
    with room.open() as snapshots:
        for place in room.path.glob("place-*"):
            with suppress(LaminaError):
                snapshots.unmount(place)
        states = {one.name: one.kind for one in snapshots.list()}
    assert_sound(room, [states])
    with room.open() as snapshots:
        while left := [one.name for one in snapshots.list()]:
            for name in left:
                with suppress(LaminaError):
                    snapshots.remove(name)
        assert snapshots.driver.layers() == set()

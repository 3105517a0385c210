"""Concurrency: many threads and several processes on one store, each with layers of its own or in one race."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from lamina.conformance.crash import in_a_child
from lamina.conformance.harness import Room, assert_ids_agree, edit, grow, mkdir, mounted, read, write
from lamina.errors import AlreadyExists, InUse, NotFound, WrongKind
from lamina.snapshotter import Snapshotter

THREADS, PROCESSES, ROUNDS = 8, 3, 8


def _live_a_life(room: Room, snapshots: Snapshotter, who: str) -> None:
    """Chains of layers, grown, looked at and partly removed; all under names of one's own."""
    parent = "base"
    for number in range(ROUNDS):
        name = f"{who}-{number}"
        grow(room, snapshots, name, write(f"{name}/file", name), write("shared", name), parent=parent)
        snapshots.view(f"{name} view", name)
        assert read(snapshots, f"{name} view", "shared") == name
        snapshots.remove(f"{name} view")
        parent = name
    snapshots.prepare(f"{who} active", parent)
    edit(room, snapshots, f"{who} active", write("shared", "gone with its layer"))
    snapshots.remove(f"{who} active")
    snapshots.remove(parent)


def _assert_all_lived(room: Room, snapshots: Snapshotter, whos: list[str]) -> None:
    wanted = {"base", *(f"{who}-{number}" for who in whos for number in range(ROUNDS - 1))}
    assert {one.name for one in snapshots.list()} == wanted
    assert_ids_agree(room)
    for who in whos:
        last = f"{who}-{ROUNDS - 2}"
        assert read(snapshots, last, "shared") == last
        with snapshots.look(last) as root:
            assert sorted(os.listdir(root)) == sorted(
                ["shared", "below", *(f"{who}-{number}" for number in range(ROUNDS - 1))]
            )


def test_many_threads_grow_many_layers(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("shared", "base"), mkdir("below"))
    whos = [f"thread{number}" for number in range(THREADS)]

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda who: _live_a_life(room, snapshots, who), whos))

    _assert_all_lived(room, snapshots, whos)


def test_several_processes_grow_layers_in_one_store(room: Room) -> None:
    with room.open() as snapshots:
        grow(room, snapshots, "base", write("shared", "base"), mkdir("below"))
    whos = [f"process{number}" for number in range(PROCESSES)]

    def life_of(who: str) -> Callable[[Callable[[str], None]], None]:
        def live(tell: Callable[[str], None]) -> None:
            inside = Room(room.path / who, room.driver_class, room.options)  # places of its own to mount at
            inside.path.mkdir()
            inside.store.symlink_to(room.store)
            with room.open() as snapshots:
                _live_a_life(inside, snapshots, who)
            tell("lived")

        return live

    with ThreadPoolExecutor(PROCESSES) as threads:
        deaths = list(threads.map(lambda who: in_a_child(life_of(who)), whos))

    assert [death.error for death in deaths] == [""] * PROCESSES
    with room.open() as snapshots:
        _assert_all_lived(room, snapshots, whos)


def _how_it_went(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except (AlreadyExists, InUse, NotFound, WrongKind) as error:
        return type(error).__name__
    return "done"


def _race(*attempts: Callable[[], object]) -> list[str]:
    with ThreadPoolExecutor(len(attempts)) as threads:
        return list(threads.map(_how_it_went, attempts))


def test_of_many_who_want_one_key_one_gets_it(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file"))

    went = _race(*[lambda: snapshots.prepare("key", "base")] * THREADS)

    assert sorted(went) == ["AlreadyExists"] * (THREADS - 1) + ["done"]
    assert_ids_agree(room)


def test_of_many_who_commit_one_layer_one_succeeds(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("active")
    edit(room, snapshots, "active", write("file", "x"))

    went = _race(*[partial(snapshots.commit, f"name{number}", "active") for number in range(THREADS)])

    assert went.count("done") == 1
    (committed,) = snapshots.list()
    assert read(snapshots, committed.name, "file") == "x"


def test_of_many_who_remove_one_layer_one_succeeds(room: Room, snapshots: Snapshotter) -> None:
    for number in range(5):
        snapshots.prepare(f"active{number}")

        went = _race(*[partial(snapshots.remove, f"active{number}")] * THREADS)

        assert went.count("done") == 1
    assert room.driver().layers() == set()


def test_a_parent_is_not_removed_under_a_child_that_is_being_made(room: Room, snapshots: Snapshotter) -> None:
    for number in range(10):
        base, child = f"base{number}", f"child{number}"
        grow(room, snapshots, base, write("file", "x"))

        went = _race(
            partial(snapshots.remove, base),
            partial(snapshots.prepare, child, base),
        )

        assert went.count("done") == 1, went
        if went[1] == "done":
            assert read(snapshots, child, "file") == "x"
    assert_ids_agree(room)


def test_many_mount_and_unmount_one_snapshot(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x"))
    snapshots.prepare("active", "base")

    def use(number: int) -> str:
        with mounted(room, snapshots, "active") as root:
            (root / f"from{number}").write_text(str(number))
            return (root / "file").read_text()

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(use, range(THREADS * 3))) == ["x"] * THREADS * 3
    with snapshots.look("active") as root:
        assert len(os.listdir(root)) == THREADS * 3 + 1


def test_listing_goes_on_while_others_change_the_store(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("shared", "base"), mkdir("below"))

    with ThreadPoolExecutor(4) as threads:
        lives = [threads.submit(_live_a_life, room, snapshots, f"thread{number}") for number in range(3)]
        while not all(life.done() for life in lives):
            names = [one.name for one in snapshots.list()]
            assert len(names) == len(set(names))
            assert "base" in names
        for life in lives:
            life.result()

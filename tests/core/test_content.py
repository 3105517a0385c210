"""Tars into snapshots, whatever goes wrong; and how much of it survives a power cut."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rooms import Room, files, grow, tar_of

from lamina import durability
from lamina.errors import (
    BadArchive,
    ConfigError,
)
from lamina.layer import Layer
from lamina.snapshotter import Snapshotter

pytestmark = pytest.mark.needs_root

# content


def test_a_tar_that_fails_leaves_an_empty_snapshot_empty(snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    cut = tar_of(one="1", two="2" * 5000).getvalue()[:3000]

    with pytest.raises(BadArchive):
        snapshots.apply("key", io.BytesIO(cut))

    assert files(snapshots, "key") == {}
    snapshots.apply("key", tar_of(one="1"))
    assert files(snapshots, "key") == {"one": "1"}


def test_a_tar_that_fails_spares_what_was_there_before(snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    snapshots.apply("key", tar_of(before="b"))
    cut = tar_of(one="1", two="2" * 5000).getvalue()[:3000]

    with pytest.raises(BadArchive):
        snapshots.apply("key", io.BytesIO(cut))

    assert files(snapshots, "key")["before"] == "b"
    snapshots.remove("key")


def test_a_tar_is_applied_while_the_snapshot_is_mounted(room: Room, snapshots: Snapshotter) -> None:
    grow(snapshots, room.place(), "base")
    snapshots.prepare("key", "base")
    place = room.place()
    snapshots.mount("key", place)

    snapshots.apply("key", tar_of(new="n"))

    assert (place / "new").read_text() == "n"
    snapshots.unmount(place)


class Pipe(io.RawIOBase):
    """A stream that can only be read on."""

    def __init__(self, content: bytes) -> None:
        self._inner = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._inner.read(size)


@pytest.mark.parametrize("stream", [io.BytesIO, Pipe])
def test_a_tar_that_leans_on_the_parent_is_applied_from_a_file_and_from_a_pipe(
    snapshots: Snapshotter, stream: Callable[[bytes], io.RawIOBase]
) -> None:
    snapshots.prepare("growing")
    snapshots.apply("growing", tar_of(dir__file="x"))
    snapshots.commit("base", "growing")
    snapshots.prepare("key", "base")

    snapshots.apply("key", stream(tar_of(dir__new="n").getvalue()))  # type: ignore[arg-type]  # it reads

    assert files(snapshots, "key") == {"dir/file": "x", "dir/new": "n"}


def test_two_layers_can_be_worked_on_while_a_third_is_busy(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("busy")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(writing)
            with room.open() as mine, open(reading, "rb") as stream:
                mine.apply("busy", stream)
            status = 0
        finally:
            os._exit(status)
    os.close(reading)

    with open(writing, "wb") as stream:
        snapshots.prepare("quick")
        snapshots.commit("quick too", "quick")
        stream.write(tar_of(file="x").getvalue())

    assert os.waitpid(child, 0)[1] == 0
    assert files(snapshots, "busy") == {"file": "x"}


def test_a_driver_is_given_its_ancestors_nearest_first(room: Room) -> None:
    given: list[Layer] = []

    class Noting(room.driver):  # type: ignore[name-defined, misc]  # the class is known only now
        def prepare(self, layer: Layer) -> None:
            given.append(layer)
            super().prepare(layer)

    with room.open(Noting) as snapshots:
        for number in range(3):
            snapshots.prepare("key", f"{number - 1}" if number else None)
            snapshots.commit(str(number), "key")

    assert [layer.parents for layer in given] == [(), (1,), (2, 1)]


# durability


def test_data_is_flushed_before_the_row_says_committed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    flush = durability.sync_all

    def noted(*places: Path) -> None:
        steps.append("flush")
        flush(*places)

    monkeypatch.setattr("lamina.store.sync_all", noted)
    with room.open() as snapshots:
        snapshots.prepare("key")
        connection = snapshots._store.meta.read()  # noqa: SLF001  # the order cannot be seen from outside
        connection.set_trace_callback(lambda sql: steps.append("say") if "kind = 'committed'" in sql else None)
        snapshots.commit("name", "key")
        connection.set_trace_callback(None)

    assert steps.index("flush") < steps.index("say")


@pytest.mark.parametrize(("level", "flushes"), [("none", 0), ("metadata", 0), ("ordered", 1), ("full", 2)])
def test_each_level_flushes_what_it_promises(
    room: Room, monkeypatch: pytest.MonkeyPatch, level: str, flushes: int
) -> None:
    flushed = list[Path]()
    monkeypatch.setattr("lamina.trees.sync_tree", flushed.append)

    with room.open(durability=level) as snapshots:
        snapshots.prepare("key")
        snapshots.commit("name", "key")

    assert len(flushed) == flushes


def test_a_level_that_is_none_is_refused(room: Room) -> None:
    with pytest.raises(ConfigError, match="none, metadata, ordered, full"):
        room.open(durability="paranoid")


def test_at_full_even_an_unmounted_active_snapshot_is_flushed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = list[Path]()
    with room.open(durability="full") as snapshots:
        snapshots.prepare("key")
        snapshots.mount("key", room.place())
        monkeypatch.setattr("lamina.trees.sync_tree", flushed.append)

        snapshots.unmount(room.place())

    assert room.driver(room.root / room.driver.name / "layers").home in flushed

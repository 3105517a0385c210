"""Limits: what a driver says of a size for writable layers (enforced, accounted, refused) is true when it is filled."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import attrs
import pytest

from lamina.conformance.harness import Room, edit, grow, mounted, seen, write
from lamina.conformance.marks import needs_root
from lamina.conformance.witness import assert_same
from lamina.driver import Driver, Limit
from lamina.errors import ConfigError, LaminaError

SIZE = 32 << 20
PIECE = os.urandom(1 << 20)
SLACK = 8 << 20  # bookkeeping, and what was on its way to the disk when the limit was reached


def _takes_sizes(driver: type[Driver]) -> bool:
    return "size" in {field.name for field in attrs.fields(driver.Options)}


@pytest.fixture
def limited(room: Room) -> Room:
    """The same room, with a size for every writable layer."""
    if not _takes_sizes(room.driver_class):
        pytest.skip("the driver has no option `size`: it is refused as an unknown one")
    try:
        return attrs.evolve(room, options=attrs.evolve(room.options or room.driver_class.Options(), size=SIZE))
    except ConfigError as error:
        pytest.skip(f"so small a size is refused: {error}")


@pytest.fixture
def answer(room: Room) -> Limit:
    """What the driver says."""
    room.home.mkdir(parents=True)
    return room.driver().limit()


def _written(root: Path, most: int) -> int:
    """How many bytes the kernel takes before it says that no more may be written; at most about `most`."""
    done = 0
    with (root / "filler").open("wb", buffering=0) as file:
        try:
            while done < most:
                done += file.write(PIECE)
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
    return done


def test_a_driver_without_the_option_says_refused(room: Room, answer: Limit) -> None:
    assert isinstance(answer, Limit)
    assert _takes_sizes(room.driver_class) or answer is Limit.REFUSED


def test_a_refused_size_is_an_error_before_anything_is_written(limited: Room, answer: Limit) -> None:
    if answer is not Limit.REFUSED:
        pytest.skip(f"it is {answer.name.lower()} here")

    assert limited.driver().health().problems
    with limited.open() as snapshots:
        with pytest.raises(LaminaError, match="size"):
            snapshots.prepare("active")
        assert list(snapshots.list()) == []


@needs_root
def test_an_enforced_size_stops_the_writer_and_nobody_else(limited: Room, answer: Limit) -> None:
    if answer is not Limit.ENFORCED:
        pytest.skip(f"it is {answer.name.lower()} here")
    with limited.open() as snapshots:
        grow(limited, snapshots, "base", write("file", "x" * 100_000))
        wanted = seen(snapshots, "base")
        snapshots.prepare("full", "base")
        snapshots.prepare("other", "base")

        with mounted(limited, snapshots, "full") as root:
            taken = _written(root, 3 * SIZE)
            assert SIZE // 2 <= taken <= SIZE + SLACK
            (root / "filler").unlink()
            (root / "again").write_bytes(PIECE)

        edit(limited, snapshots, "other", write("file", "others go on"))
        assert_same(wanted, seen(snapshots, "base"))
        snapshots.commit("smaller", "full")
        assert seen(snapshots, "smaller").keys() == {b"", b"again", b"file"}


@needs_root
def test_an_enforced_size_holds_for_every_child(limited: Room, answer: Limit) -> None:
    """Also for one whose parent was at its limit: each layer has its own."""
    if answer is not Limit.ENFORCED:
        pytest.skip(f"it is {answer.name.lower()} here")
    with limited.open() as snapshots:
        grow(limited, snapshots, "base", lambda root: (root / "base").write_bytes(PIECE * 4))
        snapshots.prepare("child", "base")

        with mounted(limited, snapshots, "child") as root:
            taken = _written(root, 3 * SIZE)

        assert SIZE // 2 <= taken <= SIZE + SLACK


@needs_root
def test_a_store_without_a_size_has_no_limit(room: Room, limited: Room, answer: Limit) -> None:
    """A layer that grows from one made under a limit inherits none."""
    if answer is Limit.REFUSED:
        pytest.skip("it is refused here")
    with limited.open() as snapshots:
        grow(limited, snapshots, "base", write("file", "x"))

    with room.open() as snapshots:
        snapshots.prepare("child", "base")
        with mounted(room, snapshots, "child") as root:
            assert _written(root, SIZE + 2 * SLACK) >= SIZE + 2 * SLACK


@needs_root
def test_an_accounted_size_lets_more_be_written_and_tells_how_much(limited: Room, answer: Limit) -> None:
    if answer is not Limit.ACCOUNTED:
        pytest.skip(f"it is {answer.name.lower()} here")
    with limited.open() as snapshots:
        snapshots.prepare("active")

        with mounted(limited, snapshots, "active") as root:
            assert _written(root, 2 * SIZE) >= 2 * SIZE

        assert snapshots.usage("active").size >= 2 * SIZE

"""Full disks: a typed error, nothing committed is lost, and work goes on when there is room again."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import attrs
import pytest

from lamina.conformance.harness import Room, assert_ids_agree, edit, grow, mounted, seen, write
from lamina.conformance.marks import needs_root
from lamina.conformance.smalldisk import btrfs, ext4, fill, has_loops, kernel_has, tmpfs, wake_the_cleaner
from lamina.conformance.witness import Manifest, assert_same
from lamina.errors import DriverFailed, NoSpace
from lamina.snapshotter import Snapshotter

MEGABYTES = 24
_PATIENCE = 60.0  # seconds
pytestmark = needs_root


DISKS: dict[str, Callable[[Path, Path], AbstractContextManager[Path]]] = {
    "tmpfs": lambda place, _: tmpfs(place, MEGABYTES),
    "ext4": lambda place, image: ext4(place, image, MEGABYTES * 2),
    "btrfs": lambda place, image: btrfs(place, image, MEGABYTES * 3),
}


@pytest.fixture(scope="module")
def unfit() -> dict[str, str]:
    """The disks that are no place for this driver's layers, and why: found out once."""
    return {}


@pytest.fixture(params=DISKS)
def small(request: pytest.FixtureRequest, room: Room, unfit: dict[str, str]) -> Iterator[Room]:
    """A room on a disk of its own, which can be filled."""
    if request.param != "tmpfs" and not has_loops():
        pytest.skip("this kernel has no loop devices")
    if not kernel_has(request.param):
        pytest.skip(f"this kernel has no {request.param}")
    if request.param in unfit:
        pytest.skip(unfit[request.param])
    place = room.place("disk")
    with DISKS[request.param](place, room.path / "image"):
        inner = attrs.evolve(room, path=place)
        if why := _unfitness(inner):
            unfit[request.param] = f"not on {request.param}: {why}"
            pytest.skip(unfit[request.param])
        yield inner
        inner.clear_store()


def _unfitness(room: Room) -> str:
    """Why this disk cannot be filled by the driver's layers; nothing if it can."""
    health = room.driver().health()
    if not health.ok:
        return "; ".join(health.problems)
    return "layers lie in a pool, not in the home: the driver's own tests fill that" if _lie_elsewhere(room) else ""


def _lie_elsewhere(room: Room) -> bool:
    """Whether what is written to a layer leaves the disk that we are about to fill as it was."""
    written = 4 << 20
    with room.open() as snapshots:
        snapshots.prepare("probe")
        with mounted(room, snapshots, "probe") as root:
            free = _free(room.path)
            with (root / "file").open("wb", buffering=0) as file:
                file.write(os.urandom(written))
                os.fsync(file.fileno())
            taken = free - _free(room.path)
        snapshots.remove("probe")
    return taken < written // 2


@contextmanager
def full(room: Room) -> Iterator[None]:
    """Not a block is free."""
    ballast = fill(room.path)
    try:
        yield
    finally:
        ballast.unlink()


def _base(room: Room, snapshots: Snapshotter) -> Manifest:
    grow(room, snapshots, "base", write("file", "x" * 100_000), *(write(f"dir/{number}", "y") for number in range(50)))
    return seen(snapshots, "base")


def _big_layer() -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("big")
        member.size = (MEGABYTES * 3) << 20
        tar.addfile(member, io.BytesIO(os.urandom(1 << 20) * (MEGABYTES * 3)))
    out.seek(0)
    return out


def _failed_for_want_of_space(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except NoSpace:
        return True
    except DriverFailed as error:
        if "space" in str(error).lower():
            return True
        raise
    return False


VERBS: list[tuple[str, Callable[[Snapshotter], object]]] = [
    ("prepare", lambda s: s.prepare("new", "base")),
    ("prepare of nothing", lambda s: s.prepare("new")),
    ("view", lambda s: s.view("new", "base")),
    ("commit", lambda s: s.commit("new", "active")),
    ("apply", lambda s: s.apply("active", _big_layer())),
    ("label", lambda s: s.label("base", {"key": "v" * 3000})),
]


@pytest.mark.parametrize("verb", [pytest.param(verb, id=name) for name, verb in VERBS])
def test_a_verb_on_a_full_disk_works_or_says_so_and_can_be_repeated_later(
    small: Room, verb: Callable[[Snapshotter], object]
) -> None:
    with small.open() as snapshots:
        wanted = _base(small, snapshots)
        snapshots.prepare("active", "base")
        before = {one.name for one in snapshots.list()}

        with full(small):
            failed = _failed_for_want_of_space(lambda: verb(snapshots))
            assert before - {"active"} <= {one.name for one in snapshots.list()}

        assert_same(wanted, seen(snapshots, "base"))
        if failed:
            assert {one.name for one in snapshots.list()} == before
            assert_ids_agree(small)
    with small.open() as snapshots:
        assert_same(wanted, seen(snapshots, "base"))
        assert_ids_agree(small)
        grow(small, snapshots, "later", write("file", "works again"), parent="base")


def test_an_archive_too_big_for_the_disk_is_refused_and_its_layer_can_be_removed(small: Room) -> None:
    with small.open() as snapshots:
        wanted = _base(small, snapshots)
        free = _free(small.path)
        snapshots.prepare("active", "base")

        with pytest.raises((NoSpace, DriverFailed), match=r"(?i)space"):
            snapshots.apply("active", _big_layer())
        snapshots.remove("active")

        assert _frees(small.path, free - (2 << 20))
        assert_same(wanted, seen(snapshots, "base"))
        grow(small, snapshots, "later", write("file", "works again"), parent="base")


def test_a_user_who_fills_the_disk_is_told_by_the_kernel_and_loses_nothing_committed(small: Room) -> None:
    with small.open() as snapshots:
        wanted = _base(small, snapshots)
        snapshots.prepare("active", "base")
        with mounted(small, snapshots, "active") as root:
            fill(root)

        snapshots.remove("active")

        assert_same(wanted, seen(snapshots, "base"))
        snapshots.prepare("again", "base")
        edit(small, snapshots, "again", write("file", "works again"))


def test_space_can_be_freed_by_removing_layers_of_a_full_store(small: Room) -> None:
    with small.open() as snapshots:
        wanted = _base(small, snapshots)
        grow(small, snapshots, "large", lambda root: (root / "large").write_bytes(os.urandom(4 << 20)), parent="base")

        with full(small):
            snapshots.remove("large")

        assert {one.name for one in snapshots.list()} == {"base"}
        assert_ids_agree(small)
        assert_same(wanted, seen(snapshots, "base"))


def _frees(place: Path, wanted: int) -> bool:
    """Whether so much is free, in the end: btrfs takes a removed subvolume away behind our back."""
    until = time.monotonic() + _PATIENCE
    while _free(place) < wanted and time.monotonic() < until:
        wake_the_cleaner(place)
    return _free(place) >= wanted


def _free(place: Path) -> int:
    told = os.statvfs(place)
    return told.f_bavail * told.f_bsize

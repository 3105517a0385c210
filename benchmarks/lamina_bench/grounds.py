"""Where a driver can work: a file system or a pool in a file, new for it, and gone afterwards."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from loops import btrfs_on_a_loop
from zfsdaemon import zfs_house

from lamina_bench.cleaning import clear, lacking

_MEGABYTES: Final = 4096  # sparse: only what is written takes room


@attrs.frozen
class Ground:
    """A directory for the store, the words that run a program where it is to be seen, and options of the driver."""

    root: Path
    words: tuple[str, ...] = ()
    options: Mapping[str, Any] = attrs.field(factory=dict)


@contextmanager
def _ext4(place: Path) -> Iterator[Ground]:
    image, root = place / "ext4.img", place / "ext4"
    with image.open("wb") as file:
        file.truncate(_MEGABYTES << 20)
    root.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, root], check=True)
    try:
        yield Ground(root)
    finally:
        clear(root / "store")
        subprocess.run(["umount", root], check=True)
        image.unlink()


@contextmanager
def _btrfs(place: Path) -> Iterator[Ground]:
    with btrfs_on_a_loop(place, megabytes=_MEGABYTES) as root:
        yield Ground(root)


@contextmanager
def _zfs(place: Path) -> Iterator[Ground]:
    with zfs_house(place, megabytes=_MEGABYTES) as house:
        yield Ground(place, tuple(house.inside([])), {"dataset": f"{house.pool}/layers"})


@contextmanager
def _plain(place: Path) -> Iterator[Ground]:
    yield Ground(place)


GROUNDS: Final[Mapping[str, Callable[[Path], AbstractContextManager[Ground]]]] = {
    "overlay": _ext4,
    "fuse": _ext4,
    "vfs": _ext4,
    "btrfs": _btrfs,
    "zfs": _zfs,
    "devmapper": _plain,  # makes its pool in files by itself
    "aufs": _ext4,
}
_PROGRAMS: Final[Mapping[str, tuple[str, ...]]] = {"btrfs": ("mkfs.btrfs",), "zfs": ("zfs-fuse", "zfs", "zpool")}


def missing_for(driver: str) -> tuple[str, ...]:
    """The programs without which there is no ground for a driver."""
    return lacking(*_PROGRAMS.get(driver, ()))

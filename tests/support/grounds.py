"""What each driver of the host lane stands on: any directory, a btrfs in a file, a pool of a zfs-fuse of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import attrs
from loops import btrfs_on_a_loop
from zfsdaemon import zfs_house

Argv = Sequence[str | os.PathLike[str]]


def _here(argv: Argv) -> list[str]:
    return [os.fspath(word) for word in argv]


@attrs.frozen
class Ground:
    """A place for stores of one driver."""

    driver: str
    place: Path
    pool: str = ""
    inside: Callable[[Argv], list[str]] = _here  # the words that run a program where the driver's mounts can be seen
    root: Path = Path("/")  # where what is mounted there can be seen from here

    def config(self, store: str) -> str:
        """The config file of a store of that name."""
        return f'[drivers.zfs]\ndataset = "{self.pool}/{store}"\n' if self.pool else ""


@contextmanager
def _anywhere(driver: str, where: Path) -> Iterator[Ground]:
    yield Ground(driver, where)


@contextmanager
def _on_btrfs(driver: str, where: Path) -> Iterator[Ground]:
    with btrfs_on_a_loop(where) as place:
        yield Ground(driver, place)


@contextmanager
def _beside_zfs(driver: str, where: Path) -> Iterator[Ground]:
    with zfs_house(where) as house:
        yield Ground(driver, where, house.pool, house.inside, Path(f"/proc/{house.pid}/root"))


_GROUNDS: dict[str, Callable[[str, Path], AbstractContextManager[Ground]]] = {"btrfs": _on_btrfs, "zfs": _beside_zfs}


def ground(driver: str, where: Path) -> AbstractContextManager[Ground]:
    """The driver can be used there for the length of a `with`; `where` is an empty directory."""
    return _GROUNDS.get(driver, _anywhere)(driver, where)

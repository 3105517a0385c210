"""The few words of zfs(8) that OpenZFS and zfs-fuse have in common, one dataset or snapshot a call."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lamina.errors import ProgramFailed
from lamina.programs import run
from lamina.syscalls import opened

_PATIENCE: Final = 10.0  # seconds for a dataset to become idle: the kernel still closes what was open in it
_PAUSE: Final = 0.05
_MOUNTING: Final = frozenset({"clone", "create", "mount", "set"})  # words after which zfs-fuse may mount something
_SOCKETS: Final = Path("/var/run/zfs")  # of zfs-fuse; OpenZFS has none


def zfs(*words: str) -> str:
    """Run it; ProgramFailed with its words, NotFound if it is not installed.

    It dies with us: what it would make afterwards, whoever opens the store next would not know of.
    """
    with _alone() if words[0] in _MOUNTING else contextlib.nullcontext():
        return run("zfs", *words, mortal=True)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """No other call of ours mounts meanwhile, of whatever process or store.

    zfs-fuse passes what it has mounted on to the thread that serves it in two writes to one pipe, without a lock. Two
    mounts at once mix them, and that thread then waits for ever: no file system of the daemon answers any more.
    """
    if not _SOCKETS.is_dir():
        yield
        return
    with opened(_SOCKETS, os.O_RDONLY | os.O_DIRECTORY) as daemon:
        fcntl.flock(daemon, fcntl.LOCK_EX)
        yield


def value(name: str, prop: str) -> str:
    """A property, numbers in full; "-" where it is not set."""
    return zfs("get", "-Hp", "-o", "value", prop, name).strip()


def value_if_there(dataset: str, prop: str) -> str | None:
    """The same; None if there is no such dataset."""
    try:
        return value(dataset, prop)
    except ProgramFailed as error:
        if "does not exist" in error.stderr:
            return None
        raise


def children(dataset: str) -> list[str]:
    """The names directly below a dataset."""
    told = zfs("list", "-H", "-r", "-d", "1", "-t", "filesystem", "-o", "name", dataset)
    return [name.removeprefix(f"{dataset}/") for name in told.splitlines() if name != dataset]


def patiently(*words: str) -> None:
    """Run it again while zfs says that the dataset is busy; at last raise what it said."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            zfs(*words)
            return
        except ProgramFailed as error:
            if "busy" not in error.stderr.lower() or time.monotonic() > until:
                raise
        time.sleep(_PAUSE)


def destroy(dataset: str) -> None:
    """The dataset and its snapshots are gone. What was cloned from them takes them over first, and stays."""
    while True:
        try:
            patiently("destroy", "-r", dataset)
            return
        except ProgramFailed as error:
            if "does not exist" in error.stderr:
                return
            clone = _clone_of(dataset) if "dependent clones" in error.stderr else None
            if clone is None:
                raise
            zfs("promote", clone)


def _clone_of(dataset: str) -> str | None:
    """Some dataset that began as a snapshot of this one; looked for only when it is in the way."""
    told = zfs("list", "-H", "-r", "-t", "filesystem", "-o", "name,origin", dataset.rpartition("/")[0])
    pairs = [line.split("\t") for line in told.splitlines()]
    return next((name for name, origin in pairs if origin.partition("@")[0] == dataset), None)

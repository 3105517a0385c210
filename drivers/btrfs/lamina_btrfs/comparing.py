"""What may differ between a layer and its parent, as btrfs knows it: the metadata half of `btrfs send`."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from lamina.descent import DIRECTORY, walk
from lamina.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2, opened
from lamina_btrfs import ioctls, subvolume
from lamina_btrfs.stream import Mentioned, paths_in

_SEEN: Final = os.O_PATH | os.O_NOFOLLOW


def candidates(parent: Path, layer: Path, work: Path) -> set[bytes] | None:
    """The paths that may differ, and perhaps more. None if the kernel does not tell us (it tells only root).

    A layer that can still be written to is frozen for it, as a snapshot in the directory `work`.
    """
    try:
        with _frozen(layer, work) as still:
            told = paths_in(_sent(parent, still))
        with opened(parent, DIRECTORY) as old, opened(layer, DIRECTORY) as new:
            found = told.paths | set(_below_placed(old, new, told)) | set(_in_nested(old, new))
            return found | set(_other_names(new, found))
    except OSError as error:
        if error.errno == errno.EIO:
            raise
        return None


@contextmanager
def _frozen(layer: Path, work: Path) -> Iterator[Path]:
    """The layer itself if it is committed, else a snapshot that is gone afterwards.

    It is locked meanwhile, so that `sweep` of another process leaves it alone, and finds it when we have died.
    """
    if subvolume.info(layer).read_only:
        yield layer
        return
    place = work / f"{layer.name}-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        subvolume.clone(layer, place, read_only=True)
        with opened(place, DIRECTORY) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield place
    finally:
        subvolume.remove(place)


def sweep(work: Path) -> None:
    """Nothing is left of those who died while they compared."""
    for place in work.iterdir():
        with suppress(OSError), opened(place, DIRECTORY) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            subvolume.remove(place)


def _sent(parent: Path, layer: Path) -> bytes:
    sink = os.memfd_create("lamina-send", os.MFD_CLOEXEC)
    try:
        with opened(layer, DIRECTORY) as still:
            ioctls.send(still, subvolume.info(parent).id, sink)
        return os.pread(sink, os.fstat(sink).st_size, 0)
    finally:
        os.close(sink)


def _below_placed(old: int, new: int, told: Mentioned) -> Iterator[bytes]:
    """Everything below a directory that was moved to where another one had been."""
    for path in told.placed:
        for root, other in ((old, new), (new, old)):
            if path and _is_directory(other, path):
                yield from _below(root, path)


def _in_nested(old: int, new: int) -> Iterator[bytes]:
    """Everything in subvolumes that were made inside the layer, of which `send` says nothing."""
    for path in ioctls.nested(new):
        yield path
        yield from _below(new, path)
        yield from _below(old, path)


def _below(root: int, path: bytes) -> Iterator[bytes]:
    with suppress(OSError), _opened_inside(root, path, DIRECTORY) as directory:
        for entry in walk(directory):
            yield path + b"/" + entry.path


def _other_names(new: int, paths: set[bytes]) -> Iterator[bytes]:
    """All names of the files that have several: core wants to see them together."""
    done = set[int]()
    for path in paths:
        with suppress(OSError), _opened_inside(new, path, _SEEN) as entry:
            status = os.fstat(entry)
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode) and status.st_ino not in done:
                done.add(status.st_ino)
                yield from ioctls.names_of(new, status.st_ino)


def _is_directory(root: int, path: bytes) -> bool:
    with suppress(OSError), _opened_inside(root, path, DIRECTORY):
        return True
    return False


@contextmanager
def _opened_inside(root: int, path: bytes, flags: int) -> Iterator[int]:
    """Through no link, and never out of the tree: what is in there was made by containers."""
    descriptor = openat2(root, path or b".", flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

"""The place where a layer that is written to is joined with its parents: mounted by us, and settled before it goes."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from lamina import syscalls
from lamina.mount import Mount, mount_all, unmount
from lamina.trees import remove_tree
from lamina_aufs.plinks import PLINKS, settle

_JOINED: Final = "joined"
_OWN: Final = (".wh..wh.aufs", ".wh..wh.orph", PLINKS)  # what aufs keeps for itself at the root of a writable branch
_PATIENCE: Final = 5.0  # seconds
_PAUSE: Final = 0.05


def bring_up(place: Path, mounts: Sequence[Mount]) -> Path:
    """Where the layer in `place` is joined with its parents; mounted now, unless it is already.

    What aufs of an earlier boot has left in the layer goes before: its numbers mean nothing any more.
    """
    joined = place / _JOINED
    if is_up(place):
        return joined
    clear(place / "fs")
    joined.mkdir(mode=0o700, exist_ok=True)
    with times_kept(place / "fs"):  # aufs writes into the root, whose times all would see
        mount_all(mounts, joined)
    # what a container mounts inside of its root must not appear here as well
    syscalls.mount(b"none", os.fsencode(joined), None, syscalls.MS_PRIVATE)
    return joined


def is_up(place: Path) -> bool:
    """Whether the layer in `place` is joined now, as this mount namespace sees it."""
    try:
        return (place / _JOINED).stat().st_dev != place.stat().st_dev
    except FileNotFoundError:
        return False


def settle_up(place: Path) -> None:
    """If the layer is joined, its own directory tells all that the joined tree shows; see `plinks`."""
    if is_up(place):
        settle(place / "fs", place / _JOINED)


def take_down(place: Path, *, wanted: bool = True) -> None:
    """The layer is not joined any more, and nothing of aufs itself is left in it.

    Raises `OSError` if somebody works in our own mount for more than some seconds (EBUSY), or if there is no room to
    settle it (ENOSPC); then it stays as it was. One that is not `wanted` any more is not settled.
    """
    if is_up(place):
        if wanted:
            settle_up(place)
        _unmount_patiently(place / _JOINED)
    clear(place / "fs")
    with contextlib.suppress(FileNotFoundError):
        (place / _JOINED).rmdir()


def clear(fs: Path) -> None:
    """Nothing of aufs itself is left at the root of a branch that is mounted nowhere."""
    left = [fs / name for name in _OWN if os.path.lexists(fs / name)]
    if left:
        with times_kept(fs):
            for each in left:
                remove_tree(each)


@contextlib.contextmanager
def times_kept(directory: Path) -> Iterator[None]:
    """The directory's times afterwards are those of before."""
    before = directory.stat()
    try:
        yield
    finally:
        os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))


def _unmount_patiently(joined: Path) -> None:
    """aufs may still be at work for those who left a moment ago."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            unmount(joined)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > until:
                raise
        time.sleep(_PAUSE)

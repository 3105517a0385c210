"""Subvolumes by path: made, frozen, taken apart with all that was nested in them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lamina.syscalls import opened
from lamina.trees import remove_tree
from lamina_btrfs import ioctls

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def make(place: Path) -> None:
    """An empty subvolume at `place`."""
    with _above(place) as parent:
        ioctls.create(parent, os.fsencode(place.name))


def clone(source: Path, place: Path, *, read_only: bool = False) -> None:
    """A subvolume at `place` that shares everything with the one at `source` until either is written to."""
    with opened(source, _DIRECTORY) as original, _above(place) as parent:
        ioctls.snapshot(original, parent, os.fsencode(place.name), read_only=read_only)


def is_subvolume(place: Path) -> bool:
    """Whether a subvolume stands there; on other file systems than btrfs the answer means nothing."""
    try:
        return place.lstat().st_ino == ioctls.ROOT_INODE
    except FileNotFoundError:
        return False


def freeze(place: Path) -> None:
    """Nothing in the subvolume can be changed any more, by nobody."""
    with opened(place, _DIRECTORY) as subvolume:
        if not ioctls.is_read_only(subvolume):
            ioctls.set_read_only(subvolume, read_only=True)


def thaw(place: Path) -> None:
    """The subvolume can be written to by whoever its modes allow."""
    with opened(place, _DIRECTORY) as subvolume:
        if ioctls.is_read_only(subvolume):
            ioctls.set_read_only(subvolume, read_only=False)


def info(place: Path) -> ioctls.SubvolumeInfo:
    """What the kernel knows of the subvolume."""
    with opened(place, _DIRECTORY) as subvolume:
        return ioctls.info(subvolume)


def nested_in(place: Path) -> list[Path]:
    """The subvolumes inside this one, at any depth, outermost first."""
    with opened(place, _DIRECTORY) as subvolume:
        found = [place / os.fsdecode(path) for path in ioctls.nested(subvolume)]
    return [each for one in found for each in (one, *nested_in(one))]


def remove(place: Path) -> None:
    """Nothing is at `place`: no subvolume, and none that was nested in it. What was not there does not matter."""
    if not is_subvolume(place):
        remove_tree(place)
        return
    for each in (*reversed(nested_in(place)), place):
        _destroy(each)


def _destroy(place: Path) -> None:
    with _above(place) as parent:
        name = os.fsencode(place.name)
        try:
            ioctls.destroy(parent, name)
        except OSError as error:
            if error.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
                raise
            _open_up(place)
            _destroy_or_empty(parent, place)


def _destroy_or_empty(parent: int, place: Path) -> None:
    try:
        ioctls.destroy(parent, os.fsencode(place.name))
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        remove_tree(place)  # an ordinary user without user_subvol_rm_allowed: a subvolume that is empty may go


def _open_up(place: Path) -> None:
    """What keeps an ordinary user from removing his own: a frozen subvolume, a mode that forbids to write."""
    thaw(place)
    if os.geteuid() != 0:
        with contextlib.suppress(PermissionError):
            place.chmod(place.lstat().st_mode | 0o700)


@contextlib.contextmanager
def _above(place: Path) -> Iterator[int]:
    with opened(place.parent, os.O_RDONLY | os.O_DIRECTORY) as parent:
        yield parent

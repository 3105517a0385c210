"""Subvolumes that were made inside a layer become directories: a snapshot of the layer would show them empty."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lamina.syscalls import RENAME_EXCHANGE, opened, renameat2
from lamina.trees import copy_tree
from lamina_btrfs import ioctls, subvolume

_PREFIX: Final = ".lamina-flat-"


def flatten(place: Path) -> None:
    """The subvolume holds the same tree, and no other subvolume. What an interrupted try has left is cleared away.

    Contents are shared with the original while they are copied, so this takes time for names and attributes only.
    """
    _clear(place)
    with opened(place, os.O_RDONLY | os.O_DIRECTORY) as root:
        nested = list(ioctls.nested(root))
    for number, path in enumerate(nested):
        with _times_kept(place), _times_kept((place / os.fsdecode(path)).parent):
            _replace(place, place / os.fsdecode(path), place / f"{_PREFIX}{number}")


def _replace(root: Path, nested: Path, copy: Path) -> None:
    try:
        copy_tree(nested, copy)  # with what is nested in it in turn
        subvolume.thaw(nested)  # a frozen one cannot be moved
        with opened(nested.parent, os.O_RDONLY | os.O_DIRECTORY) as above, opened(root, os.O_RDONLY) as top:
            renameat2(top, os.fsencode(copy.name), above, os.fsencode(nested.name), RENAME_EXCHANGE)
    finally:
        subvolume.remove(copy)


def _clear(place: Path) -> None:
    left = [name for name in os.listdir(place) if name.startswith(_PREFIX)]
    for name in left:
        subvolume.remove(place / name)


@contextlib.contextmanager
def _times_kept(directory: Path) -> Iterator[None]:
    """The container did not touch this directory, and so it must not look touched."""
    before = directory.stat()
    yield
    os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))

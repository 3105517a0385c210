"""A file or directory of a container as a tar, as `cp CONTAINER:PATH -` writes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from lamina.archive import write_layer
from lamina.changes import Change, ChangeKind
from lamina.containers.merging import refuse_mount
from lamina.containers.places import Place, Tree, found, means_directory
from lamina.descent import DIRECTORY, walk
from lamina.errors import NotFound
from lamina.syscalls import opened


def pack(tree: Tree, path: bytes, out: BinaryIO, *, follow: bool) -> None:
    """Write what is at `path`, under its last name; what `DIRECTORY/.` holds under names of its own."""
    with found(tree, path, follow=follow or means_directory(path)) as place:
        if place.status is None or (means_directory(path) and not place.is_directory):
            raise NotFound(f"nothing is at {os.fsdecode(path)!r}")
        with opened(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place.directory) as root:
            write_layer(root, _everything(place), out)


def _everything(place: Place) -> Iterator[Change]:
    prefix = b"" if place.name == b"." else place.name
    yield Change(prefix, ChangeKind.ADDED)
    if place.is_directory:
        with opened(place.name, DIRECTORY, dir_fd=place.directory) as top:
            for entry in walk(top, barred=refuse_mount):
                yield Change(b"/".join(filter(None, (prefix, entry.path))), ChangeKind.ADDED)

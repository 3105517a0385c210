"""The layer between an image and its containers: the places on which something is mounted while they run.

Without it, every container would seem to have added an empty /etc/hosts, and a commit would put that into an image.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from lamina.containers.merging import replace
from lamina.containers.places import Tree, inside
from lamina.errors import AlreadyExists, NotFound
from lamina.images.unpack import LABEL
from lamina.images.work import Work
from lamina.syscalls import opened

_DIRECTORIES: Final = (b"dev", b"dev/pts", b"dev/shm", b"dev/mqueue", b"etc", b"proc", b"run", b"sys")
_FILES: Final = (b"dev/console", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf")


def stand_on(work: Work, chain_id: str | None, scratch: Path) -> str:
    """The name of the snapshot that containers of this image stand on; it is there, and held by `work`.

    `scratch` is a directory in which it may be mounted for a moment.
    """
    name = f"ground-{chain_id or 'nothing'}"
    snapshots = work.shelves.snapshots
    key = f"ground-{secrets.token_hex(8)}"
    work.hold([work.shelves.snapshot(name), work.shelves.snapshot(key)])
    with contextlib.suppress(NotFound):
        snapshots.stat(name)
        return name
    labels = {LABEL: "ground"}
    snapshots.prepare(key, chain_id, labels)
    place = Path(tempfile.mkdtemp(prefix="ground-", dir=scratch))
    try:
        snapshots.mount(key, place)
        try:
            with inside(place) as tree:
                _furnish(tree)
        finally:
            snapshots.unmount(place)
    finally:
        place.rmdir()
    try:
        snapshots.commit(name, key, labels=labels)
    except AlreadyExists:  # another process was quicker
        snapshots.remove(key)
    return name


def _furnish(tree: Tree) -> None:
    for path in _DIRECTORIES:
        make_directories(tree, path)
    with contextlib.suppress(FileExistsError), tree.opened(b"etc", os.O_PATH | os.O_DIRECTORY) as etc:
        os.symlink(b"/proc/mounts", b"mtab", dir_fd=etc)  # as docker gives it to images that have none
    for path in _FILES:
        above, name = os.path.split(path)
        with contextlib.suppress(OSError), tree.opened(above, os.O_PATH | os.O_DIRECTORY) as directory:
            if name not in map(os.fsencode, os.listdir(f"/proc/self/fd/{directory}")):
                replace(directory, name, lambda part, there=directory: _touch(there, part))  # type: ignore[misc]


def _touch(directory: int, name: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o644, dir_fd=directory)
    os.fchmod(descriptor, 0o644)
    os.close(descriptor)


def make_directories(tree: Tree, path: bytes, *, owner: tuple[int, int] | None = None) -> None:
    """The directory and those above it are there, as the tree sees its path. `OSError` if a file is in the way."""
    done = b"/"
    for name in filter(None, path.split(b"/")):
        with tree.opened(done, os.O_PATH | os.O_DIRECTORY) as above, contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=above)
            with opened(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above) as made:
                os.fchmod(made, 0o755)  # as any directory, whatever the umask says
                if owner is not None:
                    os.fchown(made, *owner)
        done = os.path.join(done, name)

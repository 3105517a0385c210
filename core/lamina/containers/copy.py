"""Copy files between a container and the host, as `docker cp` does; nothing leaves the container's tree unasked."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lamina.containers.merging import Merge
from lamina.containers.places import HOST, Place, Tree, found, inside, last_name, means_contents, means_directory
from lamina.descent import DIRECTORY, Entry
from lamina.errors import BadRequest, NotFound
from lamina.likeness import Owner
from lamina.syscalls import opened


def copy_out(root: Path, path: bytes, target: bytes | BinaryIO, *, archive: bool = False, follow: bool = False) -> None:
    """Copy `path` of the container whose tree is at `root` to the host's path `target`, or into a stream as a tar.

    A directory that is there gets the copy below it under its own name, or, of `PATH/.`, what that holds. What has
    another type is not replaced: BadRequest. NotFound if nothing is at `path`, or no directory above `target`. Links
    are copied, not followed; with `follow` the one that `path` itself is. The files are the caller's, with `archive`
    those of their owners; in a tar they always are. When this fails, files that were copied stay, each of them whole.
    """
    with inside(root) as tree:
        if isinstance(target, bytes):
            _copy(tree, path, HOST, target, owner=_owner(archive=archive), follow=follow)
            return
        from lamina.containers.packing import pack  # noqa: PLC0415  # the tar machinery, which most copies do without

        pack(tree, path, target, follow=follow)


def copy_in(root: Path, source: bytes | BinaryIO, path: bytes, *, archive: bool = False, follow: bool = False) -> None:
    """Copy the host's path `source`, or a tar from a stream, to `path` of the container whose tree is at `root`.

    As `copy_out`; the files are root's. A tar is unpacked into a directory; BadArchive if it is broken, or has `..`
    in a name. However links of the container are laid, nothing is written outside its tree.
    """
    with inside(root) as tree:
        if isinstance(source, bytes):
            _copy(HOST, source, tree, path, owner=_owner(archive=archive), follow=follow)
            return
        from lamina.containers.unpacking import unpack  # noqa: PLC0415

        unpack(tree, path, source, _owner(archive=archive))


def _owner(*, archive: bool) -> Owner | None:
    """Whose the copies will be: those of the one who copies, who in a container is root; None for as they were."""
    return None if archive else (os.geteuid(), os.getegid())


def _copy(  # noqa: PLR0913  # two trees, two paths, two ways
    source_tree: Tree, source: bytes, target_tree: Tree, target: bytes, *, owner: Owner | None, follow: bool
) -> None:
    with found(source_tree, source, follow=follow or means_directory(source)) as origin:
        if origin.status is None or (means_directory(source) and not origin.is_directory):
            raise NotFound(f"nothing is at {os.fsdecode(source)!r}")
        with _destination(origin, source, target_tree, target) as (directory, name):
            if origin.is_directory:
                with opened(origin.name, DIRECTORY, dir_fd=origin.directory) as top:
                    Merge(owner).tree(top, directory, name)
            else:
                Merge(owner).one(Entry(origin.directory, origin.name, source, origin.status), directory, name)


@contextmanager
def _destination(origin: Place, source: bytes, tree: Tree, target: bytes) -> Iterator[tuple[int, bytes]]:
    """The open directory and the name in it that the copy will have."""
    with found(tree, target, follow=True) as place:
        if not place.is_directory:
            _check_free(origin, place, target)
        elif not (origin.is_directory and means_contents(source)):
            with opened(place.name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place.directory) as directory:
                yield directory, last_name(source)
                return
        yield place.directory, place.name


def _check_free(origin: Place, place: Place, target: bytes) -> None:
    """Refuse what is no directory to begin with, and would have to be one."""
    shown = repr(os.fsdecode(target))
    if place.status is None:
        if means_directory(target) and not origin.is_directory:
            raise NotFound(f"there is no directory {shown}")
    elif origin.is_directory:
        raise BadRequest(f"{shown} is no directory, and a directory cannot replace it")
    elif means_directory(target):
        raise NotFound(f"{shown} is no directory")
    elif not stat.S_ISREG(place.status.st_mode):
        raise BadRequest(f"{shown} is no file, and only a file is replaced; `-` writes a tar to stdout")

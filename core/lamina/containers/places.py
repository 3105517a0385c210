"""Places in a tree, found by the kernel, which lets no link lead out of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from lamina import syscalls
from lamina.errors import NotFound
from lamina.syscalls import opened

_LINKS: Final = 40  # as many as the kernel follows, too


@attrs.frozen
class Tree:
    """Where paths begin, and how far they may lead."""

    root: int
    resolve: int = 0

    @contextmanager
    def opened(self, path: bytes, flags: int) -> Iterator[int]:
        """A descriptor for the length of a `with`."""
        descriptor = syscalls.openat2(self.root, path or b".", flags, resolve=self.resolve)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


HOST: Final = Tree(syscalls.AT_FDCWD)


@contextmanager
def inside(root: Path) -> Iterator[Tree]:
    """The tree below a directory. Absolute links and `..` lead to its root, as for a process that lives in it."""
    with opened(root, os.O_PATH | os.O_DIRECTORY) as descriptor:
        yield Tree(descriptor, syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS)


@attrs.frozen
class Place:
    """A name in an open directory (an O_PATH one), and what is there: its lstat, or None."""

    directory: int
    name: bytes  # b"." for the directory itself
    status: os.stat_result | None

    @property
    def is_directory(self) -> bool:
        """Whether a directory is there."""
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)


@contextmanager
def found(tree: Tree, path: bytes, *, follow: bool) -> Iterator[Place]:
    """Where a path leads; with `follow` also through a link at its end. NotFound if the directory above is missing."""
    for _ in range(_LINKS):
        above, name = os.path.split(path.rstrip(b"/"))
        if name in {b"", b".", b".."}:
            with _directory(tree, path) as directory:
                yield Place(directory, b".", os.fstat(directory))
            return
        with _directory(tree, above or (b"/" if path.startswith(b"/") else b".")) as directory:
            status = _lstat(directory, name)
            if not (follow and status is not None and stat.S_ISLNK(status.st_mode)):
                yield Place(directory, name, status)
                return
            path = os.path.join(above, os.readlink(name, dir_fd=directory))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))


@contextmanager
def _directory(tree: Tree, path: bytes) -> Iterator[int]:
    try:
        opening = tree.opened(path, os.O_PATH | os.O_DIRECTORY)
        directory = opening.__enter__()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no directory {os.fsdecode(path)!r}") from None
    try:
        yield directory
    finally:
        opening.__exit__(None, None, None)


def _lstat(directory: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


# what the end of a path says


def means_contents(path: bytes) -> bool:
    """Whether a path stands for what its directory holds: it ends with `/.`, or is the root."""
    return path in {b"", b"."} or path.endswith(b"/.") or not path.strip(b"/")


def means_directory(path: bytes) -> bool:
    """Whether a path can only be a directory's."""
    return means_contents(path) or path.endswith(b"/")


def last_name(path: bytes) -> bytes:
    """How a copy of it is called; empty for the root."""
    return os.path.basename(os.path.normpath(b"/" + path))

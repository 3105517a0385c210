"""Walking a tree by directory descriptors: any depth, few descriptors, never through a link or onto another mount."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Final, Self

import attrs

from lamina import syscalls

_KEPT_OPEN: Final = 48  # descriptors of ancestors; beyond that the way back is found through ".."
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Ladder:
    """An open directory, a way down to its children, and the way back up, in a bounded number of descriptors.

    Descending never follows a symbolic link (ENOTDIR or ELOOP) and never enters another mount (EXDEV). Climbing
    checks that it arrives where it came from: a directory that was moved meanwhile is ESTALE.
    """

    def __init__(self, root: int) -> None:
        """Start at an open directory, which stays the caller's."""
        self._rungs: list[int | None] = [os.dup(root)]
        self._identities = [_identity(root)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for rung in self._rungs:
            if rung is not None:
                os.close(rung)
        self._rungs.clear()

    @property
    def here(self) -> int:
        """The descriptor of the directory that we stand in; valid until we leave it."""
        rung = self._rungs[-1]
        assert rung is not None  # noqa: S101  # the last rung is always open
        return rung

    @property
    def depth(self) -> int:
        """How many directories lie between here and the root."""
        return len(self._rungs) - 1

    def down(self, name: bytes) -> None:
        """Enter a child directory."""
        resolve = syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS
        child = syscalls.openat2(self.here, name, DIRECTORY, resolve=resolve)
        self._rungs.append(child)
        self._identities.append(_identity(child))
        far = len(self._rungs) - 1 - _KEPT_OPEN
        if far > 0:
            self._close(far)

    def up(self) -> None:
        """Go back to the parent."""
        above = len(self._rungs) - 2
        if self._rungs[above] is None:
            self._rungs[above] = self._reopen(above)
        self._close(above + 1)
        self._rungs.pop()
        self._identities.pop()

    def _reopen(self, rung: int) -> int:
        parent = os.open("..", DIRECTORY, dir_fd=self.here)
        if _identity(parent) != self._identities[rung]:
            os.close(parent)
            raise OSError(errno.ESTALE, "a directory was moved away while it was being read")
        return parent

    def _close(self, rung: int) -> None:
        descriptor = self._rungs[rung]
        if descriptor is not None:
            os.close(descriptor)
            self._rungs[rung] = None


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


@attrs.frozen
class Entry:
    """One name in a tree, found in the open directory `directory`; `status` is its lstat."""

    directory: int
    name: bytes
    path: bytes
    status: os.stat_result


def names_in(directory: int) -> list[bytes]:
    """The names in an open directory, sorted by their bytes."""
    return sorted(os.fsencode(name) for name in os.listdir(directory))


def walk(
    root: int,
    *,
    entered: Callable[[Entry], None] = lambda _: None,
    left: Callable[[Entry], None] = lambda _: None,
) -> Iterator[Entry]:
    """Every entry below `root`, parents before children, names in the order of their bytes.

    `entered` is called once a directory is open (its `directory` is then its own descriptor) and `left` when
    all that it holds has been yielded. A mount point inside the tree is yielded, what is mounted there is not. An entry
    that vanishes meanwhile is passed over.
    """
    with Ladder(root) as ladder:
        open_names = [iter(names_in(ladder.here))]
        above: list[Entry] = []
        while open_names:
            name = next(open_names[-1], None)
            if name is None:
                open_names.pop()
                if above:
                    entry = above.pop()
                    left(attrs.evolve(entry, directory=ladder.here))
                    ladder.up()
                continue
            found = _look(ladder.here, name, above[-1].path if above else b"")
            if found is None:
                continue
            yield found
            if _is_directory(found.status) and _enter(ladder, name):
                entered(attrs.evolve(found, directory=ladder.here))
                above.append(found)
                open_names.append(iter(names_in(ladder.here)))


def _look(directory: int, name: bytes, above: bytes) -> Entry | None:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return Entry(directory, name, above + b"/" + name if above else name, status)


def _enter(ladder: Ladder, name: bytes) -> bool:
    try:
        ladder.down(name)
    except OSError as error:
        # another mount, gone, or swapped for something that is no directory: not ours to read
        if error.errno in {errno.EXDEV, errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return False
        raise
    return True


def _is_directory(status: os.stat_result) -> bool:
    return status.st_mode & 0o170000 == 0o040000

"""Walking a tree by directory descriptors: any depth, few descriptors, never through a link or onto another mount."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import attrs

from lamina import syscalls
from lamina.syscalls import opened

_KEPT_OPEN: Final = 16  # descriptors of ancestors; beyond that the way back is found through ".."
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_PATH: Final = 4000  # the kernel takes 4,095 bytes at once
_STRAIGHT: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV


def open_below(root: int, path: bytes) -> int:
    """The directory at `path` below the open `root`, however long the path is; the caller closes it.

    No link is followed (ELOOP) and no other mount entered (EXDEV); ENOENT or ENOTDIR if there is no such directory.
    """
    here = os.dup(root)
    while path:
        cut = len(path) if len(path) <= _LONGEST_PATH else path.rfind(b"/", 0, _LONGEST_PATH)
        try:
            below = syscalls.openat2(here, path[:cut], DIRECTORY, resolve=_STRAIGHT)
        finally:
            os.close(here)
        here, path = below, path[cut + 1 :]
    return here


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
    barred: Callable[[Entry], None] = lambda _: None,
) -> Iterator[Entry]:
    """Every entry below `root`, parents before children, names in the order of their bytes.

    `entered` is called once a directory is open (its `directory` is then its own descriptor) and `left` when
    all that it holds has been yielded. A mount point inside the tree is yielded, what is mounted there is not: `barred`
    is called instead. An entry that vanishes meanwhile is passed over.
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
            if stat.S_ISDIR(found.status.st_mode) and _enter(ladder, found, barred):
                entered(attrs.evolve(found, directory=ladder.here))
                above.append(found)
                open_names.append(iter(names_in(ladder.here)))


def _look(directory: int, name: bytes, above: bytes) -> Entry | None:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return Entry(directory, name, above + b"/" + name if above else name, status)


def _enter(ladder: Ladder, entry: Entry, barred: Callable[[Entry], None]) -> bool:
    try:
        ladder.down(entry.name)
    except OSError as error:
        if error.errno == errno.EXDEV:
            barred(entry)
        elif error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:  # gone, or swapped for something else
            raise
        return False
    return True


@contextmanager
def descended(root: int, path: bytes) -> Iterator[int]:
    """The directory `path` below `root`, however long the path is."""
    if len(path) < os.pathconf("/", "PC_PATH_MAX"):
        with opened(path or b".", DIRECTORY, dir_fd=root) as there:
            yield there
        return
    with Ladder(root) as ladder:
        for name in path.split(b"/"):
            ladder.down(name)
        yield ladder.here


# what is mounted inside


@contextmanager
def bare(directory: Path) -> Iterator[int]:
    """The open directory as it lies on disk: of what is mounted inside, nothing shows, but what is beneath it.

    Only root can look beneath; for others a mount inside is an `OSError` (EBUSY).
    """
    with opened(directory, DIRECTORY) as descriptor:
        if not _covered(directory):
            yield descriptor
            return
        try:
            lifted = syscalls.open_tree(b"", directory=descriptor)
        except OSError as error:
            why = "something is mounted inside, and we may not look beneath it"
            raise OSError(errno.EBUSY, why, os.fspath(directory)) from error
        try:
            with opened(b".", DIRECTORY, dir_fd=lifted) as beneath:
                yield beneath
        finally:
            os.close(lifted)


def _covered(directory: Path) -> bool:
    """Whether something is mounted below `directory`, itself not counted."""
    top = os.path.realpath(os.fsencode(directory)).rstrip(b"/") + b"/"
    for byte in b"\\ \t\n":  # as the kernel writes them
        top = top.replace(b"%c" % byte, b"\\%03o" % byte)
    with open("/proc/self/mountinfo", "rb") as table:
        return any(line.split(b" ", 5)[4].startswith(top) for line in table)

"""What a run of layers removes from whatever lies below it, as a layer of its own.

An overlay mount of several layers shows what they add and hides their whiteouts. Used as one layer of a larger mount,
it would let reappear what they had removed from the layers further down. So a directory that holds nothing but those
removals goes right below it.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
from collections.abc import Iterable, Iterator
from typing import TypeAlias, Union

from lamina.changes import Whiteouts
from lamina.descent import DIRECTORY, Entry, Ladder, walk
from lamina.syscalls import opened


class _Closed(enum.Enum):
    """Names at which the run is done: nothing below shows through."""

    COVERED = "a file of the run lies there, which hides what is below by itself"
    REMOVED = "a whiteout, an opaque directory, or a directory that replaced a file: it takes a whiteout to say so"


# a directory of the run that is still open to what lies below: what is known of the names in it
_Open: TypeAlias = dict[bytes, Union["_Open", _Closed]]


def write_removals(layers: Iterable[str], target: str, dialect: Whiteouts) -> None:
    """Fill the empty directory `target` with what the layers, the topmost first, remove from below them."""
    known: _Open = {}
    for layer in layers:
        with opened(layer, DIRECTORY) as root:
            _merge(root, known, dialect)
    with opened(target, DIRECTORY) as root:
        for path in _removed(known):
            _write(path, root, dialect)


def _merge(root: int, known: _Open, dialect: Whiteouts) -> None:
    """Add one layer below those that are known already, as the kernel's lookup would go on into it."""

    def entered(entry: Entry) -> None:
        above, name = _parent_of(entry.path, known)
        if above is not None and isinstance(above[name], dict) and dialect.is_opaque(entry.directory):
            above[name] = _Closed.REMOVED

    for entry in walk(root, entered=entered):
        above, name = _parent_of(entry.path, known)
        if above is None or isinstance(above.get(name), _Closed):
            continue  # hidden by a layer above
        above[name] = _seen(entry, above.get(name), dialect)


def _seen(entry: Entry, before: _Open | _Closed | None, dialect: Whiteouts) -> _Open | _Closed:
    if stat.S_ISDIR(entry.status.st_mode):
        return {} if before is None else before
    if before is not None or dialect.is_whiteout(entry.directory, entry.name, entry.status):
        return _Closed.REMOVED  # also a file below a directory: the directory has replaced it and shows nothing of it
    return _Closed.COVERED


def _parent_of(path: bytes, known: _Open) -> tuple[_Open | None, bytes]:
    """The open directory that holds `path`, or None if one of those above it is closed; and the last name."""
    *above, name = path.split(b"/")
    here = known
    for each in above:
        found = here.get(each)
        if not isinstance(found, dict):
            return None, name
        here = found
    return here, name


def _removed(known: _Open) -> Iterator[bytes]:
    """Every path that takes a whiteout."""
    todo = [(b"", known)]
    while todo:
        path, here = todo.pop()
        for name, found in here.items():
            if isinstance(found, dict):
                todo.append((path + name + b"/", found))
            elif found is _Closed.REMOVED:
                yield path + name


def _write(path: bytes, root: int, dialect: Whiteouts) -> None:
    """Write one removal; directories are made on the way to it."""
    *above, name = path.split(b"/")
    with Ladder(root) as ladder:
        for each in above:
            with contextlib.suppress(FileExistsError):
                os.mkdir(each, 0o755, dir_fd=ladder.here)
            ladder.down(each)
        dialect.write_whiteout(ladder.here, name)

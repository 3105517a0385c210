"""Opaque directories of a layer, spelled out as removals of all that they hide.

When aufs looks a name up for the first time, it cuts the stack at the *lowest* opaque directory: of two in one stack,
the upper is shown together with what lies between them. So the layers below hold none. Nor does it cut at a file that
lies between two directories of one name. Both are seen to when a layer is committed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs

from lamina.changes import Whiteouts
from lamina.descent import DIRECTORY, names_in, open_below, walk
from lamina.syscalls import opened

_OPAQUE: Final = b".wh..wh..opq"


@attrs.frozen
class _Below:
    """The layers that may show through a directory, the topmost first, and whether they are hidden."""

    layers: tuple[Path, ...]
    hidden: bool


def spell_out(fs: Path, parents: Sequence[Path], dialect: Whiteouts) -> None:
    """The layer in `fs` hides what it hid, without a mark. Directories keep their times. Repeatable after a crash."""
    with opened(fs, DIRECTORY) as root:
        known = {b"": _Below(tuple(parents), hidden=dialect.is_opaque(root))}
        marked = [b""] if known[b""].hidden else []
        for path in _directories(root):
            above = known[path.rpartition(b"/")[0]]
            with _at(root, path) as here:
                opaque = dialect.is_opaque(here)
            layers, covered = _showing(above.layers, path, dialect)
            known[path] = _Below(layers, hidden=above.hidden or opaque or covered)
            marked += [path] if opaque else []
        for path, below in known.items():
            if below.hidden and below.layers:
                with _changing(root, path) as here:
                    _hide(here, path, below, dialect)
        for path in reversed(marked):  # what lies in a marked directory is hidden by its mark until now
            with _changing(root, path) as here:
                os.unlink(_OPAQUE, dir_fd=here)


def _directories(root: int) -> Iterator[bytes]:
    """Paths of directories, each before those in it; aufs's own are at the root, and not looked into."""
    own: tuple[bytes, ...] = (b".wh.",)
    for entry in walk(root):
        if stat.S_ISDIR(entry.status.st_mode) and not entry.path.startswith(own):
            yield entry.path


def _showing(layers: Sequence[Path], path: bytes, dialect: Whiteouts) -> tuple[tuple[Path, ...], bool]:
    """Which of the layers have a directory there that is not removed above, and whether a file comes first."""
    showing: list[Path] = []
    covered = False
    parent, _, name = path.rpartition(b"/")
    for layer in layers:
        with opened(layer, DIRECTORY) as root, _at(root, parent) as here:
            if _is_removed(here, name, dialect):
                break
            with suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                    showing.append(layer)
                else:
                    covered = covered or not showing
    return tuple(showing), covered


def _is_removed(here: int, name: bytes, dialect: Whiteouts) -> bool:
    whiteout = b".wh." + name
    try:
        status = os.stat(whiteout, dir_fd=here, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return dialect.is_whiteout(here, whiteout, status)


def _hide(here: int, path: bytes, below: _Below, dialect: Whiteouts) -> None:
    own = set(names_in(here))
    for name in sorted(_visible(below.layers, path, dialect)):
        if name not in own and b".wh." + name not in own:
            dialect.write_whiteout(here, name)


def _visible(layers: Sequence[Path], path: bytes, dialect: Whiteouts) -> set[bytes]:
    visible: set[bytes] = set()
    removed: set[bytes] = set()
    for layer in layers:
        with opened(layer, DIRECTORY) as root, _at(root, path) as here:
            names = [name for name in names_in(here) if not dialect.is_private_name(name)]
            whiteouts = {name for name in names if name.startswith(b".wh.")}
            visible.update(name for name in names if name not in whiteouts and name not in removed)
            removed.update(map(dialect.hidden_by, whiteouts))
    return visible


@contextmanager
def _changing(root: int, path: bytes) -> Iterator[int]:
    """A directory in which something is altered, but not its times."""
    with _at(root, path) as here:
        before = os.fstat(here)
        yield here
        os.utime(here, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextmanager
def _at(root: int, path: bytes) -> Iterator[int]:
    here = open_below(root, path)
    try:
        yield here
    finally:
        os.close(here)

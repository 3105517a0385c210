"""Walk two trees side by side, or a ChangesTree beside its parent, by directory descriptors."""

from __future__ import annotations

import operator
import os
import stat
from collections.abc import Callable, Iterator

import attrs

from lamina.changes import ChangeKind, ChangesTree
from lamina.descent import Ladder
from lamina.diff.difference import Judge, lstat

# Each name with its status, or None for a name that is (to be) gone.
Names = list[tuple[bytes, os.stat_result | None]]
# What a directory of the new tree has to say, and whether all that the old tree has there is hidden: asked with whether
# a directory above has hidden it already.
Listing = Callable[[int, int | None, bool], tuple[Names, bool]]


@attrs.frozen
class Found:
    """One path that was looked at; `kind` is None where nothing but the company of a hard link may list it."""

    path: bytes
    kind: ChangeKind | None
    link: tuple[int, int] | None = None  # which file it is a name of, if that has several
    names: int = 1
    was: tuple[int, int] | None = None  # which file of the old tree it was a name of


@attrs.define
class _Frame:
    prefix: bytes
    names: Iterator[tuple[bytes, os.stat_result | None]]
    old: bool  # whether the old tree has this directory, too
    hidden: bool  # whether nothing of the old tree shows through, here and further down


def walk(old: int | None, new: int, listing: Listing, judge: Judge, prefix: bytes = b"") -> Iterator[Found]:
    """Everything that may be a change, in order. Both roots stay the caller's."""
    if not prefix and old is None:
        yield Found(b"", ChangeKind.ADDED)
    elif not prefix and old is not None and judge.roots_differ(old, new):
        yield Found(b"", ChangeKind.MODIFIED)
    with Ladder(new) as here, Ladder(new if old is None else old) as there:
        names, hidden = listing(new, old, False)  # noqa: FBT003  # a Listing's third argument
        frames = [_Frame(prefix, iter(names), old is not None, hidden)]
        while frames:
            frame = frames[-1]
            entry = next(frame.names, None)
            if entry is None:
                frames.pop()
                if frames:
                    here.up()
                    if frame.old:
                        there.up()
                continue
            name, status = entry
            before = lstat(there.here, name) if frame.old else None
            if status is None:
                if before is not None:
                    yield Found(frame.prefix + name, ChangeKind.DELETED)
                continue
            kind = judge.verdict(there.here, before, here.here, status, name)
            below = _enter(here, there, name, before, status)
            yield found_at(frame.prefix + name, kind, before, status)
            if below is not None:
                names, hidden = listing(here.here, there.here if below else None, frame.hidden)
                frames.append(_Frame(frame.prefix + name + b"/", iter(names), below, hidden))


def _enter(
    here: Ladder, there: Ladder, name: bytes, before: os.stat_result | None, status: os.stat_result
) -> bool | None:
    """Go down into a directory; returns whether the old tree could follow, None if there is nothing to enter."""
    if not stat.S_ISDIR(status.st_mode):
        return None
    both = before is not None and stat.S_ISDIR(before.st_mode)
    if both and before is not None and os.path.samestat(before, status):
        return None  # one and the same directory
    try:
        here.down(name)
    except OSError:  # gone meanwhile, or something is mounted on it
        return None
    if both:
        try:
            there.down(name)
        except BaseException:
            here.up()
            raise
    return both


def found_at(path: bytes, kind: ChangeKind | None, before: os.stat_result | None, status: os.stat_result) -> Found:
    if status.st_nlink < 2 or stat.S_ISDIR(status.st_mode):
        return Found(path, kind)
    was = None if before is None else (before.st_dev, before.st_ino)
    return Found(path, kind, (status.st_dev, status.st_ino), status.st_nlink, was)


def all_names(new: int, old: int | None, hidden: bool) -> tuple[Names, bool]:  # noqa: FBT001  # a Listing
    names = set(os.listdir(new))
    if old is not None:
        names.update(os.listdir(old))
    return [(name, lstat(new, name)) for name in sorted(map(os.fsencode, names))], hidden


@attrs.frozen
class Recorded:
    """Names as a union file system recorded them."""

    tree: ChangesTree

    def names(self, new: int, old: int | None, hidden: bool) -> tuple[Names, bool]:  # noqa: FBT001  # a Listing
        found: dict[bytes, os.stat_result | None] = {}
        if old is not None and (hidden or self.tree.whiteouts.is_opaque(new)):
            hidden = True  # directories inside need no mark of their own
            found = dict.fromkeys(map(os.fsencode, os.listdir(old)))
        for name in map(os.fsencode, os.listdir(new)):
            if self.tree.whiteouts.is_private_name(name):
                continue
            status = lstat(new, name)
            if status is not None and self.tree.whiteouts.is_whiteout(new, name, status):
                found.setdefault(self.tree.whiteouts.hidden_by(name), None)
            else:
                found[name] = status
        return sorted(found.items(), key=operator.itemgetter(0)), hidden

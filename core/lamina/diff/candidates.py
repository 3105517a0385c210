"""Compare two trees only where a backend says that they may differ."""

from __future__ import annotations

import collections
import os
import stat
from collections.abc import Iterable, Iterator

from lamina.changes import ChangeKind
from lamina.descent import DIRECTORY, open_below
from lamina.diff.difference import Judge, lstat
from lamina.diff.walking import Found, all_names, found_at, walk


def look_at(old: int, new: int, paths: Iterable[bytes]) -> Iterator[Found]:
    """What a walk would have found at these paths, and below those that only one of the trees has as a directory."""
    judge = Judge()
    done = b"/"  # everything below this path is known
    seen: bytes | None = None
    for path in sorted(set(paths), key=_components):
        if path.startswith(done):
            continue
        if not path:
            if judge.roots_differ(old, new):
                yield Found(b"", ChangeKind.MODIFIED)
            continue
        anchor = _anchor(old, new, path)
        if anchor != seen:  # else it was a path of its own, and all below it is known as well
            yield from _look_at_one(old, new, anchor, judge)
        seen = anchor
        if anchor != path:
            done = anchor + b"/"


def has_unseen_links(found: list[Found]) -> bool:
    """Whether some file has more names than those that were found."""
    seen = collections.Counter(one.link for one in found if one.link is not None)
    return any(one.link is not None and seen[one.link] < one.names for one in found)


def _components(path: bytes) -> list[bytes]:
    return path.split(b"/")


def _anchor(old: int, new: int, path: bytes) -> bytes:
    """The path itself, or the first name on the way to it that is not a directory in both trees."""
    anchor = path
    above = path.rpartition(b"/")[0]
    while above:
        if not (_has_directory(old, above) and _has_directory(new, above)):
            anchor = above
        above = above.rpartition(b"/")[0]
    return anchor


def _has_directory(root: int, path: bytes) -> bool:
    found = _open_directory(root, path)
    if found is None:
        return False
    os.close(found)
    return True


def _look_at_one(old: int, new: int, path: bytes, judge: Judge) -> Iterator[Found]:
    above, _, name = path.rpartition(b"/")
    there, here = _open_directory(old, above), _open_directory(new, above)
    try:
        if there is None or here is None:
            return  # gone since we looked
        before, status = lstat(there, name), lstat(here, name)
        if status is None:
            if before is not None:
                yield Found(path, ChangeKind.DELETED)
            return
        yield found_at(path, judge.verdict(there, before, here, status, name), before, status)
        if stat.S_ISDIR(status.st_mode) and (before is None or not stat.S_ISDIR(before.st_mode)):
            yield from _all_below(here, name, path)
    finally:
        for descriptor in (there, here):
            if descriptor is not None:
                os.close(descriptor)


def _all_below(parent: int, name: bytes, path: bytes) -> Iterator[Found]:
    top = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        yield from walk(None, top, all_names, Judge(), path + b"/")
    finally:
        os.close(top)


def _open_directory(root: int, path: bytes) -> int | None:
    """The directory at `path`, through no link; None if there is none."""
    try:
        return open_below(root, path)
    except OSError:
        return None

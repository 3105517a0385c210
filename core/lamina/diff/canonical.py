"""What must be listed for others' sake: the directories above a change, and the other names of a file."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import attrs

from lamina.changes import Change, ChangeKind
from lamina.diff.walking import Found


def canonical(found: Iterator[Found]) -> Iterator[Change]:
    """The list of changes that everybody agrees on, from what a walk found in order."""
    return _with_ancestors(_with_links(found))


@attrs.define(eq=False)
class _Group:
    """The names of one file, as far as they were seen."""

    changed: bool = False
    seen: int = 0
    was: set[tuple[int, int]] = attrs.field(factory=set)


def _with_links(found: Iterator[Found]) -> Iterator[Change]:
    """All names of a file, if one of them is new or changed, or if they were not names of one file before.

    A name is held back until its fate is known: until all names of the file were seen, or the tree ends.
    """
    groups: dict[tuple[int, int], _Group] = {}
    held: collections.deque[tuple[Found, _Group | None]] = collections.deque()
    for one in found:
        group = None
        if one.link is not None:
            group = groups.setdefault(one.link, _Group())
            group.seen += 1
            if one.was is not None:
                group.was.add(one.was)
            group.changed = group.changed or one.kind is not None or len(group.was) > 1
            if group.seen == one.names:
                del groups[one.link]
        if one.kind is not None or group is not None:
            held.append((one, group))
        while held and _is_decided(*held[0]):
            yield from _decided(*held.popleft())
    for each in held:
        yield from _decided(*each)


def _is_decided(one: Found, group: _Group | None) -> bool:
    return one.kind is not None or group is None or group.changed or group.seen == one.names


def _decided(one: Found, group: _Group | None) -> Iterator[Change]:
    if one.kind is not None:
        yield Change(one.path, one.kind)
    elif group is not None and group.changed:
        yield Change(one.path, ChangeKind.MODIFIED)


def _with_ancestors(changes: Iterator[Change]) -> Iterator[Change]:
    """Before each change, the directories above it that were not listed yet; the root only lists itself."""
    listed = b"/"  # the change before, with a slash: it and all above it are listed
    for change in changes:
        above = change.path.rpartition(b"/")[0]
        if above and not listed.startswith(above + b"/"):
            for cut in (at for at, byte in enumerate(change.path) if byte == 0x2F):
                if not listed.startswith(change.path[: cut + 1]):
                    yield Change(change.path[:cut], ChangeKind.MODIFIED)
        yield change
        listed = change.path + b"/"

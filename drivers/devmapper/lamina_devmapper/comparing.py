"""What may differ between a layer and its parent, as ext4 knows it: changed inodes, and the names that lead to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

import attrs

from lamina.descent import Ladder
from lamina.syscalls import opened
from lamina_devmapper import filesystems
from lamina_devmapper.inodes import Inodes, differing

_Names = dict[bytes, tuple[int, bool]]  # the inode, and whether it is a directory


def candidates(old: str, new: str, *, writable: bool) -> list[bytes] | None:
    """The paths that may differ on two ext4 devices, one of which began as a copy of the other.

    `writable`: somebody may have mounted the new one, and be writing to it. None if we do not know the layout.
    """
    with (
        filesystems.detached(old, "ext4", writable=False) as before,
        filesystems.detached(new, "ext4", writable=writable) as now,
    ):
        # mounted: what a journal still held is in the tables by now, as anybody sees them who reads the device
        changed = _changed(old, new)
        return None if changed is None else list(paths(before, now, changed))


def _changed(old: str, new: str) -> set[int] | None:
    with opened(old, os.O_RDONLY) as before, opened(new, os.O_RDONLY) as now:
        tables = Inodes.of(before), Inodes.of(now)
        if tables[0] is None or tables[1] is None:
            return None
        return set(differing(tables[0], tables[1]))


@attrs.define
class _Frame:
    prefix: bytes
    old: _Names
    new: _Names
    names: Iterator[bytes]


def paths(old: int, new: int, changed: AbstractSet[int]) -> Iterator[bytes]:
    """The names below two open directories that lead to another inode than before, or to a changed one.

    Names alone are read, not what they lead to. Below a directory that only one of the two has, nothing is told.
    """
    yield b""
    with Ladder(old) as there, Ladder(new) as here:
        frames = [_frame(there.here, here.here, b"")]
        while frames:
            frame = frames[-1]
            name = next(frame.names, None)
            if name is None:
                frames.pop()
                if frames:
                    there.up()
                    here.up()
                continue
            before, now = frame.old.get(name), frame.new.get(name)
            if before != now or (now is not None and now[0] in changed):
                yield frame.prefix + name
            if before is not None and now is not None and before[1] and now[1]:
                there.down(name)
                here.down(name)
                frames.append(_frame(there.here, here.here, frame.prefix + name + b"/"))


def _frame(old: int, new: int, prefix: bytes) -> _Frame:
    before, now = _listed(old), _listed(new)
    return _Frame(prefix, before, now, iter(before.keys() | now.keys()))


def _listed(directory: int) -> _Names:
    with os.scandir(directory) as entries:
        return {os.fsencode(each.name): (each.inode(), each.is_dir(follow_symlinks=False)) for each in entries}

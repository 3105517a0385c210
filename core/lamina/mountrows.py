"""The table of mounts: what we mounted where for somebody, and whether it is still there.

A row is written before the mount is made, so a killed process leaves a row without a mount, never a mount without a
row. Whether the mount is there the kernel says. Ask only while holding the lock of the snapshot or of the target: else
a mount that is just being made looks like one that is gone.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from lamina.mount import boot_id, mountinfo
from lamina.mountinfo import read_table
from lamina.syscalls import RESOLVE_NO_XDEV, openat2

_ESCAPED: Final = re.compile(rb"[ \t\n\\#]")  # what mountinfo writes in octal


@attrs.frozen
class Place:
    """One line of the table."""

    target: Path  # absolute, without symbolic links
    snapshot: int
    count: int
    depth: int
    below: int
    boot: str
    namespace: int

    @functools.cached_property
    def here(self) -> bool:
        """Whether the mount was made in our own mount namespace, so that we can see and undo it."""
        return self.namespace == namespace()

    @property
    def above(self) -> int:
        """How many mounts lie on the target besides those that were there before ours."""
        return _listed_on(os.fsencode(self.target)) - self.below

    @property
    def live(self) -> bool:
        """Whether the mount may still be there. One that is only half made is not."""
        if self.boot != this_boot():
            return False
        return self.whole if self.here else _is_inhabited(self.namespace)

    @property
    def whole(self) -> bool:
        """Whether all that we mounted is there; cheap for the usual case of one mount on a plain directory."""
        return _is_mount_point(self.target) if (self.depth, self.below) == (1, 0) else self.above >= self.depth


@functools.cache
def this_boot() -> str:
    """The name of this boot, read once."""
    return boot_id()


def namespace() -> int:
    """Our mount namespace. A thread may leave it, so this is asked each time."""
    return os.stat("/proc/thread-self/ns/mnt").st_ino


def mounts_on(target: Path) -> int:
    """How many mounts lie on a directory, one on the other."""
    if not _is_mount_point(target):
        return 0
    return _listed_on(os.path.realpath(os.fsencode(target)))  # as the kernel lists it, whatever way the caller came


def _listed_on(name: bytes) -> int:
    if _ESCAPED.search(name):
        return sum(point.target == name for point in mountinfo())
    lines = read_table().splitlines()
    return sum(line.split(b" ", 5)[4] == name for line in lines if name in line)


def _is_mount_point(target: Path) -> bool:
    """Ask the kernel about one place, which is quicker than reading the list of all mounts."""
    parent, name = os.path.split(os.fsencode(target))
    try:
        above = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(openat2(above, name, flags, resolve=RESOLVE_NO_XDEV))
    except OSError as error:
        # a kernel without openat2, or a sandbox that hides it: the list of all mounts has to tell
        return error.errno in {errno.EXDEV, errno.ENOSYS, errno.EPERM}
    finally:
        os.close(above)
    return False


def _is_inhabited(wanted: int) -> bool:
    """Whether some process still lives in a mount namespace; with the last one its mounts go."""
    for process in os.listdir("/proc"):
        if process.isdecimal():
            try:
                if os.stat(f"/proc/{process}/ns/mnt").st_ino == wanted:
                    return True
            except OSError:  # it ended meanwhile, or is not ours to ask
                continue
    return False


_COLUMNS = "target, snapshot, count, depth, below, boot, namespace"


def on_target(connection: sqlite3.Connection, target: Path) -> Place | None:
    """What we have mounted on a target."""
    query = f"SELECT {_COLUMNS} FROM mounts WHERE target = ?"  # noqa: S608  # our own columns
    return next(_places(connection.execute(query, (os.fsencode(target),))), None)


def of_snapshot(connection: sqlite3.Connection, layer_id: int) -> list[Place]:
    """Where we have mounted a snapshot."""
    query = f"SELECT {_COLUMNS} FROM mounts WHERE snapshot = ?"  # noqa: S608
    return list(_places(connection.execute(query, (layer_id,))))


def everywhere(connection: sqlite3.Connection) -> list[Place]:
    """Everything that we have mounted."""
    return list(_places(connection.execute(f"SELECT {_COLUMNS} FROM mounts")))  # noqa: S608


def _places(cursor: sqlite3.Cursor) -> Iterator[Place]:
    for target, *rest in cursor.fetchall():
        yield Place(Path(os.fsdecode(target)), *rest)


def is_any(connection: sqlite3.Connection) -> bool:
    """Whether we have mounted anything at all."""
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM mounts)").fetchone()[0])


def unseen(connection: sqlite3.Connection) -> list[int]:
    """The active layers and views that we have mounted nowhere, and at which nobody is at work."""
    query = """SELECT id FROM snapshots WHERE kind <> 'committed' AND step = 'ready'
               AND id NOT IN (SELECT snapshot FROM mounts)"""
    return [layer_id for (layer_id,) in connection.execute(query)]


def put(connection: sqlite3.Connection, place: Place) -> None:
    """Write the row, or write it anew."""
    query = f"INSERT OR REPLACE INTO mounts ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
    numbers = (place.snapshot, place.count, place.depth, place.below)
    connection.execute(query, (os.fsencode(place.target), *numbers, place.boot, place.namespace))


def drop(connection: sqlite3.Connection, place: Place) -> None:
    """The row is gone."""
    query = "DELETE FROM mounts WHERE target = ? AND snapshot = ?"
    connection.execute(query, (os.fsencode(place.target), place.snapshot))

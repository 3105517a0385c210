"""Look at a store without touching it: space, rights, databases, unfinished work, leftovers."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from lamina import mountrows, rows
from lamina.cli.wording import size
from lamina.driver import Health
from lamina.images.leases import Leases
from lamina.locks import LayerLocks
from lamina.mount import mountinfo
from lamina.reserve import is_full

_LITTLE_SPACE = 256 << 20  # less than this and the next image will hardly fit
_LITTLE_PART = 0.02


def check_store(root: Path, drivers: Iterable[str]) -> Health:
    """Everything that can be said about the store. Never raises for a poor store; problems need a person's help."""
    if not root.exists():
        return Health(notes=(f"{root} is not there yet; the first command that stores something makes it",))
    health = Health()
    for check in (_space, _rights, _leases, _mounts):
        health = _both(health, _guarded(check(root), root))
    for name in drivers:
        home = root / name
        if (home / "metadata.db").exists():
            health = _both(health, _guarded(_database(home / "metadata.db", home), home / "metadata.db"))
    if (root / "images.db").exists():
        health = _both(health, _guarded(_damage(root / "images.db"), root / "images.db"))
    return health


_Finding = tuple[str, str]  # "problem" or "note", and the sentence


def _guarded(findings: Iterator[_Finding], place: Path) -> Health:
    found: list[_Finding] = []
    try:
        found.extend(findings)
    except (OSError, sqlite3.Error) as error:
        # why writing failed SQLite does not tell: "disk I/O error" would send people to buy a new one
        full = isinstance(error, sqlite3.Error) and is_full(place.parent)
        found.append(("problem", f"{place} cannot be looked at: {'looking takes some room, too' if full else error}"))
    problems = tuple(sentence for kind, sentence in found if kind == "problem")
    return Health(problems, tuple(sentence for kind, sentence in found if kind == "note"))


def _both(one: Health, other: Health) -> Health:
    return Health(one.problems + other.problems, one.notes + other.notes)


def _space(root: Path) -> Iterator[_Finding]:
    disk = shutil.disk_usage(root)
    tight = disk.free < max(_LITTLE_SPACE, disk.total * _LITTLE_PART)
    advice = "; `lamina prune` frees what nobody needs" if tight else ""
    yield "problem" if tight else "note", f"{size(disk.free)} of {size(disk.total)} are free{advice}"
    inodes = os.statvfs(root)
    if inodes.f_files and inodes.f_favail < inodes.f_files * _LITTLE_PART:
        yield (
            "problem",
            f"{inodes.f_favail} of {inodes.f_files} inodes are free; the file system cannot hold many more files",
        )


def _rights(root: Path) -> Iterator[_Finding]:
    status = root.stat()
    if status.st_uid != os.geteuid():
        yield "problem", f"{root} belongs to user {status.st_uid}, not to you ({os.geteuid()})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield "problem", f"others may write to {root}; `chmod go-w {root}`"
    if status.st_mode & stat.S_IROTH:
        yield "problem", f"others may list {root}, where secrets of images lie; `chmod go-r {root}`"


def _leases(root: Path) -> Iterator[_Finding]:
    leases = Leases(root)
    names = os.listdir(root / "leases") if (root / "leases").is_dir() else []
    alive = [name for name in names if leases.is_alive(name)]
    if alive:
        yield "note", f"{len(alive)} commands are at work on images right now"
    if dead := len(names) - len(alive):
        yield "note", f"{dead} commands on images were cut short; the next one cleans up after them"


def _mounts(root: Path) -> Iterator[_Finding]:
    inside = os.fsencode(os.path.realpath(root)) + b"/"
    below = [point for point in mountinfo() if point.target.startswith(inside)]
    if below:
        yield (
            "note",
            f"{len(below)} mounts below {root}, made by commands at work, drivers, or commands that were killed",
        )


def _database(path: Path, home: Path) -> Iterator[_Finding]:
    yield from _damage(path)
    with contextlib.closing(_open(path)) as connection:
        yield from _unfinished(connection, home)
        yield from _mounted(connection, home)
        yield "note", f"{home.name}: {len(rows.ids(connection))} layers"


def _damage(path: Path) -> Iterator[_Finding]:
    with contextlib.closing(_open(path)) as connection:
        words = [line for (line,) in connection.execute("PRAGMA quick_check")]
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    if words != ["ok"] or broken:
        details = "; ".join(words if words != ["ok"] else [f"{len(broken)} rows refer to nothing"])
        yield "problem", f"{path} is damaged ({details}); restore it from a backup"


def _unfinished(connection: sqlite3.Connection, home: Path) -> Iterator[_Finding]:
    locks = LayerLocks(home / "layers.lock")
    for row in rows.unfinished(connection):
        with locks.try_hold(row.id) as held:
            if held:
                yield "note", f"{home.name}: {row.step} {row.name!r} was cut short; the next command mends it"


def _mounted(connection: sqlite3.Connection, home: Path) -> Iterator[_Finding]:
    for place in mountrows.everywhere(connection):
        if place.live:
            yield "note", f"{home.name}: a snapshot is mounted at {place.target}"
        else:
            yield "note", f"{home.name}: the mount at {place.target} is gone; the next command forgets it"


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)

"""The table of snapshots: each line as a value, and the statements that read and change it."""

from __future__ import annotations

import functools
import json
import sqlite3
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs

from lamina.errors import NotFound
from lamina.layer import Kind, Usage
from lamina.snapshot import Snapshot

READY: Final = "ready"
PREPARING: Final = "preparing"
FILLING: Final = "filling"  # a tar is applied to a layer that was empty
APPLYING: Final = "applying"  # a tar is applied to a layer that had content
COMMITTING: Final = "committing"
REMOVING: Final = "removing"
LOOKING: Final = "looking"

# Users do not see what is not there yet, no more, or only there for somebody's look.
_HIDDEN: Final = frozenset({PREPARING, REMOVING, LOOKING})
_UNNAMED: Final = "\0"  # no user's name contains it
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SELECT: Final = """
    SELECT s.id, s.name, s.kind, s.step, s.parent, p.name, s.labels, s.size, s.inodes, s.created, s.updated,
        s.next_name, s.next_parent, s.rooted
    FROM snapshots AS s LEFT JOIN snapshots AS p ON p.id = s.parent
"""


@attrs.frozen
class Row:
    """One line of the table."""

    id: int
    name: str
    kind: Kind
    step: str
    parent: int | None
    parent_name: str | None
    labels: Mapping[str, str]
    usage: Usage | None
    created: int
    updated: int
    next_name: str | None
    next_parent: int | None
    rooted: int

    @property
    def hidden(self) -> bool:
        """Whether users are not to see it."""
        return self.step in _HIDDEN

    @property
    def snapshot(self) -> Snapshot:
        """As users see it."""
        return Snapshot(
            self.name,
            self.kind,
            self.parent_name,
            self.labels,
            self.usage,
            created=_time(self.created),
            updated=_time(self.updated),
        )


def _time(nanoseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def _row(values: tuple[Any, ...]) -> Row:
    number, name, kind, step, parent, parent_name, labels, size, inodes, *rest = values
    usage = None if size is None else Usage(size, inodes)
    return Row(number, name, Kind(kind), step, parent, parent_name, _load(labels), usage, *rest)


# reading


def find(connection: sqlite3.Connection, name: str) -> Row | None:
    """The row of that name, whatever its step."""
    values = connection.execute(f"{_SELECT} WHERE s.name = ?", (name,)).fetchone()
    return None if values is None else _row(values)


def id_of(connection: sqlite3.Connection, name: str) -> int | None:
    """The id of that row, whatever its step; enough to wait for its lock."""
    values = connection.execute("SELECT id FROM snapshots WHERE name = ?", (name,)).fetchone()
    return None if values is None else int(values[0])


def name_of(connection: sqlite3.Connection, layer_id: int) -> str | None:
    """The name of that row, whatever its step."""
    values = connection.execute("SELECT name FROM snapshots WHERE id = ?", (layer_id,)).fetchone()
    return None if values is None else str(values[0])


def is_taken(connection: sqlite3.Connection, name: str) -> bool:
    """Whether somebody has that name, or is about to get it by a commit."""
    query = """
        SELECT EXISTS (SELECT 1 FROM snapshots WHERE name = ?1) OR EXISTS (SELECT 1 FROM snapshots WHERE next_name = ?1)
    """
    return bool(connection.execute(query, (name,)).fetchone()[0])


def by_id(connection: sqlite3.Connection, layer_id: int) -> Row | None:
    """The row of that id, whatever its step."""
    values = connection.execute(f"{_SELECT} WHERE s.id = ?", (layer_id,)).fetchone()
    return None if values is None else _row(values)


def visible(connection: sqlite3.Connection, name: str) -> Row:
    """The row of that name as users see it; NotFound if it is not there, not yet, or no more."""
    row = find(connection, name)
    if row is None or row.hidden:
        raise NotFound(f"no snapshot {name!r}")
    return row


def everything(connection: sqlite3.Connection) -> list[Row]:
    """All rows that users see, the oldest first, as of one moment."""
    found = (_row(values) for values in connection.execute(f"{_SELECT} ORDER BY s.id"))
    return [row for row in found if not row.hidden]


def unfinished(connection: sqlite3.Connection) -> list[Row]:
    """Rows that somebody is, or was, at work on; the youngest first."""
    found = connection.execute(f"{_SELECT} WHERE s.step <> 'ready' ORDER BY s.id DESC")
    return [_row(values) for values in found]


def ids(connection: sqlite3.Connection) -> dict[int, Kind]:
    """Every layer that the database knows."""
    return {number: Kind(kind) for number, kind in connection.execute("SELECT id, kind FROM snapshots")}


def children(connection: sqlite3.Connection, layer_id: int) -> list[Row]:
    """What stands on a layer, or is about to."""
    found = connection.execute(f"{_SELECT} WHERE s.parent = ? OR s.next_parent = ? ORDER BY s.name", (layer_id,) * 2)
    return [_row(values) for values in found]


def has_children(connection: sqlite3.Connection, layer_id: int) -> bool:
    """Whether anything stands on a layer, or is about to, or looks at it."""
    query = "SELECT EXISTS (SELECT 1 FROM snapshots WHERE parent = ?1 OR next_parent = ?1)"
    return bool(connection.execute(query, (layer_id,)).fetchone()[0])


def is_tied(connection: sqlite3.Connection, layer_id: int) -> bool:
    """Whether we have mounted a layer anywhere, or anything stands on it, or is about to, or looks at it."""
    query = """
        SELECT EXISTS (SELECT 1 FROM mounts WHERE snapshot = ?1)
            OR EXISTS (SELECT 1 FROM snapshots WHERE parent = ?1 OR next_parent = ?1)
    """
    return bool(connection.execute(query, (layer_id,)).fetchone()[0])


def is_any_mountable(connection: sqlite3.Connection) -> bool:
    """Whether there is an active snapshot or a view."""
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM snapshots WHERE kind <> 'committed')").fetchone()[0])


def ancestors(connection: sqlite3.Connection, first: int | None) -> tuple[int, ...]:
    """The id itself and those of all below it, the nearest first."""
    if first is None:
        return ()
    query = """
        WITH RECURSIVE up (id, distance) AS (
            VALUES (?, 0)
            UNION ALL
            SELECT s.parent, distance + 1 FROM snapshots AS s JOIN up ON s.id = up.id WHERE s.parent IS NOT NULL
        )
        SELECT id FROM up ORDER BY distance
    """
    return tuple(values[0] for values in connection.execute(query, (first,)))


# changing, inside `Metadata.change`


def insert(  # noqa: PLR0913, PLR0917  # a row has as many columns
    connection: sqlite3.Connection,
    name: str,
    kind: Kind,
    step: str,
    parent: int | None,
    labels: Mapping[str, str],
) -> int:
    """A new row; its id. The caller has looked whether the name is free."""
    now = time.time_ns()
    cursor = connection.execute(
        "INSERT INTO snapshots (name, kind, step, parent, labels, created, updated) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (name, kind.value, step, parent, _dump(labels), now, now),
    )
    assert cursor.lastrowid is not None  # noqa: S101  # an INSERT always has one
    return cursor.lastrowid


def insert_look(connection: sqlite3.Connection, layer_id: int, token: str) -> int:
    """A row without a name, which keeps the layer from going away; its id."""
    return insert(connection, f"{_UNNAMED}{token}", Kind.VIEW, LOOKING, layer_id, {})


def set_step(connection: sqlite3.Connection, layer_id: int, before: str, after: str) -> bool:
    """Compare and set: True if the row stood at `before`."""
    query = "UPDATE snapshots SET step = ? WHERE id = ? AND step = ?"
    return connection.execute(query, (after, layer_id, before)).rowcount == 1


def say_commit(
    connection: sqlite3.Connection, layer_id: int, name: str, parent: int | None, labels: Mapping[str, str]
) -> bool:
    """Note what a commit is going to make of an active layer; False if that is not to be committed now."""
    query = """
        UPDATE snapshots SET step = 'committing', next_name = ?, next_parent = ?, next_labels = ?
        WHERE id = ? AND step = 'ready' AND kind = 'active'
    """
    return connection.execute(query, (name, parent, _dump(labels), layer_id)).rowcount == 1


def finish_commit(connection: sqlite3.Connection, layer_id: int, usage: Usage) -> None:
    """The layer is committed: it has its new name and parent, and the key is free."""
    now = time.time_ns()
    query = """
        UPDATE snapshots SET kind = 'committed', step = 'ready', name = next_name, parent = next_parent,
            labels = next_labels, size = ?, inodes = ?, created = ?, updated = ?,
            next_name = NULL, next_parent = NULL, next_labels = NULL
        WHERE id = ? AND step = 'committing'
    """
    connection.execute(query, (usage.size, usage.inodes, now, now, layer_id))


def forget_commit(connection: sqlite3.Connection, layer_id: int) -> None:
    """The layer is active again, as if nobody had tried."""
    query = """
        UPDATE snapshots SET step = 'ready', next_name = NULL, next_parent = NULL, next_labels = NULL
        WHERE id = ? AND step = 'committing'
    """
    connection.execute(query, (layer_id,))


def set_rooted(connection: sqlite3.Connection, layer_id: int) -> None:
    """No parent can be put below the layer any more."""
    connection.execute("UPDATE snapshots SET rooted = 1 WHERE id = ?", (layer_id,))


def set_labels(connection: sqlite3.Connection, layer_id: int, labels: Mapping[str, str]) -> None:
    """Replace the labels."""
    query = "UPDATE snapshots SET labels = ?, updated = ? WHERE id = ?"
    connection.execute(query, (_dump(labels), time.time_ns(), layer_id))


def delete(connection: sqlite3.Connection, layer_id: int) -> None:
    """The row is gone, and what it says about mounts."""
    connection.execute("DELETE FROM snapshots WHERE id = ?", (layer_id,))


def _load(labels: str) -> dict[str, str]:
    return {} if labels == "{}" else json.loads(labels)


_encode = functools.partial(json.dumps, sort_keys=True, ensure_ascii=False)


def _dump(labels: Mapping[str, str]) -> str:
    return _encode(dict(labels)) if labels else "{}"

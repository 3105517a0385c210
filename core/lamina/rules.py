"""Who may be made, committed and removed: each rule is checked in the transaction that says what will be done."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from lamina import rows
from lamina.errors import AlreadyExists, InUse, NotFound, WrongKind, WrongParent
from lamina.layer import Kind, Layer
from lamina.lineages import Lineages
from lamina.rows import Row

_WORDS = {Kind.ACTIVE: "an active snapshot", Kind.VIEW: "a view", Kind.COMMITTED: "a committed snapshot"}


def refuse_kind(row: Row, *, wanted: tuple[Kind, ...], because: str) -> None:
    """WrongKind unless the snapshot is of one of these kinds."""
    if row.kind not in wanted:
        raise WrongKind(f"{row.name!r} is {_WORDS[row.kind]}; {because}")


def say_new(  # noqa: PLR0913, PLR0917  # a row has as many columns
    connection: sqlite3.Connection,
    lineages: Lineages,
    key: str,
    kind: Kind,
    parent: str | None,
    labels: Mapping[str, str],
) -> Layer:
    """Begin to prepare; the new row's layer."""
    refuse_taken(connection, key)
    below = None if parent is None else parent_id(connection, parent)
    layer_id = rows.insert(connection, key, kind, rows.PREPARING, below, labels)
    return Layer(layer_id, kind, lineages.of(connection, below))


def say_commit(
    connection: sqlite3.Connection, row: Row, name: str, parent: int | None, labels: Mapping[str, str]
) -> Row:
    """Begin to commit; the row as it is then."""
    refuse_taken(connection, name)
    refuse_children(connection, row)
    if not rows.say_commit(connection, row.id, name, parent, labels):
        raise NotFound(f"no active snapshot {row.name!r} any more")
    begun = rows.by_id(connection, row.id)
    assert begun is not None  # noqa: S101  # it was updated a moment ago
    return begun


def say_remove(connection: sqlite3.Connection, row: Row) -> None:
    """Begin to remove; from now on nobody can stand on it."""
    refuse_children(connection, row)
    if row.step == rows.READY and not rows.set_step(connection, row.id, rows.READY, rows.REMOVING):
        raise NotFound(f"no snapshot {row.name!r} any more")


def parent_id(connection: sqlite3.Connection, name: str) -> int:
    """The id of a committed snapshot; NotFound or WrongParent."""
    row = rows.find(connection, name)
    if row is None or row.hidden:
        raise NotFound(f"no snapshot {name!r} to stand on")
    if row.kind is not Kind.COMMITTED:
        raise WrongParent(f"{name!r} is {_WORDS[row.kind]}; only a committed one can be a parent")
    return row.id


def refuse_taken(connection: sqlite3.Connection, name: str) -> None:
    """AlreadyExists if somebody has the name, or is about to get it."""
    if rows.is_taken(connection, name):
        raise AlreadyExists(f"snapshot {name!r} exists already")


def refuse_children(connection: sqlite3.Connection, row: Row) -> None:
    """InUse if something stands on the snapshot, or somebody looks at it."""
    if not rows.has_children(connection, row.id):
        return
    found = rows.children(connection, row.id)
    names = [child.name for child in found if child.step != rows.LOOKING]
    if names:
        shown = ", ".join(repr(name) for name in names[:5]) + (", …" if len(names) > 5 else "")
        raise InUse(f"snapshot {row.name!r} has children: {shown}; remove them first")
    raise InUse(f"snapshot {row.name!r} is being looked at; try again when that is done")

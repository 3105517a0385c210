"""Make, freeze and remove snapshots: say it, do it, note it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import attrs

from lamina import rows
from lamina.commits import complete_commit
from lamina.driver import Ability
from lamina.errors import AlreadyExists, BadRequest, InUse, LaminaError, NotFound, WrongParent
from lamina.layer import Kind, Layer
from lamina.mount import Mount
from lamina.recovery import settle, settle_the_dead
from lamina.rows import Row
from lamina.rules import parent_id, refuse_kind, say_commit, say_new, say_remove
from lamina.showing import refuse_mounted
from lamina.store import Store

T = TypeVar("T")


@attrs.frozen
class Onto:
    """The parent that a commit is told to use."""

    parent: str | None


@contextlib.contextmanager
def held(store: Store, key: str, *, also_removing: bool = False) -> Iterator[Row]:
    """The row of that name, ready, and nobody else at work on it; what the dead left undone is settled first."""
    while True:
        layer_id = rows.id_of(store.meta.read(), key)
        if layer_id is None:
            raise NotFound(f"no snapshot {key!r}")
        with store.locks.hold(layer_id):
            now = rows.by_id(store.meta.read(), layer_id)
            if now is None or now.name != key:
                continue
            if now.step == rows.READY or (also_removing and now.step == rows.REMOVING):
                yield now
                return
            settle(store, now)


def make(store: Store, kind: Kind, key: str, parent: str | None, labels: Mapping[str, str]) -> tuple[Mount, ...]:
    """A new active snapshot or view, and how to mount it. When this raises, there is no such snapshot."""
    with contextlib.ExitStack() as stack:

        def say() -> Layer:
            return stack.enter_context(
                store.begun(lambda connection: say_new(connection, store.lineages, key, kind, parent, labels))
            )

        layer = _insisted(store, say)
        try:
            return _fill(store, layer)
        except BaseException:
            with contextlib.suppress(LaminaError):  # else it is settled when somebody asks for the key
                store.forget(layer.id)
            raise


def _fill(store: Store, layer: Layer) -> tuple[Mount, ...]:
    store.ask(store.driver.prepare, layer)
    mounts = store.ask(store.driver.mounts, layer)
    store.sync_if_full()
    with store.meta.change() as connection:
        rows.set_step(connection, layer.id, rows.PREPARING, rows.READY)
    return mounts


def commit(store: Store, name: str, key: str, onto: Onto | None, labels: Mapping[str, str]) -> Row:
    """The active snapshot is committed under its name. When this raises, it is active as before."""
    with held(store, key) as row:
        refuse_kind(row, wanted=(Kind.ACTIVE,), because="only an active one can be committed")
        refuse_mounted(store, row)
        begun = _insisted(store, lambda: _begin_commit(store, row, name, onto, labels))
        try:
            complete_commit(store, begun)
        except BaseException:
            with contextlib.suppress(LaminaError), store.meta.change(lasting=True, freeing=True) as connection:
                rows.forget_commit(connection, row.id)
            raise
        committed = rows.by_id(store.meta.read(), row.id)
    assert committed is not None  # noqa: S101  # its lock was ours
    return committed


def _begin_commit(store: Store, row: Row, name: str, onto: Onto | None, labels: Mapping[str, str]) -> Row:
    with store.meta.change(lasting=True) as connection:
        below = row.parent if onto is None else _new_parent(store, connection, onto, row)
        return say_commit(connection, row, name, below, labels)


def _new_parent(store: Store, connection: sqlite3.Connection, onto: Onto, row: Row) -> int | None:
    below = None if onto.parent is None else parent_id(connection, onto.parent)
    if below != row.parent and Ability.REBASE in store.driver.cannot:
        raise BadRequest(f"{store.driver.name} cannot {Ability.REBASE.value}")
    if below is not None and row.rooted:
        raise WrongParent(
            f"{row.name!r} holds a layer tar, or a part of one, whose removals were carried out, as nothing lay below; "
            "to put it onto a parent, apply the tar with alone=True, and to an empty snapshot"
        )
    return below


def remove(store: Store, key: str) -> None:
    """The snapshot is gone. InUse while it has children or is mounted; then it is untouched."""
    with held(store, key, also_removing=True) as row:
        refuse_mounted(store, row)

        def say() -> None:
            # once its content is being taken away, a committed snapshot must not come back, not even after a power cut
            with store.meta.change(lasting=row.kind is Kind.COMMITTED, freeing=True) as connection:
                say_remove(connection, row)

        _insisted(store, say)
        store.forget(row.id)
    store.meta.reserve.keep()


def _insisted(store: Store, say: Callable[[], T]) -> T:
    """Say it; if something is in the way that the dead left behind, settle that and say it again."""
    try:
        return say()
    except (AlreadyExists, InUse):
        if not settle_the_dead(store):
            raise
    return say()

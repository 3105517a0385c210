"""Finish or undo what a crash cut short.

Whoever works on a layer holds its lock, and the kernel drops the lock of the dead. So a step in the database whose lock
can be had was left by somebody who died, and may be settled at any time, by anybody, while others go on.
"""

from __future__ import annotations

import contextlib
import os

from lamina import mountrows, rows
from lamina.commits import complete_commit
from lamina.errors import LaminaError
from lamina.layer import Kind
from lamina.rows import Row
from lamina.showing import clear_peephole, drop
from lamina.store import Store


def recover(store: Store, *, alone: bool) -> tuple[str, ...]:
    """Settle everything that the dead left, and tell each deed in a sentence.

    `alone`: nobody else has the store open, so that layers without a row are nobody's and go, too. What cannot be
    settled now is told and tried again when somebody asks for it.
    """
    told = settle_the_dead(store)
    if alone:
        told += _remove_strays(store)
        _drop_dead_mounts(store)
        _clear_peepholes(store)
    return tuple(told)


def settle_the_dead(store: Store) -> list[str]:
    """Settle every step whose worker is dead."""
    told = []
    for row in rows.unfinished(store.meta.read()):
        with store.locks.try_hold(row.id) as held:
            now = rows.by_id(store.meta.read(), row.id) if held else None
            if now is None or now.step == rows.READY:
                continue
            try:
                told.append(settle(store, now))
            except LaminaError as error:
                told.append(f"could not settle layer {row.id}, which was {row.step}: {error}")
    return told


def settle(store: Store, row: Row) -> str:
    """Bring one row out of its step; its lock is held, and its worker is dead. Raises what the driver raises."""
    clear_peephole(store, row.id)
    if row.step == rows.COMMITTING:
        return _settle_commit(store, row)
    if row.step == rows.FILLING:
        empty(store, row)
        return f"emptied {row.name!r} again: unpacking into it was cut short"
    if row.step == rows.APPLYING:
        leave_half(store, row)
        return f"unpacking into {row.name!r} was cut short; it holds what was there before and a part of the tar"
    store.forget(row.id)
    return {
        rows.PREPARING: f"cleared {row.name!r}: preparing it was cut short",
        rows.REMOVING: f"removed the rest of {row.name!r}",
        rows.LOOKING: f"closed a look that was left open (layer {row.id})",
    }[row.step]


def _settle_commit(store: Store, row: Row) -> str:
    try:
        complete_commit(store, row)
    except LaminaError:
        with store.meta.change(freeing=True) as connection:
            rows.forget_commit(connection, row.id)
        return f"{row.name!r} is active again: committing it as {row.next_name!r} was cut short and cannot be finished"
    return f"finished the commit of {row.name!r} as {row.next_name!r}"


def empty(store: Store, row: Row) -> None:
    """The layer is as it was just after `prepare`, and ready."""
    store.meta.reserve.spend()
    store.ask(store.driver.release, row.id)
    store.ask(store.driver.prepare, store.layer_of(row))
    _ready(store, row)
    store.meta.reserve.keep()


def leave_half(store: Store, row: Row) -> None:
    """The layer holds what it held and a part of a tar, and is ready.

    Where nothing lies below, removals of that part may have been carried out, so nothing ever may.
    """
    with store.meta.change(freeing=True) as connection:
        if row.parent is None:
            rows.set_rooted(connection, row.id)
        rows.set_step(connection, row.id, row.step, rows.READY)


def _ready(store: Store, row: Row) -> None:
    with store.meta.change(freeing=True) as connection:
        rows.set_step(connection, row.id, row.step, rows.READY)


def _remove_strays(store: Store) -> list[str]:
    """Layers without a row go: their rows were lost with the power. Rows without a layer are told of."""
    stored = store.ask(store.driver.layers)
    known = rows.ids(store.meta.read())
    told = []
    for layer_id in sorted(stored - known.keys(), reverse=True):
        try:
            store.ask(store.driver.release, layer_id)
            store.ask(store.driver.remove, layer_id)
            told.append(f"removed layer {layer_id}, which nobody knows")
        except LaminaError as error:
            told.append(f"could not remove layer {layer_id}, which nobody knows: {error}")
    for layer_id, kind in known.items():
        if kind is not Kind.VIEW and layer_id not in stored:
            row = rows.by_id(store.meta.read(), layer_id)
            told.append(f"the content of {row.name!r} is missing; remove it" if row else "")
    return told


def _drop_dead_mounts(store: Store) -> None:
    for place in mountrows.everywhere(store.meta.read()):
        if not place.live:
            drop(store, place)


def _clear_peepholes(store: Store) -> None:
    """Places of our own that no row knows any more."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(store.room / "mnt"):
            if name.isdecimal():
                clear_peephole(store, int(name))

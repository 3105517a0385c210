"""Freeze a layer: commit it, measure it, flush it, and only then say so."""

from __future__ import annotations

from pathlib import Path

import attrs

from lamina import rows
from lamina.driver import NativeUsage, StoresChanges
from lamina.layer import Usage
from lamina.rows import Row
from lamina.showing import clear_peephole, open_peephole
from lamina.store import Store


def complete_commit(store: Store, row: Row) -> None:
    """Do what the row says is to be committed. Repeatable until the row is noted, which is the last thing done."""
    layer = store.layer_to_be(row)
    seen = _Seen() if isinstance(store.driver, StoresChanges) else _inspected(store, row)
    store.ask(store.driver.release, row.id)
    store.ask(store.driver.commit, layer)
    usage = seen.usage or store.measure(layer) or Usage()
    store.sync(*_places(store, row, seen))
    with store.meta.change(lasting=True) as connection:
        rows.finish_commit(connection, row.id, usage)


@attrs.frozen
class _Seen:
    """What had to be looked at while the layer was still active."""

    usage: Usage | None = None
    places: tuple[Path, ...] = ()


def _places(store: Store, row: Row, seen: _Seen) -> tuple[Path, ...]:
    if isinstance(store.driver, StoresChanges):
        return (store.ask(store.driver.changes, store.layer_to_be(row)).root,)
    return seen.places


def _inspected(store: Store, row: Row) -> _Seen:
    """A layer whose changes lie in no directory of their own is measured, and if need be flushed, as a whole."""
    mounts = store.ask(store.driver.mounts, store.layer_of(row))
    if all(mount.type == "bind" for mount in mounts):
        source = Path(mounts[-1].source)
        return _Seen(_measured(store, source), (source,))
    place = open_peephole(store, row, row.id, writable=True)
    try:
        store.sync(place)  # a block device: its file system is gone from sight when it is committed
        return _Seen(_measured(store, place))
    finally:
        clear_peephole(store, row.id)


def _measured(store: Store, tree: Path) -> Usage | None:
    from lamina.trees import measure_tree  # noqa: PLC0415

    return None if isinstance(store.driver, NativeUsage) else store.ask(measure_tree, tree)

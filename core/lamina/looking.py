"""See what is in a snapshot: as a directory, as differences to its parent, as a size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lamina import rows
from lamina.content import compare, opened_tree
from lamina.layer import Kind, Usage
from lamina.showing import committed_shown, live_look, open_peephole
from lamina.store import Store
from lamina.verbs import held

if TYPE_CHECKING:
    from lamina.changes import Change


@contextlib.contextmanager
def look(store: Store, key: str) -> Iterator[Path]:
    """Any snapshot as a read-only directory of our own; it is not removed meanwhile, and nothing stays afterwards."""
    row = rows.visible(store.meta.read(), key)
    if row.kind is Kind.COMMITTED:
        with committed_shown(store, row) as place:
            yield place
        return
    with contextlib.ExitStack() as stack:
        with held(store, key) as row:
            number = stack.enter_context(live_look(store, row))
            place = open_peephole(store, row, number, writable=False)
        yield place


@contextlib.contextmanager
def compared(store: Store, key: str) -> Iterator[tuple[int, Iterator[Change]]]:
    """The open root of a snapshot, and what differs from its parent; good for the length of the `with`."""
    with contextlib.ExitStack() as stack:
        new = stack.enter_context(opened_tree(stack.enter_context(look(store, key))))
        row = rows.visible(store.meta.read(), key)
        old = None
        if row.parent_name is not None:
            old = stack.enter_context(opened_tree(stack.enter_context(look(store, row.parent_name))))
        yield new, compare(store, store.layer_of(row), old, new)


def usage(store: Store, key: str) -> Usage:
    """As noted at commit, or measured now."""
    row = rows.visible(store.meta.read(), key)
    known = row.usage or store.measure(store.layer_of(row))
    if known is not None:
        return known
    from lamina.trees import measure_tree  # noqa: PLC0415  # a listing measures nothing

    with look(store, key) as root:
        return store.ask(measure_tree, root)

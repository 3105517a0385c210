"""Who stands on whom, remembered: what a committed layer stands on never changes, and no id is used twice."""

from __future__ import annotations

import sqlite3
import threading
from typing import Final

from lamina import rows
from lamina.layer import Kind, Layer
from lamina.rows import Row

_MOST: Final = 256  # lineages kept; one of 500 layers takes 4 KiB


class Lineages:
    """The ancestors of one store's committed layers. Any thread may ask."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, ...]] = {}
        self._turn = threading.Lock()

    def of(self, connection: sqlite3.Connection, committed: int | None) -> tuple[int, ...]:
        """The id of a committed layer and those of all below it, the nearest first."""
        if committed is None:
            return ()
        found = self._known.get(committed)
        if found is None:
            found = rows.ancestors(connection, committed)
            with self._turn:
                if len(self._known) >= _MOST:
                    del self._known[next(iter(self._known))]
                self._known[committed] = found
        return found

    def layer_of(self, connection: sqlite3.Connection, row: Row) -> Layer:
        """The layer as drivers see it: with the ids of all its ancestors."""
        return Layer(row.id, row.kind, self.of(connection, row.parent))

    def layer_to_be(self, connection: sqlite3.Connection, row: Row) -> Layer:
        """What the commit in progress will make of it."""
        return Layer(row.id, Kind.COMMITTED, self.of(connection, row.next_parent))

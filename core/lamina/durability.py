"""How much of what was acknowledged survives a power cut, and the flushing that this takes."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lamina.errors import ConfigError
from lamina.metadata import Flush


class Durability(enum.IntEnum):
    """The levels; each promises what those before it promise, and more. docs/crash-safety.md has the table."""

    NONE = 0  # nothing is flushed; a power cut may lose the store
    METADATA = 1  # the database is sound afterwards, and knows of all that was committed; data may be missing
    ORDERED = 2  # what was committed is there, data and all
    FULL = 3  # what was acknowledged is there: rows of active snapshots, too, and what an unmounted one holds

    @classmethod
    def of(cls, word: str | Durability) -> Durability:
        """The level that is called so; ConfigError lists them all."""
        if isinstance(word, Durability):
            return word
        try:
            return cls[word.upper()]
        except KeyError:
            levels = ", ".join(level.name.lower() for level in cls)
            raise ConfigError(f"durability {word!r}: not one of {levels}") from None

    @property
    def flushes(self) -> tuple[Flush, Flush]:
        """How SQLite flushes transactions that have to last, and the others."""
        return _FLUSHES[self]

    @property
    def data(self) -> bool:
        """Whether data is flushed before the row that names it."""
        return self >= Durability.ORDERED


_FLUSHES: Final[dict[Durability, tuple[Flush, Flush]]] = {
    Durability.NONE: ("OFF", "OFF"),
    Durability.METADATA: ("FULL", "NORMAL"),
    Durability.ORDERED: ("FULL", "NORMAL"),
    Durability.FULL: ("FULL", "FULL"),
}


def sync_all(*places: Path) -> None:
    """Return once the file systems that hold these directories are on disk; each is flushed once."""
    from lamina.trees import sync_tree  # noqa: PLC0415  # a listing flushes nothing

    for place in _one_of_each(places):
        sync_tree(place)


def _one_of_each(places: tuple[Path, ...]) -> Iterator[Path]:
    devices = set[int]()
    for place in places:
        device = place.stat().st_dev
        if device not in devices:
            devices.add(device)
            yield place

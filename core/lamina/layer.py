"""What drivers store: layers, by number, with their parents' numbers."""

from __future__ import annotations

import enum

import attrs


class Kind(enum.Enum):
    """What may be done with a layer."""

    ACTIVE = "active"  # somebody writes to it
    VIEW = "view"  # somebody looks at it
    COMMITTED = "committed"  # frozen for ever; the only kind that may have children


@attrs.frozen
class Layer:
    """One layer as a driver sees it; names are not its business.

    `id` is positive, never used twice in one store, and unchanged by commit.
    `parents` are the ids of all ancestors, the nearest first; each is committed.
    """

    id: int
    kind: Kind
    parents: tuple[int, ...] = ()

    @property
    def parent(self) -> int | None:
        """The layer directly below, if there is one."""
        return self.parents[0] if self.parents else None

    @property
    def writable(self) -> bool:
        """Whether its mounts let the user write."""
        return self.kind is Kind.ACTIVE


@attrs.frozen
class Usage:
    """What a layer itself occupies, without its parents.

    `size` in bytes as allocated on disk (holes are free, a hard-linked file counts once); `inodes` counts them, or is 0
    where the backend counts bytes alone.
    """

    size: int = 0
    inodes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.size + other.size, self.inodes + other.inodes)

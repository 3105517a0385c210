"""What a layer has brought so far, as a tree of names."""

from __future__ import annotations

import enum
from collections.abc import Iterator

import attrs

from lamina.archive.names import join
from lamina.tar import Header


class Leaf(enum.Enum):
    """A name without names below it."""

    FILE = "a file, link or device"
    WHITEOUT = "the record that the name is gone from the layers below"


@attrs.define(eq=False)
class Directory:
    """A directory that the layer brings or touches.

    `header` is what the layer says of it, if anything. `times`, access and modification, are those that a directory of
    the layers below had when we came.
    """

    above: Directory | None = None
    header: Header | None = None
    times: tuple[int, int] | None = None
    brought: bool = False  # by itself or for what is in it; what is not, is hidden by an opaque marker
    children: dict[bytes, Directory | Leaf] = attrs.field(factory=dict)

    def at(self, path: bytes) -> Directory | Leaf | None:
        """What is known of a path below this one."""
        found: Directory | Leaf | None = self
        for name in path.split(b"/") if path else ():
            if not isinstance(found, Directory):
                return None
            found = found.children.get(name)
        return found

    def directory(self, path: bytes) -> Directory:
        """The directory at a path below this one, from now on known as such."""
        here = self
        for name in path.split(b"/") if path else ():
            below = here.children.get(name)
            if not isinstance(below, Directory):
                below = here.children[name] = Directory(here)
            here = below
        return here

    def bring(self) -> None:
        """The layer brings this directory, or something in it."""
        here: Directory | None = self
        while here is not None and not here.brought:
            here.brought = True
            here = here.above

    def bring_leaf(self, name: bytes, leaf: Leaf = Leaf.FILE) -> None:
        """The layer brings something else in this directory."""
        self.children[name] = leaf
        self.bring()

    def all_directories(self, path: bytes = b"") -> Iterator[tuple[bytes, Directory]]:
        """This and all directories below it, each before those that lie in it."""
        waiting = [(path, self)]
        while waiting:
            here = waiting.pop()
            yield here
            for name, child in here[1].children.items():
                if isinstance(child, Directory):
                    waiting.append((join(here[0], name), child))


def is_brought(known: Directory | Leaf | None) -> bool:
    """Whether the layer itself brings this, so that its own whiteouts spare it."""
    return known is Leaf.FILE or (isinstance(known, Directory) and known.brought)

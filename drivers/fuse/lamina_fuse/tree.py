"""The merged tree: which name leads to which inode, and what is known of each."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Mapping
from typing import Final

from lamina.descent import DIRECTORY
from lamina.syscalls import opened
from lamina_fuse.dialect import hidden_by
from lamina_fuse.index import LINKED, Index
from lamina_fuse.node import Node
from lamina_fuse.record import NLINK, Record, record_of
from lamina_fuse.registry import OpenFile, Registry
from lamina_fuse.union import OWN, ROOT, ROW_MASK, SHIFT, Stack, bottom_of, merge
from lamina_fuse.upper import Upper

_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_RECORDS: Final = 50_000
_KEPT_NAMES: Final = 60_000  # of lower directories, as Python's objects
_PATIENCE: Final = 60.0  # seconds that a reader of a directory may pause before positions are renumbered


class Tree(Registry):
    """Lookups cost no system call where only lower layers are asked."""

    def __init__(self, layers: Mapping[int, Index], roots: Mapping[int, int], upper: Upper | None) -> None:
        """`layers` from the topmost lower one down, with their open directories."""
        self.layers = dict(layers)
        self.roots = dict(roots)
        stack: Stack = tuple(number << SHIFT for number in layers)
        if upper is not None and upper.is_opaque(upper.root):
            stack = ()
        root = Node(ROOT, directory=True, up=upper is not None, stack=bottom_of(stack, self.layers))
        super().__init__(root, upper)
        self._names = 0

    # names

    def find(self, directory: Node, name: bytes) -> int:
        """The inode that a name leads to; 0 if there is none."""
        above = directory.above
        if above is None:
            above = self.above(directory)
        ino = above.get(name)
        if ino is not None:
            return ino
        below = directory.below
        if below is None:
            below = self.below(directory)
        found = below.get(name)
        if found is None:
            return 0
        return found[0] if isinstance(found, tuple) else found

    def above(self, directory: Node) -> dict[bytes, int]:
        """The writable layer's names here."""
        if directory.above is None:
            directory.above = self._read_above(directory) if directory.up and not directory.dead else {}
        return directory.above

    def below(self, directory: Node) -> dict[bytes, int | Stack]:
        """The lower layers' names here."""
        if directory.below is None:
            if self._names > _KEPT_NAMES:
                self._forget_names()
            directory.below = merge(directory.stack, self.layers)
            self._names += len(directory.below)
        return directory.below

    def _forget_names(self) -> None:
        for node in self.nodes.values():
            if node.directory:
                node.below = None
                if node.read_at < time.monotonic() - _PATIENCE and not node.above:
                    node.listing = None
        self._names = 0

    def _read_above(self, directory: Node) -> dict[bytes, int]:
        upper = self.upper
        assert upper is not None  # noqa: S101  # a node is up only if there is one
        found: dict[bytes, int] = {}
        below = self.below(directory)
        with opened(b".", DIRECTORY, dir_fd=self.descriptor(directory)) as here:
            for text in os.listdir(here):
                name = os.fsencode(text)
                status = os.stat(name, dir_fd=here, follow_symlinks=False)
                if (gone := hidden_by(name, status)) is not None and not upper.dialect.is_private_name(name):
                    found.setdefault(gone, 0)
                elif upper.dialect.is_whiteout(here, name, status):
                    found[name] = 0
                elif not upper.dialect.is_private_name(name):
                    found[name] = self._number(here, name, status, below.get(name))
        return found

    def _number(self, directory: int, name: bytes, status: os.stat_result, below: int | Stack | None) -> int:
        upper = self.upper
        assert upper is not None  # noqa: S101
        if stat.S_ISDIR(status.st_mode) and isinstance(below, tuple) and not self._opaque(directory, name):
            ino = below[0]
        else:
            ino = upper.origin(directory, name) or own(status)
        self.remember(ino, record_of(status))
        return ino

    def _opaque(self, directory: int, name: bytes) -> bool:
        assert self.upper is not None  # noqa: S101
        with opened(name, _STEP, dir_fd=directory) as child:
            return self.upper.is_opaque(child)

    def enter(self, directory: Node, name: bytes, ino: int) -> Node | None:
        """The node of what a name leads to; None for a file of a lower layer, which needs none."""
        node = self.nodes.get(ino)
        if node is not None:
            if node.up and not node.directory and (directory, name) not in node.names and name in self.above(directory):
                self.attach(node, directory, name)  # one more name of it
            return node
        found = self.below(directory).get(name)
        if name in self.above(directory):
            return self._enter_upper(directory, name, ino, found)
        if not isinstance(found, tuple):
            return None
        return self.add(Node(ino, directory=True, up=False, stack=found), directory, name)

    def _enter_upper(self, directory: Node, name: bytes, ino: int, below: int | Stack | None) -> Node:
        place = self.descriptor(directory)
        record = self._records.get(ino)
        if record is None:
            record = record_of(os.stat(name, dir_fd=place, follow_symlinks=False))
            self.remember(ino, record)
        is_directory = stat.S_ISDIR(record[0])
        joined = is_directory and isinstance(below, tuple) and not self._opaque(place, name)
        stack = below if joined and isinstance(below, tuple) else ()
        return self.add(Node(ino, directory=is_directory, up=True, stack=stack), directory, name)

    def resolve(self, path: bytes) -> tuple[Node, bytes] | None:
        """The directory that holds `path` and its last name; None if there is no such directory."""
        *above, name = path.split(b"/")
        here = self.root
        for each in above:
            ino = self.find(here, each)
            found = self.enter(here, each, ino) if ino else None
            if found is None or not found.directory:
                return None
            here = found
        return here, name

    # attributes

    def record(self, ino: int) -> Record:
        """The attributes of an inode, as users see them."""
        record = self._records.get(ino)
        if record is not None:
            return record
        node = self.nodes.get(ino)
        if node is None:
            return self._lower_record(ino)
        if not node.up:
            lowest = node.stack[0]
            record = self.layers[lowest >> SHIFT].record(lowest & ROW_MASK)
        else:
            record = record_of(self.status(node))
        if node.directory:
            record = _with_links(record, 0 if node.dead else 1)  # how many directories it holds is not counted
        if node.up:
            self.remember(ino, record)
        return record

    def _lower_record(self, ino: int) -> Record:
        index = self.layers.get(ino >> SHIFT)
        if index is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        fields = index.row(ino & ROW_MASK)
        record: Record = fields[:10]  # type: ignore[assignment]  # a slice of a tuple of integers
        if fields[13] & LINKED:
            return _with_links(record, len(self.visible_names(ino)))
        return _with_links(record, 0) if ino in self.gone else record

    def is_settled(self, ino: int) -> bool:
        """Whether attributes stay as the lower layers have them until `changed` is called."""
        node = self.nodes.get(ino)
        if node is not None:
            return not node.up
        index = self.layers.get(ino >> SHIFT)
        return index is not None and not index.flags(ino & ROW_MASK) & LINKED  # whose other names count, too

    def visible_names(self, ino: int) -> list[tuple[Node, bytes]]:
        """Where a file of a lower layer shows."""
        index = self.layers[ino >> SHIFT]
        found = []
        for row in index.names(ino & ROW_MASK):
            place = self.resolve(index.path(row))
            if place is not None and self.find(*place) == ino:
                found.append(place)
        return found

    def lost(self, ino: int) -> None:
        """A file of a lower layer has one name less; without any it is remembered as gone, for whoever has it open."""
        if not self.layers[ino >> SHIFT].flags(ino & ROW_MASK) & LINKED or not self.visible_names(ino):
            self.gone.add(ino)

    def status(self, node: Node) -> os.stat_result:
        """Ask the writable layer's file system."""
        opened_file = self.opens.get(node.ino)
        if opened_file is not None and not node.directory:
            return os.fstat(opened_file.descriptor)
        directory, name = self.place(node)
        if directory is None:
            return os.stat(name)
        return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def remember(self, ino: int, record: Record) -> None:
        """Keep attributes until something changes them: not of what is open, which the accelerator changes unasked."""
        opened_file = self.opens.get(ino)
        if opened_file is not None and not opened_file.lower:
            return
        if len(self._records) > _KEPT_RECORDS:
            self._records.clear()
        self._records[ino] = _with_links(record, 1) if stat.S_ISDIR(record[0]) and record[NLINK] else record

    def changed(self, ino: int) -> None:
        """Attributes have to be asked for again."""
        self._records.pop(ino, None)
        self.hints.changed(ino)

    def raised_open(self, opened_file: OpenFile) -> None:
        """A file that is open is in the writable layer: from now on its attributes are those of the descriptor."""
        self.changed(opened_file.ino)
        self.hints.opened(opened_file.ino, opened_file.descriptor)

    def target(self, ino: int) -> bytes:
        """What a symbolic link of a lower layer says."""
        return self.layers[ino >> SHIFT].target(ino & ROW_MASK)

    def statvfs(self) -> os.statvfs_result:
        """Of the file system below the writable layer, or below the topmost one."""
        return os.statvfs(self.upper.root if self.upper is not None else next(iter(self.roots.values())))

    def sync(self, directory: Node) -> None:
        """A directory's names are on disk."""
        if directory.up:
            with opened(b".", DIRECTORY, dir_fd=self.descriptor(directory)) as here:
                os.fsync(here)

    # reading directories

    def listing(self, directory: Node, start: int) -> list[bytes]:
        """All names, some of which may be gone; a name keeps its position while somebody reads on."""
        now = time.monotonic()
        listing = directory.listing
        crowded = listing is not None and len(listing) > 2 * self._count(directory) + 64
        if listing is None or (start == 0 and crowded and directory.read_at < now - _PATIENCE):
            above = self.above(directory)
            below = self.below(directory)
            listing = [name for name in below if name not in above] + [name for name, ino in above.items() if ino]
            directory.listing = listing
            directory.listed = set()
        if start:
            directory.read_at = now
        return listing

    def _count(self, directory: Node) -> int:
        return len(self.above(directory)) + len(self.below(directory))

    def named(self, directory: Node, name: bytes, ino: int) -> None:
        """A name of the writable layer leads to an inode from now on; 0 for a whiteout."""
        self.above(directory)[name] = ino
        if ino and directory.listing is not None:
            if not directory.listed:
                directory.listed = set(directory.listing)
            if name not in directory.listed:
                directory.listing.append(name)
                directory.listed.add(name)

    def unnamed(self, directory: Node, name: bytes) -> None:
        """The name is gone, and so the whiteout is needed only if lower layers have it."""
        if name in self.below(directory):
            self.above(directory)[name] = 0
        else:
            self.above(directory).pop(name, None)

    def is_empty(self, directory: Node) -> bool:
        """Whether no name shows."""
        above = self.above(directory)
        return not any(above.values()) and all(name in above for name in self.below(directory))


def own(status: os.stat_result) -> int:
    """The inode number of what only the writable layer has."""
    return OWN | (status.st_ino & (OWN - 1))


def _with_links(record: Record, links: int) -> Record:
    return (record[0], links, *record[2:])

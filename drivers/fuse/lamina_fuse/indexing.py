"""Read a committed layer's directory once, and write its index."""

from __future__ import annotations

import os
import stat
from collections import defaultdict, deque
from pathlib import Path
from typing import Final

from lamina.descent import DIRECTORY, names_in
from lamina.syscalls import opened
from lamina.xattrs import at, read_xattrs
from lamina_fuse.dialect import UnionWhiteouts, hidden_by
from lamina_fuse.index import NAME, OPAQUE, WHITEOUT, Builder, Index
from lamina_fuse.places import open_below
from lamina_fuse.record import record_of

_DIALECT: Final = UnionWhiteouts()


def index_of(layer: Path) -> Index:
    """The index of the layer in `layer/fs`; made if there is none, or it is damaged."""
    try:
        return Index.load(layer / NAME)
    except (FileNotFoundError, ValueError):
        build(layer)
        return Index.load(layer / NAME)


def build(layer: Path) -> None:
    """Read `layer/fs` and write `layer/index`."""
    builder = Builder()
    with opened(layer / "fs", DIRECTORY) as root:
        _Reader(root, builder).read()
    builder.write(layer / NAME)


class _Reader:
    def __init__(self, root: int, builder: Builder) -> None:
        self._root = root
        self._builder = builder
        self._inodes: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._todo: deque[tuple[int, bytes]] = deque()
        self._extras: dict[int, tuple[dict[str, bytes], bytes]] = {}

    def read(self) -> None:
        """Breadth first, so that the entries of one directory stand together."""
        builder = self._builder
        top = builder.add(record_of(os.fstat(self._root)), 0, b"")
        self._extras[top] = read_xattrs(self._root), b""
        self._todo.append((top, b""))
        while self._todo:
            number, path = self._todo.popleft()
            descriptor = open_below(self._root, path, DIRECTORY)
            try:
                self._read_directory(descriptor, number, path + b"/" if path else b"")
            finally:
                os.close(descriptor)
        linked = [rows for rows in self._inodes.values() if len(rows) > 1]
        names = {rows[0]: tuple(rows) for rows in linked}
        for rows in linked:
            builder.links(rows)
        for number in {**self._extras, **names}:
            builder.adds(number, *self._extras.get(number, ({}, b"")), names.get(number, ()))

    def _read_directory(self, directory: int, number: int, path: bytes) -> None:
        if _DIALECT.is_opaque(directory):
            self._builder.marks(number, OPAQUE)
        first, count = None, 0
        for name in names_in(directory):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            added = self._add(directory, number, name, status, path)
            if added is not None:
                first = added if first is None else first
                count += 1
        self._builder.holds(number, first or 0, count)

    def _add(self, directory: int, parent: int, name: bytes, status: os.stat_result, path: bytes) -> int | None:
        if _DIALECT.is_private_name(name):
            return None
        if (gone := hidden_by(name, status)) is not None:
            return self._builder.add(record_of(status), parent, gone, WHITEOUT)
        if _DIALECT.is_whiteout(directory, name, status):
            return self._builder.add(record_of(status), parent, name, WHITEOUT)
        number = self._builder.add(record_of(status), parent, name)
        if stat.S_ISDIR(status.st_mode):
            self._todo.append((number, path + name))
        elif status.st_nlink > 1:
            rows = self._inodes[status.st_dev, status.st_ino]
            rows.append(number)
            if len(rows) > 1:
                return number
        self._remember(number, directory, name, status)
        return number

    def _remember(self, number: int, directory: int, name: bytes, status: os.stat_result) -> None:
        target = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else b""
        xattrs = read_xattrs(at(directory, name))
        if xattrs or target:
            self._extras[number] = xattrs, target

"""A file system in dicts: what every driver must look like, and what each edit does to it."""

from __future__ import annotations

import copy
import hashlib
import stat
from collections.abc import Iterator
from typing import Any

import attrs

from lamina.conformance.caller import keeps_setid
from lamina.conformance.witness import Seen
from lamina.driver import Ability

DIRECTORY, FILE, LINK = stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK


@attrs.define(eq=False)
class Node:
    """An inode. Two names for one node are a hard link."""

    type: int
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    content: bytes = b""  # of a file; the target of a symbolic link
    rdev: int = 0
    xattrs: dict[str, bytes] = attrs.field(factory=dict)
    entries: dict[bytes, Node] = attrs.field(factory=dict)
    lower: bool = False  # comes from a parent layer and was not altered since


@attrs.define
class Model:
    """One tree, and what the driver names as lacking: those abilities change what is expected."""

    cannot: frozenset[Ability] = frozenset()
    root: Node = attrs.field(factory=lambda: Node(DIRECTORY))

    def child(self) -> Model:
        """What a layer on top of this one shows at first: the same, and all of it lower."""
        twin = copy.deepcopy(self)
        for _, node in twin.walk():
            node.lower = True
        twin.root.lower = True
        return twin

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Every path but the root's, in order, with its node."""
        yield from _walk(self.root, b"")

    def at(self, path: bytes) -> Node:
        """The node of this name."""
        node = self.root
        for part in path.split(b"/") if path else ():
            node = node.entries[part]
        return node

    def up(self, path: bytes) -> tuple[Node, bytes]:
        """The directory that holds this name, and the name."""
        above, _, name = path.rpartition(b"/")
        return self.at(above), name

    def names_of(self, node: Node) -> list[bytes]:
        """All paths of one node."""
        return [path for path, other in self.walk() if other is node]

    def own(self, path: bytes) -> Node:
        """The node, about to be altered in this layer; union file systems may part it from its other names."""
        node = self.at(path)
        parts = node.lower and node.type != DIRECTORY and len(self.names_of(node)) > 1
        if parts and Ability.LOWER_HARD_LINKS in self.cannot:
            directory, name = self.up(path)
            node = directory.entries[name] = copy.deepcopy(node)
        if node.type != DIRECTORY:
            node.lower = False
        return node

    def may_rename(self, path: bytes) -> bool:
        """Whether rename(2) works on it, or says EXDEV as some union file systems do for lower directories."""
        node = self.at(path)
        return not (node.lower and node.type == DIRECTORY and Ability.RENAME_LOWER_DIRECTORY in self.cannot)

    def manifest(self) -> dict[bytes, Seen]:
        """What the witness has to see."""
        groups: dict[int, list[bytes]] = {}
        for path, node in self.walk():
            groups.setdefault(id(node), []).append(path)
        found = {path: _seen(node, tuple(sorted(groups[id(node)]))) for path, node in self.walk()}
        return {b"": _seen(self.root, ()), **found}


def _walk(directory: Node, prefix: bytes) -> Iterator[tuple[bytes, Node]]:
    for name, node in sorted(directory.entries.items()):
        yield prefix + name, node
        if node.type == DIRECTORY:
            yield from _walk(node, prefix + name + b"/")


def _seen(node: Node, names: tuple[bytes, ...]) -> Seen:
    file = node.type == FILE
    return Seen(
        type=node.type,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=node.mtime_ns,
        size=len(node.content) if file else 0,
        rdev=node.rdev,
        target=node.content if node.type == LINK else b"",
        content=hashlib.sha256(node.content).hexdigest() if file else "",
        xattrs=dict(node.xattrs),
        links=names if len(names) > 1 and node.type != DIRECTORY else (),
    )


def _written(node: Node) -> None:
    """What the kernel takes from a file whose content somebody without CAP_FSETID alters (fs/attr.c)."""
    if not keeps_setid():
        # setgid on a file that its group may not execute once meant mandatory locking, and stays with its group
        node.mode &= ~(stat.S_ISUID | (stat.S_ISGID if node.mode & stat.S_IXGRP else 0))


@attrs.frozen
class Step:
    """One edit, with every choice made: `verb` is a method of `Tree`, of the model as of the real thing."""

    verb: str
    path: bytes
    args: dict[str, Any] = attrs.field(factory=dict)
    time: int = 0  # becomes the mtime of whatever the step touched


class ModelTree:
    """The verbs of a step, done to the model. `play.RealTree` does the same with system calls."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def do(self, step: Step) -> None:
        """The model is what the step makes of it."""
        getattr(self, step.verb)(step.path, step.time, **step.args)

    def make(self, path: bytes, time: int, **node: Any) -> None:
        """A new entry, of any type."""
        directory, name = self.model.up(path)
        directory.entries[name] = Node(mtime_ns=time, **node)
        directory.mtime_ns = time

    def write(self, path: bytes, time: int, *, offset: int, data: bytes) -> None:
        """Overwrite a part of a file, or lengthen it; what was never written reads as zeros."""
        node = self.model.own(path)
        held = node.content.ljust(offset, b"\0")
        node.content = held[:offset] + data + held[offset + len(data) :]
        _written(node)
        node.mtime_ns = time

    def truncate(self, path: bytes, time: int, *, size: int) -> None:
        """The file has this length."""
        node = self.model.own(path)
        node.content = node.content[:size].ljust(size, b"\0")
        _written(node)
        node.mtime_ns = time

    def attributes(self, path: bytes, time: int, *, uid: int, gid: int, mode: int) -> None:
        """Owner and mode."""
        node = self.model.own(path)
        node.uid, node.gid, node.mtime_ns = uid, gid, time
        if node.type != LINK:
            node.mode = mode

    def set_xattr(self, path: bytes, time: int, *, name: str, value: bytes) -> None:
        """The attribute has this value."""
        node = self.model.own(path)
        node.xattrs[name] = value
        node.mtime_ns = time

    def remove_xattr(self, path: bytes, time: int, *, name: str) -> None:
        """There is no such attribute."""
        node = self.model.own(path)
        del node.xattrs[name]
        node.mtime_ns = time

    def link(self, path: bytes, time: int, *, to: bytes) -> None:
        """One more name, `to`."""
        node = self.model.own(path)
        directory, name = self.model.up(to)
        directory.entries[name] = node
        node.mtime_ns = directory.mtime_ns = time

    def remove(self, path: bytes, time: int) -> None:
        """Gone, with everything below it."""
        directory, name = self.model.up(path)
        del directory.entries[name]
        directory.mtime_ns = time

    def rename(self, path: bytes, time: int, *, to: bytes) -> None:
        """Now called `to`; a file or an empty directory of that name is replaced."""
        node = self.model.own(path) if self.model.at(path).type != DIRECTORY else self.model.at(path)
        source, old = self.model.up(path)
        target, new = self.model.up(to)
        del source.entries[old]
        target.entries[new] = node
        source.mtime_ns = target.mtime_ns = node.mtime_ns = time

"""Rename in the merged tree, whatever layers the two names are in."""

from __future__ import annotations

import errno
import os
from typing import Final

from lamina import syscalls
from lamina_fuse.copyup import CopyUp
from lamina_fuse.naming import NAME_MAX, Naming, fail
from lamina_fuse.node import Node
from lamina_fuse.tree import Tree
from lamina_fuse.upper import Upper

_KNOWN: Final = syscalls.RENAME_NOREPLACE | syscalls.RENAME_EXCHANGE


class Renaming:
    """A directory that stands on lower ones is first made whole in the writable layer: no redirect is ever written."""

    def __init__(self, tree: Tree, copies: CopyUp, naming: Naming) -> None:
        self._tree = tree
        self._copies = copies
        self._naming = naming

    @property
    def _upper(self) -> Upper:
        if self._tree.upper is None:
            raise fail(errno.EROFS)
        return self._tree.upper

    def rename(self, old: Node, name: bytes, new: Node, called: bytes, flags: int) -> None:
        """As renameat2(2), with NOREPLACE and EXCHANGE."""
        tree = self._tree
        source, target = tree.find(old, name), tree.find(new, called)
        if flags & ~_KNOWN:
            raise fail(errno.EINVAL)
        if not source or (flags & syscalls.RENAME_EXCHANGE and not target) or new.dead:
            raise fail(errno.ENOENT)
        if len(called) > NAME_MAX:
            raise fail(errno.ENAMETOOLONG)
        if target and flags & syscalls.RENAME_NOREPLACE:
            raise fail(errno.EEXIST)
        if source == target:
            return  # two names of one inode: POSIX wants nothing done
        if flags & syscalls.RENAME_EXCHANGE:
            self._exchange(old, name, new, called)
        else:
            self._replace(old, name, new, called)

    def _moved(self, directory: Node, name: bytes, to: Node, called: bytes) -> Node:
        """What is to be moved, able to stand at its new place."""
        tree = self._tree
        ino = tree.find(directory, name)
        node = self._copies.raised(ino) if tree.enter(directory, name, ino) is None else tree.nodes[ino]
        self._copies.raised(directory.ino)
        self._copies.raised(to.ino)
        if not node.directory:
            return self._copies.raised(ino)
        if node.stack:
            self._copies.whole(node)
        if called in tree.below(to):
            self._upper.set_opaque(tree.descriptor(node))
        return node

    def _exchange(self, old: Node, name: bytes, new: Node, called: bytes) -> None:
        tree = self._tree
        first, second = self._moved(old, name, new, called), self._moved(new, called, old, name)
        syscalls.renameat2(tree.descriptor(old), name, tree.descriptor(new), called, syscalls.RENAME_EXCHANGE)
        tree.hints.acknowledge()
        for node, here, was, there, becomes in ((first, old, name, new, called), (second, new, called, old, name)):
            tree.detach(node, here, was)
            tree.attach(node, there, becomes)
            node.names.reverse()  # the name that is surely right comes first
        tree.named(new, called, first.ino)
        tree.named(old, name, second.ino)
        self._changed(old, new, first, second)

    def _replace(self, old: Node, name: bytes, new: Node, called: bytes) -> None:
        tree = self._tree
        node = self._moved(old, name, new, called)
        ino = tree.find(new, called)
        victim = tree.enter(new, called, ino) if ino else None
        if victim is not None and victim.directory and not tree.is_empty(victim):
            raise fail(errno.ENOTEMPTY)
        if victim is not None and victim.up:
            self._naming.bury(victim, new, called)
        elif victim is not None:
            self._naming.raise_grave(victim)
        self._on_disk(node, old, name, new, called)
        tree.hints.acknowledge()
        tree.unnamed(old, name)
        if victim is not None:
            tree.detach(victim, new, called)
            if victim.directory:
                victim.above, victim.below, victim.stack = {}, {}, ()
        tree.detach(node, old, name)
        tree.attach(node, new, called)
        node.names.reverse()
        tree.named(new, called, node.ino)
        self._changed(old, new, node, victim)
        if ino:
            tree.changed(ino)
            if victim is None:
                tree.lost(ino)
            tree.drop(ino)

    def _on_disk(self, node: Node, old: Node, name: bytes, new: Node, called: bytes) -> None:
        tree, upper = self._tree, self._upper
        source, target = tree.descriptor(old), tree.descriptor(new)
        hides = name in tree.below(old)
        occupied = called in tree.above(new)  # by something, or by a whiteout
        if node.directory and occupied:
            self._over_something(source, name, target, called, leave_whiteout=hides)
        elif hides:
            upper.rename_leaving_whiteout(source, name, target, called)
        else:
            os.rename(name, called, src_dir_fd=source, dst_dir_fd=target)

    def _over_something(self, source: int, name: bytes, target: int, called: bytes, *, leave_whiteout: bool) -> None:
        """rename(2) lets a directory replace only an empty one: so swap the two, then clear the old place."""
        upper = self._upper
        syscalls.renameat2(source, name, target, called, syscalls.RENAME_EXCHANGE)
        try:
            if leave_whiteout:
                upper.replace_directory_by_whiteout(source, name)
            else:
                upper.remove_directory(source, name)
        except NotADirectoryError:  # it was a whiteout that stood there
            if not leave_whiteout:
                os.unlink(name, dir_fd=source)

    def _changed(self, *nodes: Node | None) -> None:
        for node in nodes:
            if node is not None:
                self._tree.changed(node.ino)

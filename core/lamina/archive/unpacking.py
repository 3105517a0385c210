"""A layer tar into a tree: entry by entry, each replacing what had its name; directories get their own last."""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from lamina.archive.blame import named
from lamina.archive.brought import Directory, Leaf, is_brought
from lamina.archive.making import dress_directory, make_file, make_special, make_symlink
from lamina.archive.names import Meaning, Name, join, judge, judge_link
from lamina.archive.places import Place, Places
from lamina.changes import ChangesTree, Whiteouts
from lamina.descent import DIRECTORY, names_in, open_below
from lamina.errors import BadArchive, NeedsParent
from lamina.privacy import is_private_xattr
from lamina.syscalls import opened
from lamina.tar import EntryData, EntryType, Header, read_headers
from lamina.trees import remove_entry

_LARGEST_ID: Final = 0xFFFFFFFE  # one more means "leave it as it is"


def apply_merged(layer: BinaryIO, place: Path) -> bool:
    """The tree at `place` shows what the tar says on top of what it showed.

    True if it removes anything. A hostile or broken tar is BadArchive, and what came before the bad entry has been
    done. `OSError` names the entry.
    """
    with opened(place, DIRECTORY) as root:
        return _Merged(root).run(layer)


def apply_direct(layer: BinaryIO, tree: ChangesTree, *, base: bool) -> bool:
    """The empty changes tree holds what the tar says, in the tree's own dialect.

    With `base` nothing will ever lie below it. Without, a tar that leans on something of its parent raises NeedsParent.
    Otherwise as `apply_merged`.
    """
    with opened(tree.root, DIRECTORY) as root:
        unpacking = _Merged(root, tree.whiteouts.is_private_xattr) if base else _Direct(root, tree.whiteouts)
        unpacking.longest_name = tree.whiteouts.longest_name
        return unpacking.run(layer)


class _Unpacking(ABC):
    """What both ways have in common."""

    longest_name = 255  # bytes; beyond, the kernel itself refuses

    def __init__(self, root: int, is_private: Callable[[str], bool], *, leans: bool) -> None:
        self._root = root
        self._is_private = is_private
        self._known = Directory()
        self._removes = False
        self._places = Places(root, self._known, leans=leans)

    def run(self, layer: BinaryIO) -> bool:
        with self._places:
            self._places.at(b"")  # notes the root's times before anything changes them
            for header, data in read_headers(layer):
                with named(header.path):
                    self._take(judge(header.path), header, data)
        self._finish()
        return self._removes

    # one entry

    def _take(self, name: Name, header: Header, data: EntryData) -> None:
        if name.meaning is Meaning.NOTHING:
            return
        if name.meaning in {Meaning.OPAQUE, Meaning.GONE}:
            self._take_removal(name)
            return
        if len(name.name) > self.longest_name:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if max(header.uid, header.gid) > _LARGEST_ID:
            raise BadArchive(header.path, "an owner beyond 32 bits")
        if not name.name:
            self._take_root(header)
        elif header.type is EntryType.DIRECTORY:
            self._take_directory(name, header)
        elif header.type is EntryType.HARD_LINK:
            self._take_link(name, header)
        else:
            self._take_other(name, header, data)

    def _take_removal(self, name: Name) -> None:
        self._removes = True
        self._hide_all(name.directory) if name.meaning is Meaning.OPAQUE else self._hide(name)

    def _take_root(self, header: Header) -> None:
        if header.type is not EntryType.DIRECTORY:
            raise BadArchive(header.path, "the root of a tree is a directory")
        self._known.header = header

    def _take_directory(self, name: Name, header: Header) -> None:
        place = self._places.at(name.directory)
        in_place_of_another = self._uncover(place, name.name)
        try:
            os.mkdir(name.name, 0o700, dir_fd=place.descriptor)
        except FileExistsError:
            if not _is_directory(place, name.name):
                self._clear(place, name.name)
                os.mkdir(name.name, 0o700, dir_fd=place.descriptor)
                in_place_of_another = True
        known = place.known.directory(name.name)
        known.header = header
        known.bring()
        if in_place_of_another:
            self._close_off(join(place.path, name.name))

    def _take_other(self, name: Name, header: Header, data: EntryData) -> None:
        place = self._places.at(name.directory)
        self._uncover(place, name.name)
        try:
            _make(place, name.name, header, data)
        except FileExistsError:
            self._clear(place, name.name)
            _make(place, name.name, header, data)
        place.known.bring_leaf(name.name)

    def _take_link(self, name: Name, header: Header) -> None:
        target = judge_link(header.path, header.linkname)
        place, there = self._places.at(name.directory), self._place_of_target(target)
        if (there.path, target.name) == (place.path, name.name) or _is_directory(there, target.name):
            raise BadArchive(header.path, f"a hard link to {header.linkname!r}, which cannot be")
        self._uncover(place, name.name)
        if _exists(place, name.name):
            self._clear(place, name.name)
            there = self._place_of_target(target)  # it may have lain in what was cleared
        try:
            os.link(
                target.name, name.name, src_dir_fd=there.descriptor, dst_dir_fd=place.descriptor, follow_symlinks=False
            )
        except FileNotFoundError:
            raise self._no_target(target) from None
        place.known.bring_leaf(name.name)

    def _no_target(self, target: Name) -> BadArchive:
        return BadArchive(target.path, "a hard link to this, which is not there")

    def _clear(self, place: Place, name: bytes) -> None:
        """Nothing is at this name any more."""
        remove_entry(place.descriptor, name)
        place.known.children.pop(name, None)
        self._places.forget(join(place.path, name))

    # what the two ways do differently

    @abstractmethod
    def _hide(self, name: Name) -> None:
        """What the layers below have under this name does not show any more."""

    @abstractmethod
    def _hide_all(self, path: bytes) -> None:
        """Nothing that the layers below have in this directory shows any more."""

    @abstractmethod
    def _place_of_target(self, target: Name) -> Place:
        """The directory in which a hard link's target lies."""

    def _uncover(self, place: Place, name: bytes) -> bool:
        """Something comes in place of a whiteout; whether there was one."""
        return False

    def _close_off(self, path: bytes) -> None:
        """A directory has come in place of something else: what lies below it stays hidden."""

    # the end

    def _finish(self) -> None:
        """Directories get what the tar says of them; those that it does not mention get back their times."""
        for path, known in reversed(list(self._known.all_directories())):
            with named(path):
                self._finish_directory(path, known)

    def _finish_directory(self, path: bytes, known: Directory) -> None:
        if known.header is None and known.times is None:
            return
        here = open_below(self._root, path)
        try:
            if known.header is not None:
                dress_directory(here, known.header, is_private=self._is_private)
            elif known.times is not None and os.fstat(here).st_mtime_ns != known.times[1]:
                os.utime(here, ns=known.times)
        finally:
            os.close(here)


class _Merged(_Unpacking):
    """Into a tree that shows the layers below as well: what is gone is removed."""

    def __init__(self, root: int, is_private: Callable[[str], bool] = is_private_xattr) -> None:
        super().__init__(root, is_private, leans=False)

    def _hide(self, name: Name) -> None:
        place = self._places.existing(name.directory)
        if place is None:
            return
        known = place.known.children.get(name.name)
        if not is_brought(known):
            self._clear(place, name.name)
        elif isinstance(known, Directory):
            self._hide_all(join(place.path, name.name))

    def _hide_all(self, path: bytes) -> None:
        waiting = [path]
        while waiting:
            place = self._places.existing(waiting.pop())
            if place is None:
                continue
            for name in names_in(place.descriptor):
                known = place.known.children.get(name)
                if not is_brought(known):
                    self._clear(place, name)
                elif isinstance(known, Directory):
                    waiting.append(join(place.path, name))

    def _place_of_target(self, target: Name) -> Place:
        place = self._places.existing(target.directory)
        if place is None or not _exists(place, target.name):
            raise self._no_target(target)
        return place


class _Direct(_Unpacking):
    """Into a directory that holds only this layer's changes: what is gone is written down."""

    def __init__(self, root: int, whiteouts: Whiteouts) -> None:
        super().__init__(root, whiteouts.is_private_xattr, leans=True)
        self._whiteouts = whiteouts

    def _hide(self, name: Name) -> None:
        place = self._places.at(name.directory)
        known = place.known.children.get(name.name)
        if isinstance(known, Directory):
            self._hide_all(name.path)
        elif known is None:
            self._whiteouts.write_whiteout(place.descriptor, name.name)
            place.known.bring_leaf(name.name, Leaf.WHITEOUT)

    def _hide_all(self, path: bytes) -> None:
        self._whiteouts.write_opaque(self._places.at(path).descriptor)

    _close_off = _hide_all

    def _uncover(self, place: Place, name: bytes) -> bool:
        if place.known.children.get(name) is not Leaf.WHITEOUT:
            return False
        self._whiteouts.remove_whiteout(place.descriptor, name)
        del place.known.children[name]
        return True

    def _place_of_target(self, target: Name) -> Place:
        if self._known.at(target.path) is not Leaf.FILE:
            raise NeedsParent(target.path, "a hard link to this, which the layer does not bring")
        return self._places.at(target.directory)


def _make(place: Place, name: bytes, header: Header, data: EntryData) -> None:
    if header.type is EntryType.FILE:
        make_file(place.descriptor, name, header, data, heir=place.hands_down)
    elif header.type is EntryType.SYMLINK:
        make_symlink(place.descriptor, name, header)
    else:
        make_special(place.descriptor, name, header, heir=place.hands_down)


def _exists(place: Place, name: bytes) -> bool:
    return _mode(place, name) is not None


def _is_directory(place: Place, name: bytes) -> bool:
    return stat.S_ISDIR(_mode(place, name) or 0)


def _mode(place: Place, name: bytes) -> int | None:
    try:
        return os.stat(name, dir_fd=place.descriptor, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None

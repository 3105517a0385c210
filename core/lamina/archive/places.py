"""The directories that a layer is unpacked into: each opened once, below the root, whatever links there are."""

from __future__ import annotations

import collections
import contextlib
import errno
import os
from typing import Final, Self

import attrs

from lamina.archive.brought import Directory
from lamina.archive.names import join
from lamina.descent import DIRECTORY, open_below
from lamina.errors import BadArchive, NeedsParent
from lamina.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, openat2
from lamina.tar import EntryType, Header

_KEPT_OPEN: Final = 64
_IN_ROOT: Final = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_IMPLIED: Final = Header(b"", EntryType.DIRECTORY, 0o755)  # of root, and from 1970: the same on every machine


@attrs.define(eq=False)
class Place:
    """An open directory, where it really lies, and what the layer has brought there."""

    descriptor: int
    path: bytes
    known: Directory
    hands_down: bool  # an access list, to whatever is made in it


class Places:
    """Finds directories by the paths of a tar. Links on the way are followed as if the root were `/`; that is where
    docker and containerd put such entries, too.

    With `leans`, only what the layer itself has brought counts; the rest is the business of a parent that we cannot
    see, and asking for it raises NeedsParent. Without, directories that are missing are made.
    """

    def __init__(self, root: int, known: Directory, *, leans: bool) -> None:
        self._root = root
        self._known = known
        self._leans = leans
        self._open: collections.OrderedDict[bytes, Place] = collections.OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for place in self._open.values():
            os.close(place.descriptor)
        self._open.clear()

    def at(self, path: bytes) -> Place:
        """The directory at `path`; valid until some sixty others were asked for.

        BadArchive if something on the way is no directory.
        """
        place = self._open.get(path)
        if place is not None:
            self._open.move_to_end(path)
            return place
        if self._leans and not isinstance(self._known.at(path), Directory):
            raise NeedsParent(path, "it lies in a directory that the layer does not bring")
        return self._find(path) or self._make(path)

    def existing(self, path: bytes) -> Place | None:
        """The directory at `path`, if there is one."""
        return self._open.get(path) or self._find(path)

    def forget(self, path: bytes) -> None:
        """Something at `path` was removed: whatever may have been found through it is found anew."""
        below = path + b"/"
        gone = [key for key, place in self._open.items() if key != place.path or (key + b"/").startswith(below)]
        for key in gone:
            os.close(self._open.pop(key).descriptor)

    def _find(self, path: bytes) -> Place | None:
        above, _, name = path.rpartition(b"/")
        near = self._open.get(above) if path else None
        try:
            if near is None:
                found = open_below(self._root, path)
            else:
                found = openat2(near.descriptor, name, DIRECTORY, resolve=_IN_ROOT)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            if error.errno in {errno.ELOOP, errno.ENOTDIR} and not self._leans:
                return self._find_through_links(path)
            raise
        if near is None:
            return self._keep(path, found, path, self._known.directory(path))
        return self._keep(path, found, join(near.path, name), near.known.directory(name))

    def _find_through_links(self, path: bytes) -> Place | None:
        try:
            found = openat2(self._root, path, DIRECTORY & ~os.O_NOFOLLOW, resolve=_IN_ROOT)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            if error.errno in {errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
                raise BadArchive(path, "something on the way there is no directory") from None
            raise
        really = self._below_root(found)
        return self._keep(path, found, really, self._known.directory(really))

    def _below_root(self, descriptor: int) -> bytes:
        """Where an open directory lies, seen from the root."""
        root, found = (os.readlink(b"/proc/self/fd/%d" % each) for each in (self._root, descriptor))
        if found == root:
            return b""
        if not found.startswith(root.rstrip(b"/") + b"/"):  # moved away while we looked
            raise OSError(errno.ESTALE, "a directory was moved out of the tree while it was filled", os.fsdecode(found))
        return found[len(root.rstrip(b"/")) + 1 :]

    def _make(self, path: bytes) -> Place:
        """Make the directories that are missing on the way, from the top."""
        here = self.at(b"")
        for cut in (*(at for at, byte in enumerate(path) if byte == 0x2F), len(path)):
            way = path[:cut]
            found = self.existing(way)
            if found is None:
                name = way.rpartition(b"/")[2]
                try:
                    os.mkdir(name, 0o700, dir_fd=here.descriptor)
                except FileExistsError:  # a link that points nowhere
                    raise BadArchive(path, "something on the way there is no directory") from None
                made = here.known.directory(name)
                made.header = _IMPLIED
                made.bring()
                found = self._find(way)
                if found is None:
                    raise FileNotFoundError(errno.ENOENT, "a directory vanished while it was filled", os.fsdecode(way))
            here = found
        return here

    def _keep(self, path: bytes, descriptor: int, really: bytes, known: Directory) -> Place:
        if known.times is None and known.header is None:
            status = os.fstat(descriptor)
            known.times = status.st_atime_ns, status.st_mtime_ns
        place = self._open[path] = Place(descriptor, really, known, _hands_down(descriptor))
        if len(self._open) > _KEPT_OPEN:
            os.close(self._open.popitem(last=False)[1].descriptor)
        return place


def _hands_down(directory: int) -> bool:
    with contextlib.suppress(OSError):
        os.getxattr(directory, "system.posix_acl_default")
        return True
    return False

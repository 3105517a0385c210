"""Copy files and directories into a tree that may have some of them already."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from typing import NoReturn

from lamina.descent import DIRECTORY, Entry, Ladder, descended, walk
from lamina.errors import BadRequest
from lamina.filling import Filler
from lamina.likeness import Owner, copy_entry, copy_metadata
from lamina.syscalls import opened


class Merge:
    """One copy. What it makes gets `owner`, or with None the owner of its original.

    A directory that is there already stays as it is and gets what it lacks; a file is replaced, at once and only when
    the new one is whole. A directory does not replace a file, nor a file a directory: BadRequest.
    """

    def __init__(self, owner: Owner | None) -> None:
        """Remember; touch nothing."""
        self._owner = owner
        self._filler = Filler()
        self._linked: dict[tuple[int, int], bytes] = {}

    def one(self, entry: Entry, directory: int, name: bytes) -> None:
        """Copy what is not a directory."""
        replace(directory, name, lambda part: copy_entry(entry, directory, self._filler, name=part, owner=self._owner))

    def tree(self, source: int, directory: int, name: bytes) -> None:
        """Copy an open directory with all below it. What is mounted inside is refused: `OSError` (EXDEV)."""
        made = make_directory(directory, name)
        with opened(name, DIRECTORY, dir_fd=directory) as top, Ladder(top) as ladder:
            self._fill(source, top, ladder)
            if made:
                copy_metadata(source, top, os.fstat(source), owner=self._owner)

    def _fill(self, source: int, top: int, ladder: Ladder) -> None:
        itself = os.fstat(top)
        made: list[bool] = []

        def enter(entry: Entry) -> None:
            if os.path.samestat(itself, entry.status):
                raise BadRequest("a directory cannot be copied into itself")
            made.append(make_directory(ladder.here, entry.name))
            ladder.down(entry.name)

        def leave(entry: Entry) -> None:
            if made.pop():
                copy_metadata(entry.directory, ladder.here, entry.status, owner=self._owner)
            ladder.up()

        for entry in walk(source, entered=enter, left=leave, barred=refuse_mount):
            if not stat.S_ISDIR(entry.status.st_mode) and not self._link(entry, top, ladder.here):
                self.one(entry, ladder.here, entry.name)

    def _link(self, entry: Entry, top: int, directory: int) -> bool:
        """Give a file that was copied already its second name."""
        if entry.status.st_nlink == 1:
            return False
        first = self._linked.setdefault((entry.status.st_dev, entry.status.st_ino), entry.path)
        if first is entry.path:
            return False
        above, name = os.path.split(first)
        with descended(top, above) as there:
            replace(directory, entry.name, lambda part: link(there, name, directory, part))
        return True


def make_directory(directory: int, name: bytes) -> bool:
    """True if it was made, open to its owner only; False if it was there. BadRequest if something else is."""
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
    except FileExistsError:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            raise BadRequest(f"{os.fsdecode(name)!r}: a directory cannot replace what is no directory") from None
        return False
    return True


def replace(directory: int, name: bytes, make: Callable[[bytes], None]) -> None:
    """Have something made under a name of its own, and then give it the name it is to have."""
    with contextlib.suppress(FileNotFoundError):  # before anything is copied
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise BadRequest(f"{os.fsdecode(name)!r}: a directory is only replaced by a directory")
    part = b".lamina-%s" % secrets.token_hex(8).encode()
    try:
        make(part)
        os.rename(part, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fsdecode(name)) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=directory)


def link(source_directory: int, source: bytes, directory: int, name: bytes) -> None:
    """A second name for a file, which may lie in another directory."""
    os.link(source, name, src_dir_fd=source_directory, dst_dir_fd=directory, follow_symlinks=False)


def refuse_mount(entry: Entry) -> NoReturn:
    """What is mounted inside a tree would be left out without a word."""
    raise OSError(errno.EXDEV, "something else is mounted here; copy it by itself", os.fsdecode(entry.path))

"""What a layer altered: changes by path, and the dialects in which union file systems record removals."""

from __future__ import annotations

import contextlib
import enum
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import attrs


class ChangeKind(enum.Enum):
    """The letter that `docker diff` shows."""

    ADDED = "A"
    MODIFIED = "C"
    DELETED = "D"


@attrs.frozen(order=True)
class Change:
    """One path that differs between a layer and its parent.

    `path` is relative, in raw bytes, without a leading slash; `b""` is the root directory itself.
    """

    path: bytes
    kind: ChangeKind = attrs.field(order=False)


class Whiteouts(ABC):
    """A dialect: how one union file system says 'this is gone' and 'nothing below shows through'.

    Every method works relative to an open directory, so that nobody can swap a path underneath.
    """

    longest_name: ClassVar[int] = 255  # bytes; the union cannot show an entry with a longer name

    @abstractmethod
    def is_whiteout(self, directory: int, name: bytes, status: os.stat_result) -> bool:
        """Does this entry of the open `directory` stand for a removal? `status` is its lstat."""

    def hidden_by(self, name: bytes) -> bytes:
        """The name that a whiteout of this name says is gone: the same, unless the dialect has prefixes."""
        return name

    @abstractmethod
    def is_opaque(self, directory: int) -> bool:
        """Does the open `directory` hide whatever lower layers have at the same place?"""

    @abstractmethod
    def write_whiteout(self, directory: int, name: bytes) -> None:
        """Record that `name` is gone. There is no entry of that name when this is called."""

    def remove_whiteout(self, directory: int, name: bytes) -> None:
        """Take back what `write_whiteout` recorded: `name` is free again. Nothing recorded is nothing to do."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)

    @abstractmethod
    def write_opaque(self, directory: int) -> None:
        """Make the open `directory` hide what is below it. Repeating it is harmless."""

    def is_private_name(self, name: bytes) -> bool:
        """Is an entry of this name the file system's own bookkeeping, never part of a layer?"""
        return False

    def is_private_xattr(self, name: str) -> bool:
        """Is an attribute of this name the file system's own bookkeeping, never part of a layer?"""
        return False


@attrs.frozen
class ChangesTree:
    """The directory that holds only one layer's own changes, and the dialect in which removals are written."""

    root: Path
    whiteouts: Whiteouts

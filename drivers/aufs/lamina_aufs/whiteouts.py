"""How aufs writes down that something is gone (aufs: Documentation/filesystems/aufs, design/01intro.txt)."""

from __future__ import annotations

import os
import stat
from typing import ClassVar, Final

import attrs

from lamina.changes import Whiteouts

_PREFIX: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_OWN: Final = b".wh..wh."  # .wh..wh.aufs, .wh..wh.orph, .wh..wh.plnk and the mark of an opaque directory


@attrs.frozen
class AufsWhiteouts(Whiteouts):
    """The removal of `name` is an empty file `.wh.name`; a directory that holds `.wh..wh..opq` hides what is below."""

    longest_name: ClassVar[int] = 242  # AUFS_MAX_NAMELEN: room for `.wh..wh.` and for `.` and four digits

    def is_whiteout(self, directory: int, name: bytes, status: os.stat_result) -> bool:
        """A file whose name says so."""
        return name.startswith(_PREFIX) and not name.startswith(_OWN) and stat.S_ISREG(status.st_mode)

    def hidden_by(self, name: bytes) -> bytes:
        """Without the prefix."""
        return name.removeprefix(_PREFIX)

    def is_opaque(self, directory: int) -> bool:
        """It holds the mark."""
        try:
            os.stat(_OPAQUE, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def write_whiteout(self, directory: int, name: bytes) -> None:
        """An empty file, readable by all as aufs itself makes it."""
        _touch(directory, _PREFIX + name)

    def remove_whiteout(self, directory: int, name: bytes) -> None:
        """The empty file is gone."""
        super().remove_whiteout(directory, _PREFIX + name)

    def write_opaque(self, directory: int) -> None:
        """Make the mark."""
        _touch(directory, _OPAQUE)

    def is_private_name(self, name: bytes) -> bool:
        """What aufs keeps for itself."""
        return name.startswith(_OWN)


def _touch(directory: int, name: bytes) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444, dir_fd=directory))

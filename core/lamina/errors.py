"""Everything that can go wrong, in one tree.

::

    LaminaError                      1
    ├── BadRequest                   2   the caller asked for something that makes no sense
    │   ├── InvalidName
    │   ├── WrongKind
    │   │   └── WrongParent              the snapshot that is to be stood on is not a committed one
    │   └── ConfigError
    ├── NotFound                     4
    ├── AlreadyExists                5
    ├── InUse                        6   children, mounts or containers stand on it
    ├── DriverNotFound               7
    ├── Unhealthy                    8   the driver cannot be used on this machine
    ├── DriverFailed                 9   a verb of a driver raised; the cause is chained
    ├── ProgramFailed               10   zfs, btrfs, … ended with a status other than 0
    ├── BadArchive                  11   a tar, an image or a document breaks its format or is hostile
    │   └── NeedsParent                  the layer leans on something that only its parent has
    ├── DigestMismatch              12   the bytes are not those that were promised
    ├── StoreBroken                 13   our own files are damaged, or newer than this version
    ├── NoSpace                     14   the disk, the pool or a quota is full
    ├── CannotRun                  125   a container cannot be run, or not be treated so, on this machine
    │   ├── CommandRefused         126   its command is no program, or may not be executed
    │   └── CommandNotFound        127   there is no such command in it
    └── RegistryError               20
        ├── Unauthorized            21
        ├── Denied                  22
        └── Unavailable             23

The numbers are exit codes of the command line. Messages say what, which, and what to do about it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class LaminaError(Exception):
    """Root of every error that lamina raises on purpose."""

    exit_code: ClassVar[int] = 1


class BadRequest(LaminaError):
    """The request itself is wrong; nothing was changed."""

    exit_code = 2


class InvalidName(BadRequest):
    """A name breaks its grammar."""


class WrongKind(BadRequest):
    """The snapshot exists, but is not of the kind that this verb needs."""


class WrongParent(WrongKind):
    """The snapshot that was to be the parent exists, but is not committed."""


class ConfigError(BadRequest):
    """A config file, variable or option is wrong."""


class NotFound(LaminaError):
    """Nothing goes by that name."""

    exit_code = 4


class AlreadyExists(LaminaError):
    """The name is taken."""

    exit_code = 5


class InUse(LaminaError):
    """Something still stands on it: children, mounts, containers or images."""

    exit_code = 6


class DriverNotFound(LaminaError):
    """No installed plugin offers a driver of that name."""

    exit_code = 7


class Unhealthy(LaminaError):
    """The driver cannot be used on this machine; `problems` says why, one line each."""

    exit_code = 8

    def __init__(self, driver: str, problems: Iterable[str]) -> None:
        self.driver = driver
        self.problems = tuple(problems)
        super().__init__(f"{driver}: {'; '.join(self.problems)}")


class DriverFailed(LaminaError):
    """A verb of a driver raised; what it raised is the cause."""

    exit_code = 9

    def __init__(self, driver: str, verb: str, layer_id: int | None, cause: BaseException) -> None:
        self.driver = driver
        self.verb = verb
        self.layer_id = layer_id
        which = "" if layer_id is None else f" of layer {layer_id}"
        super().__init__(f"{driver}: {verb}{which} failed: {str(cause) or type(cause).__name__}")


class ProgramFailed(LaminaError):
    """A program ended with a status other than 0."""

    exit_code = 10

    def __init__(self, argv: Sequence[str | os.PathLike[str]], status: int, stderr: str) -> None:
        self.argv = tuple(os.fspath(word) for word in argv)
        self.status = status
        self.stderr = stderr
        super().__init__(f"{' '.join(self.argv)}: status {status}: {stderr.strip() or 'no message'}")


class BadArchive(LaminaError):
    """An archive breaks its format, or would reach outside its tree; nothing of it is kept."""

    exit_code = 11

    def __init__(self, entry: bytes | str, why: str) -> None:
        self.entry = os.fsdecode(entry)
        self.why = why
        # repr: an entry's name may hold newlines, escapes and bytes that are not UTF-8
        super().__init__(f"{self.entry!r}: {why}" if self.entry else why)


class NeedsParent(BadArchive):
    """A layer cannot be unpacked by itself: it leans on a file or directory of its parent.

    Not a fault of the archive. Unpack it through a mount of the merged tree instead.
    """


class DigestMismatch(LaminaError):
    """The bytes do not have the digest (or the length) that was promised; they were not kept."""

    exit_code = 12

    def __init__(self, what: str, expected: str, got: str) -> None:
        self.expected = expected
        self.got = got
        super().__init__(f"{what}: expected {expected}, got {got}")


class StoreBroken(LaminaError):
    """Our own files are damaged, or were written by a newer version."""

    exit_code = 13


class NoSpace(LaminaError):
    """The disk, the pool or the quota is full; what was stored before is untouched."""

    exit_code = 14


class CannotRun(LaminaError):
    """A container cannot be run, or not be treated so, on this machine. The codes are docker's."""

    exit_code = 125


class CommandRefused(CannotRun):
    """The container's command is there, but is no program, or may not be executed."""

    exit_code = 126


class CommandNotFound(CannotRun):
    """The container has no such command."""

    exit_code = 127


class RegistryError(LaminaError):
    """A registry did not do what was asked."""

    exit_code = 20


class Unauthorized(RegistryError):
    """The registry wants (other) credentials."""

    exit_code = 21


class Denied(RegistryError):
    """The registry knows us and says no."""

    exit_code = 22


class Unavailable(RegistryError):
    """The registry cannot be reached or is failing; trying again may help."""

    exit_code = 23

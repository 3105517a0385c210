"""Which mount options belong to the mount itself, and which its file system has to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lamina import syscalls

_ATTRIBUTES: Final = {
    "ro": syscalls.MOUNT_ATTR_RDONLY,
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
    "noatime": syscalls.MOUNT_ATTR_NOATIME,
}
# the same words as flags of mount(2); their values differ only for noatime
_FLAGS: Final = {**_ATTRIBUTES, "noatime": 0x400}
_DEFAULTS: Final = frozenset({"rw", "suid", "dev", "exec", "atime", "relatime", "bind", "rbind", "defaults"})


def attributes_of(options: Sequence[str]) -> int:
    """Those of the options that belong to the mount and not to its file system, as MOUNT_ATTR_ bits."""
    return _bits(options, _ATTRIBUTES)


def file_system_options(options: Sequence[str]) -> tuple[str, ...]:
    """Those of the options that the file system itself has to know."""
    return tuple(option for option in options if option not in _ATTRIBUTES and option not in _DEFAULTS)


def flags_of(options: Sequence[str]) -> int:
    """The same as MS_ bits of mount(2)."""
    return _bits(options, _FLAGS)


def _bits(options: Sequence[str], table: dict[str, int]) -> int:
    bits = 0
    for option in options:
        bits |= table.get(option, 0)
    return bits

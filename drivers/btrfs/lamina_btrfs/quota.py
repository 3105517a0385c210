"""btrfs's own accounts: whether a user has switched them on, what they say, and the limits we set in them.

They are read from /sys/fs/btrfs (Linux 5.9), where anybody may look. They are never switched on or off here: that is
for the whole file system, and its owner's business.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Final

import attrs

from lamina.errors import ConfigError
from lamina.syscalls import opened
from lamina_btrfs import ioctls

_SYSFS: Final = Path("/sys/fs/btrfs")


class Mode(enum.Enum):
    """How a file system counts."""

    OFF = "off"
    SIMPLE = "simple quotas, which count what each subvolume has written"
    FULL = "quota groups, which count what each subvolume refers to"


@attrs.frozen
class Accounts:
    """The accounts of one file system, as they are now."""

    place: Path
    mode: Mode
    sound: bool = True  # no recount is running or due

    def exclusive(self, subvolume: int) -> int | None:
        """How many bytes would be free if the subvolume went away, as of the last transaction; None if not counted."""
        return _number(self.place / f"0_{subvolume}" / "exclusive") if self.mode is not Mode.OFF else None

    def is_limited(self, subvolume: int) -> bool:
        """Whether the subvolume has a limit."""
        return bool((_number(self.place / f"0_{subvolume}" / "limit_flags") or 0) & ioctls.LIMIT_REFERENCED)


def accounts_of(file_system: str) -> Accounts:
    """What the file system of this UUID counts."""
    place = _SYSFS / file_system / "qgroups"
    if not place.is_dir() or _number(place / "enabled") == 0:
        return Accounts(place, Mode.OFF)
    try:
        simple = (place / "mode").read_text(encoding="ascii").strip() == "squota"
    except OSError:  # before Linux 6.7, which brought simple quotas
        simple = False
    return Accounts(place, Mode.SIMPLE if simple else Mode.FULL, sound=not _number(place / "inconsistent"))


def refusal(accounts: Accounts) -> str | None:
    """Why no size can be enforced there; None if it can."""
    if accounts.mode is Mode.OFF:
        return (
            "a size is asked for, and the file system does not count: switch quotas on (`btrfs quota enable --simple`"
            " since Linux 6.7, else `btrfs quota enable`) or leave drivers.btrfs.size out"
        )
    if not accounts.sound:
        return "a size is asked for, and the quotas are being recounted or need to be: `btrfs quota rescan -w`"
    if os.geteuid() != 0:
        return "a size is asked for, and only root may set it"
    return None


def settle(place: Path, size: int | None) -> None:
    """The subvolume at `place` may occupy `size` bytes, or any number. ConfigError if this cannot be enforced."""
    with opened(place, os.O_RDONLY | os.O_DIRECTORY) as subvolume:
        file_system = ioctls.file_system_id(subvolume) or ""
        accounts = accounts_of(file_system)
        if size is None:
            _lift(accounts, subvolume)
            return
        if accounts.mode is Mode.FULL and not accounts.sound:
            ioctls.wait_for_rescan(subvolume)  # just switched on: until then every limit is passed
            accounts = accounts_of(file_system)
        if (why := refusal(accounts)) is not None:
            raise ConfigError(f"drivers.btrfs.size: {why}")
        ioctls.limit(subvolume, ioctls.info(subvolume).id, size)


def _lift(accounts: Accounts, subvolume: int) -> None:
    """A snapshot inherits the limit of its original; what has none saves the call."""
    if accounts.mode is Mode.OFF:
        return
    number = ioctls.info(subvolume).id
    if accounts.is_limited(number):
        ioctls.limit(subvolume, number, None)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None

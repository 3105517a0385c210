"""Whether btrfs can be used here, and what of it."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from lamina.driver import Health
from lamina.syscalls import opened
from lamina_btrfs import ioctls, subvolume
from lamina_btrfs.quota import Accounts, Mode, accounts_of, refusal

_PREFIX: Final = ".lamina-probe-"


def examine(home: Path, size: int | None) -> Health:
    """What layers in `home` would meet; leaves no trace, and never raises for a poor host."""
    try:
        place = next(each for each in (home, *home.parents) if each.is_dir())
        with opened(place, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            file_system = ioctls.file_system_id(descriptor)
        if file_system is None:
            return Health(problems=(f"{place} is not on btrfs; choose a root on one, or another driver",))
        problem = _write_problem(place) or (None if os.geteuid() == 0 else _user_problem(place))
    except OSError as error:
        return Health(problems=(f"btrfs cannot be tried out: {error}",))
    accounts = accounts_of(file_system)
    limit_problem = None if size is None else refusal(accounts)
    return Health(tuple(each for each in (problem, limit_problem) if each), _notes(accounts))


def _write_problem(place: Path) -> str | None:
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return f"{place} is mounted read-only; remount it, or choose another root"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"this user cannot write to {place}; choose another root"
    return None


def _user_problem(place: Path) -> str | None:
    """What root may always do, an ordinary user may if the mount lets him."""
    probe = place / f"{_PREFIX}{os.urandom(6).hex()}"
    copy = probe.with_name(f"{probe.name}-copy")
    problem = None
    try:
        subvolume.make(probe)
        with opened(probe, os.O_RDONLY | os.O_DIRECTORY) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (probe / "file").touch()
            subvolume.clone(probe, copy, read_only=True)
    except OSError as error:
        problem = f"an ordinary user cannot make snapshots in {place}: {error.strerror}"
    removals = [_removal_problem(each) for each in (copy, probe)]
    return next((each for each in (problem, *removals) if each), None)


def _removal_problem(place: Path) -> str | None:
    if not subvolume.is_subvolume(place):
        return None
    try:
        with opened(place.parent, os.O_RDONLY | os.O_DIRECTORY) as above:
            subvolume.thaw(place)
            ioctls.destroy(above, os.fsencode(place.name))
    except OSError as error:
        subvolume.remove(place)
        if error.errno in {errno.EPERM, errno.EACCES}:
            return "an ordinary user may not remove subvolumes here; mount btrfs with -o user_subvol_rm_allowed"
        return f"subvolumes cannot be removed in {place.parent}: {error.strerror}"
    return None


def forget_interrupted(home: Path) -> None:
    """Nothing is left of an examination whose process was killed."""
    for name in os.listdir(home):
        if name.startswith(_PREFIX):
            with suppress(OSError), opened(home / name, os.O_RDONLY | os.O_DIRECTORY) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                subvolume.remove(home / name)


def _notes(accounts: Accounts) -> tuple[str, ...]:
    if accounts.mode is Mode.OFF:
        counting = "quotas are off: sizes are told by the age of extents, and a size limit is refused"
    else:
        counting = f"quotas are on ({accounts.mode.value}): usage is read from them, and a size limit is enforced"
    if os.geteuid() == 0:
        return (counting, "diffs are told by the kernel (send without data)")
    return (
        counting,
        "an ordinary user: diffs and usage walk the trees, since only root may ask the kernel",
        "an ordinary user: mounting needs a user namespace (unshare -Urm)",
    )

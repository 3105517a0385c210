"""The life of servers as the driver sees it: started, found again, stopped; what a dead one left is cleared."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lamina.descent import DIRECTORY
from lamina.mount import is_mounted, mountinfo, unmount
from lamina.syscalls import opened, syncfs
from lamina_fuse import launching

_LOCK: Final = "server.lock"
_PATIENCE: Final = 10.0  # seconds for a server to end after its last mount went
_GONE: Final = frozenset({errno.ENOTCONN, errno.ECONNABORTED})


def is_serving(served: Path) -> bool:
    """Whether something is mounted there, by a server that lives."""
    if not is_mounted(served):
        return False
    try:
        os.statvfs(served)  # always asks the server; what stat tells, the kernel keeps
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
    return True


def serve(place: Path, spec: dict[str, Any], preload: str) -> None:
    """The layer is mounted at `spec["target"]`, by a server that outlives us. Nobody else serves it then."""
    stop(place)
    failure = launching.launch(spec, preload)
    if failure is not None:
        raise OSError(errno.EIO, f"the server of layer {place.name} did not start: {failure}")


def clear_dead(place: Path) -> None:
    """What a dead server left of its mount is gone; one that lives goes on."""
    if pid_of(place) is None:
        stop(place)


def stop(place: Path) -> None:
    """Nothing is mounted at `place/served`, and no server runs for it, even if somebody looks through a bind mount."""
    if not (place / _LOCK).exists():
        return  # nobody has served it since the last time
    device = device_of(place / "served")
    if _mounts_of(device) > 1:
        _flush(place / "served")
    _clear(place / "served")
    lasts = _mounts_of(device) > 0
    target = target_of(place)
    if target is not None and (pid_of(place) is not None or not is_serving(target)):
        _clear(target)
    # with its last mount it ends by itself, once what is open there is closed; while one stays, it would not
    for number, patience in ((None, 0 if lasts else _PATIENCE), (signal.SIGTERM, 2.0), (signal.SIGKILL, _PATIENCE)):
        if number is not None:
            _kill(place, number)
        with _ended(place, patience) as ended:
            if ended:
                (place / _LOCK).unlink(missing_ok=True)
                return
    raise OSError(errno.EBUSY, f"the server of layer {place.name} does not end")


def _clear(served: Path) -> None:
    while is_mounted(served):  # asked of mountinfo: a dead server's place cannot even be looked at
        unmount(served, lazy=True)


def _mounts_of(device: str | None) -> int:
    """How many mounts of a file system, MAJOR:MINOR, are in sight."""
    return sum("{}:{}".format(*point.device) == device for point in mountinfo())


def _flush(served: Path) -> None:
    """What mappings have changed has reached the server; nothing happens if it is dead."""
    with contextlib.suppress(OSError), opened(served, DIRECTORY) as root:
        syncfs(root)


@contextlib.contextmanager
def _ended(place: Path, patience: float) -> Iterator[bool]:
    """Whether the server's lock is free, or becomes free in time."""
    try:
        lock = os.open(place / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        yield _acquired(lock, patience)
    finally:
        os.close(lock)


def _acquired(lock: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        _await_end(_pid(lock), min(left, 0.01))


def _await_end(pid: int, seconds: float) -> None:
    """Return when the process ends, or after this time at the latest."""
    try:
        descriptor = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError, OverflowError, OSError):
        select.select((), (), (), seconds / 10)
        return
    try:
        select.select((descriptor,), (), (), seconds)
    finally:
        os.close(descriptor)


def _pid(lock: int) -> int:
    text = os.pread(lock, 32, 0).partition(b"\n")[0]
    return int(text) if text.isdigit() else -1


def pid_of(place: Path) -> int | None:
    """The process that serves a layer; None if nobody does."""
    with _ended(place, 0) as ended:
        if ended:
            return None
    with contextlib.suppress(OSError, ValueError):
        return int((place / _LOCK).read_bytes().partition(b"\n")[0])
    return None


def target_of(place: Path) -> Path | None:
    """Where an ordinary user's server shows the layer, or did until it died."""
    with contextlib.suppress(FileNotFoundError):
        target = (place / _LOCK).read_bytes().partition(b"\n")[2]
        return Path(os.fsdecode(target)) if target else None
    return None


def _kill(place: Path, number: signal.Signals) -> None:
    pid = pid_of(place)  # the lock is held, so the number is still that of the server
    if pid is not None and pid > 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def device_of(served: Path) -> str | None:
    """MAJOR:MINOR of what is mounted there."""
    target = os.path.realpath(os.fsencode(served))
    found = [point for point in mountinfo() if point.target == target]
    return "{}:{}".format(*found[-1].device) if found else None


def read_ahead(served: Path, kib: int) -> None:
    """Let the kernel read this far ahead, if we may say so."""
    device = device_of(served)
    if device is not None:
        with contextlib.suppress(OSError):
            Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(str(kib), encoding="ascii")

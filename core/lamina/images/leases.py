"""Who is at work in the image store: a lock on a file, held for as long as a process lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


class Leases:
    """The lock files below one root. The kernel lets go of a lock when its process dies, however it dies."""

    def __init__(self, root: Path) -> None:
        self._home = root / "leases"

    def start(self) -> None:
        """The directory exists."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def taken(self) -> Iterator[str]:
        """A new lease, ours until the block ends; its id."""
        lease = secrets.token_hex(8)
        path = self._home / lease
        fd = _lock_new(path)
        try:
            yield lease
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)

    def is_alive(self, lease: str) -> bool:
        """Whether the process that took it still holds it."""
        try:
            fd = os.open(self._home / lease, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def wait(self, lease: str) -> None:
        """Return when its process has let go of it."""
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(self._home / lease, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
            finally:
                os.close(fd)

    def forget(self, lease: str) -> None:
        """Remove the file of a dead lease. Repeating it is harmless."""
        (self._home / lease).unlink(missing_ok=True)


def _lock_new(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)  # the name is random and in no row yet: nobody looks for it
    return fd

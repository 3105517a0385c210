"""One layer, one worker: locks between threads and processes that the kernel drops when their holder dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TARGETS: Final = 1 << 48  # layer ids stay below this


class LayerLocks:
    """A lock for each layer id: one byte of one file, as open-file-description locks (fcntl(2)).

    They exclude threads and processes alike, need no cleaning up, and so also tell whether anybody is still at work on
    a layer: an intent in the database whose lock is free was left by somebody who died.

    Whoever holds one may wait for a target's, but for nothing else: so nobody waits in a circle.
    """

    def __init__(self, path: Path) -> None:
        """Remember the file; it is made when first needed."""
        self._path = path

    @contextlib.contextmanager
    def hold(self, layer_id: int) -> Iterator[None]:
        """Wait until nobody else works on the layer, and keep it so for the length of a `with`."""
        descriptor = self._open()
        try:
            _lock(descriptor, layer_id, fcntl.F_OFD_SETLKW)
            yield
        finally:
            os.close(descriptor)

    def hold_target(self, target: Path) -> contextlib.AbstractContextManager[None]:
        """The same for a place where layers are mounted. Two places may share a lock, which does no harm."""
        return self.hold(_TARGETS + zlib.crc32(os.fsencode(target)))

    @contextlib.contextmanager
    def try_hold(self, layer_id: int) -> Iterator[bool]:
        """The same without waiting: gives False when somebody works on the layer."""
        descriptor = self._open()
        try:
            try:
                _lock(descriptor, layer_id, fcntl.F_OFD_SETLK)
                held = True
            except OSError as error:
                if error.errno not in {errno.EAGAIN, errno.EACCES}:
                    raise
                held = False
            yield held
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int, layer_id: int, command: int) -> None:
    request = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, layer_id, 1, 0)
    fcntl.fcntl(descriptor, command, request)


class RootLock:
    """Every process that has the store open shares this lock, so whoever gets it alone is the first one in."""

    def __init__(self, path: Path) -> None:
        """Take the lock, shared; `alone` says whether it could be had exclusively first."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.alone = self._try_alone()
        if not self.alone:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def _try_alone(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share(self) -> None:
        """Let others in."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        self.alone = False

    def try_alone(self) -> bool:
        """Whether nobody else has the store open at this moment; then nobody gets in before `share` or `close`."""
        self.alone = self._try_alone()
        return self.alone

    def close(self) -> None:
        """Give it up."""
        os.close(self._descriptor)

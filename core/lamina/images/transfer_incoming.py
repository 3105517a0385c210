"""A blob on its way into the store, which others read while it grows."""

from __future__ import annotations

import os
import threading

from lamina.errors import Unavailable
from lamina.images.blobs import Blob
from lamina.images.manifest import Descriptor
from lamina.images.partial import Partial
from lamina.streams import ReadOnly


class Incoming:
    """A blob on its way into the store: one task writes, threads read what is there so far."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self._news = threading.Condition()
        self._fd = -1
        self._size = 0
        self._blob: Blob | None = None
        self._error: BaseException | None = None

    def begin(self, partial: Partial) -> None:
        """Its bytes can be read from here. Those that a killed process left only when the whole was checked."""
        with self._news:
            self._fd = os.dup(partial.fileno())

    def grown(self, size: int) -> None:
        """So many bytes can be read."""
        with self._news:
            self._size = size
            self._news.notify_all()

    def finish(self, blob: Blob, fd: int | None = None) -> None:
        """It is whole and checked, and may be read from `fd`, which is ours now."""
        with self._news:
            self._fd = self._fd if fd is None else fd
            self._size, self._blob = blob.size, blob
            self._news.notify_all()

    def fail(self, error: BaseException) -> None:
        """It will not come; whoever waits for it gets the error."""
        with self._news:
            if self._blob is None and self._error is None:
                self._error = error
                self._news.notify_all()

    def abandon(self) -> None:
        """Nobody wants it any more."""
        self.fail(Unavailable(f"the transfer of {self.descriptor.digest} was given up"))

    def wait(self) -> Blob:
        """The whole blob, once it is in the store."""
        with self._news:
            self._news.wait_for(lambda: self._blob or self._error)
            if self._blob is None:
                assert self._error is not None  # noqa: S101  # what we waited for
                raise self._error
            return self._blob

    def read_at(self, offset: int, size: int) -> bytes:
        """Some bytes from there, waiting until there are any; none at the end of a blob that was checked."""
        with self._news:
            self._news.wait_for(lambda: self._error or self._blob or self._size > offset)
            if self._error is not None:
                raise self._error
            ready = self._size - offset
        return os.pread(self._fd, min(size, ready), offset) if ready > 0 else b""

    def close(self) -> None:
        """Let go of the file; nobody reads any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Following(ReadOnly):
    """An incoming blob as a stream that can be read from its beginning as often as one likes."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return self.readall()
        data = self._incoming.read_at(self._at, size)
        self._at += len(data)
        return data

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._incoming.descriptor.size}[whence]
        self._at = max(0, base + offset)
        return self._at

"""Streams that hash what passes, or read ahead in a thread."""

from __future__ import annotations

import contextlib
import hashlib
import io
import queue
import threading
from typing import Final, Protocol

_PIECE: Final = 1 << 18


class Readable(Protocol):
    """Anything with a `read` that returns some bytes, and none at the end."""

    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    """Anything that takes all the bytes it is given."""

    def write(self, data: bytes, /) -> object: ...


class ReadOnly(io.RawIOBase):
    """A binary stream that is only read, and that leaves what lies below it open."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # typeshed's Buffer is newer than 3.11
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(_PIECE), b""))


class _Hash:
    """SHA-256 and length of what has passed."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def update(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class HashingReader(ReadOnly):
    """Passes a stream on and knows the digest and the size of what was read so far."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._passed = _Hash()

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return self.readall()
        data = self._stream.read(size)
        self._passed.update(data)
        return data

    @property
    def digest(self) -> str:
        """`sha256:…` of what was read."""
        return self._passed.digest

    @property
    def size(self) -> int:
        """How many bytes were read."""
        return self._passed.size


class HashingWriter(io.RawIOBase):
    """Passes bytes on and knows the digest and the size of what was written so far; closing leaves `stream` open."""

    def __init__(self, stream: Writable) -> None:
        self._stream = stream
        self._passed = _Hash()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        raw = bytes(data)  # type: ignore[call-overload]  # typeshed's Buffer is newer than 3.11
        self._stream.write(raw)
        self._passed.update(raw)
        return len(raw)

    @property
    def digest(self) -> str:
        """`sha256:…` of what was written."""
        return self._passed.digest

    @property
    def size(self) -> int:
        """How many bytes were written."""
        return self._passed.size


class ReadAhead(ReadOnly):
    """Reads `stream` in a thread, a few pieces ahead, so that hashing and inflating overlap with their consumer.

    An error of the stream comes out of `read`. Leave it with `with` or `close`: the thread has ended afterwards.
    """

    def __init__(self, stream: Readable, *, pieces: int = 4, size: int = 4 * _PIECE) -> None:
        self._stream = stream
        self._size = size
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(pieces)
        self._abandoned = threading.Event()
        self._piece = memoryview(b"")
        self._ended: bytes | BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="lamina-read-ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._abandoned.is_set():
                data = self._stream.read(self._size)
                self._queue.put(data)
                if not data:
                    return
        except BaseException as error:  # noqa: BLE001  # raised again where the data is asked for
            self._queue.put(error)

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return self.readall()
        if not self._piece:
            self._piece = memoryview(self._take())
        if size >= len(self._piece):
            data, self._piece = self._piece, memoryview(b"")
            return data.obj if isinstance(data.obj, bytes) and len(data.obj) == len(data) else bytes(data)
        piece, self._piece = self._piece[:size], self._piece[size:]
        return bytes(piece)

    def _take(self) -> bytes:
        if self._ended is None:
            taken = self._queue.get()
            if isinstance(taken, bytes) and taken:
                return taken
            self._ended = taken
        if isinstance(self._ended, BaseException):
            raise self._ended
        return b""

    def close(self) -> None:
        """End the thread. Whoever still waits for a piece is told that the stream was closed."""
        self._abandoned.set()
        while self._thread.is_alive():
            self._drop_one()  # room for a last piece, should the thread be waiting for it
        while not self._queue.empty():
            self._drop_one()
        self._queue.put(ValueError("the stream was closed"))
        super().close()

    def _drop_one(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._queue.get(timeout=0.01)

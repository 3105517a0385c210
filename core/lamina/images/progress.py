"""What long jobs tell about themselves while they run."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import BinaryIO, cast

import attrs


class Status(enum.Enum):
    """Where one layer stands; the words are docker's."""

    WAITING = "Waiting"
    READING = "Loading"  # its bytes come into the store
    UNPACKING = "Extracting"
    DONE = "Load complete"
    EXISTS = "Already exists"
    COMMITTING = "Committing"
    SAVING = "Saving"
    DOWNLOADING = "Downloading"
    PULLED = "Pull complete"
    PUSHING = "Pushing"
    PUSHED = "Pushed"
    THERE = "Layer already exists"
    MOUNTED = "Mounted"
    SKIPPED = "Skipped foreign layer"


@attrs.frozen
class LayerProgress:
    """How far one layer is. `total` is None while nobody knows."""

    layer: str  # its diff id where that is known, else the digest of its blob
    status: Status
    current: int = 0
    total: int | None = None
    source: str = ""  # the repository that a layer was mounted from

    @property
    def words(self) -> str:
        """As people read it."""
        return f"{self.status.value} from {self.source}" if self.source else self.status.value


Progress = Callable[[LayerProgress], None]

STEP = 1 << 20  # bytes between two events of one layer: often enough for eyes, seldom enough to cost nothing


def silent(event: LayerProgress) -> None:
    """Tell nobody."""


class Watched:
    """A stream that reports how much of it was read."""

    def __init__(self, stream: BinaryIO, event: LayerProgress, progress: Progress) -> None:
        self._stream = stream
        self._event = event
        self._progress = progress
        self._seen = 0
        self._told = 0

    def read(self, size: int = -1) -> bytes:
        """Read from the stream; an event goes out for about each mebibyte."""
        block = self._stream.read(size)
        self._seen += len(block)
        if self._seen - self._told >= STEP or not block:
            self._told = self._seen
            self._progress(attrs.evolve(self._event, current=self._seen))
        return block

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """As the stream itself."""
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; what was read before counts anew."""
        where = self._stream.seek(offset, whence)
        self._seen = self._told = where
        return where

    def tell(self) -> int:
        """Where we are."""
        return self._stream.tell()


def watched(stream: BinaryIO, event: LayerProgress, progress: Progress) -> BinaryIO:
    """The same stream; `progress` hears of it while it is read."""
    return stream if progress is silent else cast("BinaryIO", Watched(stream, event, progress))

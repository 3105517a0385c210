"""A file in the making: one writer at a time, hashed as it grows, resumable after a kill."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lamina.errors import DigestMismatch

BLOCK = 1 << 20


class Partial:
    """The bytes so far, and their hash. Nobody else writes to it while this process has it."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0
        while block := file.read(BLOCK):  # what a killed writer left is hashed again, never trusted
            self._hash.update(block)
            self.size += len(block)

    @property
    def digest(self) -> str:
        """The digest of what is there so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def fileno(self) -> int:
        """The open file, for those who read it while it grows."""
        return self._file.fileno()

    def write(self, block: bytes) -> int:
        """Append."""
        self._hash.update(block)
        rest = memoryview(block)
        while rest:  # an unbuffered file may take less than it was given
            rest = rest[self._file.write(rest) :]
        self.size += len(block)
        return len(block)

    def flush(self) -> None:
        """Nothing waits in this process."""

    def copy(self, stream: BinaryIO, limit: int | None = None) -> None:
        """Append what is left in the stream; DigestMismatch as soon as it is longer than `limit`."""
        while block := stream.read(BLOCK):
            self.write(block)
            if limit is not None and self.size > limit:
                raise DigestMismatch("the length of a blob", f"{limit} bytes", "more")

    def restart(self) -> None:
        """Throw away what is there."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.size = 0

    def finish(self, target: Path) -> None:
        """The file is `target` now, whole, read-only, and on the disk."""
        self._file.flush()
        os.fchmod(self._file.fileno(), 0o444)
        os.fsync(self._file.fileno())
        os.rename(self._path, target)
        sync_directory(target.parent)


@contextlib.contextmanager
def partial_file(path: Path, *, wait: bool = True) -> Iterator[Partial]:
    """Open (or take over from a killed process) the partial file at `path`; waits for a writer at work.

    Without `wait`, BlockingIOError if there is one.

    Afterwards there is no file at `path`: it was finished, or it is removed, also on failure.
    """
    with _locked(path, wait=wait) as file:
        try:
            yield Partial(path, file)
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def remove_abandoned(directory: Path) -> int:
    """Remove the partial files that no live process writes to; the bytes that this frees."""
    freed = 0
    for path in _entries(directory):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, file):
                freed += os.fstat(file.fileno()).st_size
                path.unlink()
    return freed


def sync_directory(path: Path) -> None:
    """The directory's entries are on the disk when this returns."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[BinaryIO]:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "r+b", buffering=0) as raw:
            fcntl.flock(raw, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            file: BinaryIO = raw  # unbuffered: blocks are large
            # whoever had the lock before us has renamed or removed the file: ours is a different one then
            if _is_still(path, file):
                yield file
                return


def _is_still(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _entries(directory: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return list(directory.iterdir())
    return []

"""Content-addressed files: verified while they are written, whole or not there at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import attrs

from lamina.errors import DigestMismatch, InvalidName, NoSpace, NotFound
from lamina.images.manifest import digest_of
from lamina.images.partial import BLOCK, Partial, partial_file, remove_abandoned
from lamina.images.reference import is_digest


@attrs.frozen
class Blob:
    """What is stored."""

    digest: str
    size: int


class Blobs:
    """The blobs below one root. Several processes may read and write at once, the same blob included."""

    def __init__(self, root: Path) -> None:
        self._home = root / "blobs" / "sha256"
        self._partial = root / "blobs" / "partial"

    def start(self) -> None:
        """The directories exist; only their owner may enter."""
        for path in (self._home.parent, self._home, self._partial):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob lies, or would lie."""
        if not is_digest(digest) or not digest.startswith("sha256:"):
            raise InvalidName(f"{digest!r} is not a sha256 digest")
        return self._home / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        """Whether the whole blob is here."""
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        """Its length in bytes; NotFound."""
        with self.open(digest) as blob:
            return os.fstat(blob.fileno()).st_size

    def open(self, digest: str) -> BinaryIO:
        """Open for reading; NotFound. It stays readable while it is open, even if it is removed."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not in this store") from None

    def read(self, digest: str) -> bytes:
        """The whole of a small blob, checked; DigestMismatch if the disk has damaged it."""
        with self.open(digest) as blob:
            data = blob.read()
        if (got := digest_of(data)) != digest:
            raise DigestMismatch(f"blob {digest} on disk", digest, got)
        return data

    def check(self, digest: str) -> None:
        """Read the whole blob; DigestMismatch if its bytes are damaged, NotFound if it is gone."""
        found = hashlib.sha256()
        with self.open(digest) as blob:
            while block := blob.read(BLOCK):
                found.update(block)
        if (got := f"sha256:{found.hexdigest()}") != digest:
            raise DigestMismatch(f"blob {digest} on disk", digest, got)

    def add(self, data: bytes) -> Blob:
        """Store a small blob; one that is here already stays."""
        digest = digest_of(data)
        if not self.has(digest):
            with self._writing(digest) as partial:
                partial.restart()
                partial.write(data)
                self._keep(partial, digest)
        return Blob(digest, len(data))

    def write(self, stream: BinaryIO, digest: str | None = None, size: int | None = None) -> Blob:
        """Store what the stream has, and check it against `digest` and `size`.

        If it fails, nothing is kept. A writer that was killed leaves a partial file that nobody takes for a blob; the
        next one goes on from there if `stream` can seek (its beginning is the blob's beginning).
        """
        if digest is not None and self.has(digest):
            return Blob(digest, self.size(digest))
        with self._writing(digest) as partial:
            if digest is not None and self.has(digest):  # another process finished it while we waited for it
                return Blob(digest, self.size(digest))
            _fill(partial, stream, digest, size)
            return self._keep(partial, digest)

    @contextlib.contextmanager
    def building(self) -> Iterator[Partial]:
        """A blob that is written block by block. Give it to `keep` in the end; otherwise nothing is left of it."""
        with self._writing(None) as partial:
            yield partial

    @contextlib.contextmanager
    def receiving(self, digest: str) -> Iterator[Partial]:
        """As `building`, for a blob of a known digest; what a killed writer left of it is there already.

        BlockingIOError while somebody else is writing it.
        """
        with self._writing(digest, wait=False) as partial:
            yield partial

    def keep(self, partial: Partial, digest: str | None = None) -> Blob:
        """What was built is a blob from now on; DigestMismatch if it is not what was promised."""
        return self._keep(partial, digest)

    def refuse_too_large(self, size: int) -> None:
        """NoSpace unless there is room for so many bytes more."""
        disk = os.statvfs(self._home)
        if size > (free := disk.f_bavail * disk.f_frsize):
            raise NoSpace(f"{self._home.parent}: {size} bytes are to come, and there is room for {free}")

    def remove(self, digest: str) -> int:
        """Forget a blob; the bytes that this frees. Repeating it is harmless."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def list(self) -> Iterator[Blob]:
        """All blobs, in no order."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._home) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    yield Blob(f"sha256:{entry.name}", entry.stat().st_size)

    def collect(self) -> int:
        """Remove what killed writers left; the bytes that this frees. Writers at work are not disturbed."""
        return remove_abandoned(self._partial)

    @contextlib.contextmanager
    def _writing(self, digest: str | None, *, wait: bool = True) -> Iterator[Partial]:
        name = digest.removeprefix("sha256:") if digest else f"new-{secrets.token_hex(8)}"
        try:
            with partial_file(self._partial / name, wait=wait) as partial:
                yield partial
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise NoSpace(f"no space left in {self._home.parent}") from error
            raise

    def _keep(self, partial: Partial, digest: str | None) -> Blob:
        if digest is not None and partial.digest != digest:
            raise DigestMismatch("a blob", digest, partial.digest)
        partial.finish(self.path(partial.digest))
        return Blob(partial.digest, partial.size)


def _fill(partial: Partial, stream: BinaryIO, digest: str | None, size: int | None) -> None:
    resumed = partial.size > 0 and stream.seekable()
    if resumed:
        stream.seek(partial.size)
    else:
        partial.restart()
    partial.copy(stream, None if resumed else size)
    if resumed and digest != partial.digest:  # it was the partial file that was damaged, perhaps, not the stream
        stream.seek(0)
        partial.restart()
        partial.copy(stream, size)
    if size is not None and partial.size != size:
        raise DigestMismatch("the length of a blob", f"{size} bytes", f"{partial.size} bytes")

"""Take blobs into the store: held by the running operation before they can be seen."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import attrs

from lamina.errors import DigestMismatch
from lamina.images.blobs import Blob
from lamina.images.partial import BLOCK
from lamina.images.work import Work

GZIP, ZSTD, PLAIN = "gzip", "zstd", ""
_MAGIC = {b"\x1f\x8b\x08": GZIP, b"\x28\xb5\x2f\xfd": ZSTD, b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}


@attrs.frozen
class Layer:
    """A layer's blob, and what it says when it is unpacked from its compression."""

    blob: Blob
    diff_id: str


def take(work: Work, stream: BinaryIO, digest: str, size: int | None = None) -> Blob:
    """Store a blob of a known digest, unless it is here; DigestMismatch, and then nothing is kept."""
    work.hold([work.shelves.blob(digest)])
    return work.shelves.blobs.write(stream, digest, size)


def take_bytes(work: Work, data: bytes, digest: str) -> Blob:
    """Store a small document."""
    work.hold([work.shelves.blob(digest)])
    return work.shelves.blobs.add(data)


def take_unknown(work: Work, stream: BinaryIO) -> Blob:
    """Store a blob whose digest nobody has told."""
    with work.shelves.blobs.building() as partial:
        partial.copy(stream)
        work.hold([work.shelves.blob(partial.digest)])  # before it can be seen: a prune takes what nobody holds
        return work.shelves.blobs.keep(partial)


class LayerSink:
    """Where an uncompressed layer tar is written to become a compressed blob."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._hash = hashlib.sha256()
        self.size = 0
        self.layer: Layer | None = None  # known when the block of `new_layer` has ended

    @property
    def diff_id(self) -> str:
        """The digest of what was written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, block: bytes) -> int:
        """Append."""
        self._hash.update(block)
        self.size += len(block)
        self._out.write(block)
        return len(block)

    def flush(self) -> None:
        """Nothing to do before the end."""


@contextlib.contextmanager
def new_layer(work: Work) -> Iterator[tuple[BinaryIO, LayerSink]]:
    """Write an uncompressed tar; when the block ends well, it is a gzip blob and the sink's `layer` says which.

    If the block raises, nothing is kept.
    """
    from lamina.compression import open_compressed  # noqa: PLC0415  # isal, for those who compress

    with work.shelves.blobs.building() as partial:
        with open_compressed(cast("BinaryIO", partial), GZIP) as squeezed:
            sink = LayerSink(squeezed)
            yield cast("BinaryIO", sink), sink
        work.hold([work.shelves.blob(partial.digest)])
        sink.layer = Layer(work.shelves.blobs.keep(partial), sink.diff_id)


def repack(work: Work, stream: BinaryIO) -> Blob:
    """Store a layer that is compressed in a way that OCI has no name for, as gzip."""
    from lamina.compression import open_decompressed  # noqa: PLC0415  # isal, for those who decompress

    with open_decompressed(stream) as plain, new_layer(work) as (out, sink):
        while block := plain.read(BLOCK):
            out.write(block)
    assert sink.layer is not None  # noqa: S101  # the block has ended well
    return sink.layer.blob


def compression_of(stream: BinaryIO) -> str:
    """The compression of a seekable stream, by its first bytes; the stream is at its beginning afterwards."""
    head = stream.read(8)
    stream.seek(0)
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), PLAIN)


def check_diff_id(work: Work, blob: str, expected: str) -> None:
    """Unpack a blob from its compression, to nowhere; DigestMismatch unless it is the layer that it should be.

    A pair that an image of the store has is known to be right.
    """
    with work.shelves.catalog.read() as rows:
        if any(layer.blob == blob for layer in rows.layers_with(expected)):
            return
    from lamina.compression import open_decompressed  # noqa: PLC0415  # isal, for those who decompress

    digest = hashlib.sha256()
    with work.shelves.blobs.open(blob) as packed, open_decompressed(packed) as plain:
        while block := plain.read(BLOCK):
            digest.update(block)
    if (got := f"sha256:{digest.hexdigest()}") != expected:
        raise DigestMismatch("a layer", expected, got)

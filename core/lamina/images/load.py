"""Bring the images of a bundle into the store: all of them, or none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lamina.errors import NotFound
from lamina.images.blobs import Blob
from lamina.images.bundle import Found, find_images
from lamina.images.intake import PLAIN, check_diff_id, compression_of, repack, take, take_unknown
from lamina.images.manifest import OCI_LAYER, Descriptor
from lamina.images.progress import LayerProgress, Progress, Status, watched
from lamina.images.records import Image, Loaded
from lamina.images.reference import Reference
from lamina.images.settle import Arrival, record, settle
from lamina.images.source import DirectorySource, Source, StreamSource, TarSource
from lamina.images.work import Shelves, Work, at_work

SUFFIX = {PLAIN: "", "gzip": "+gzip", "zstd": "+zstd"}


def load(
    shelves: Shelves, place: Path | BinaryIO, platform: str | None, base: Reference | None, progress: Progress
) -> tuple[Loaded, ...]:
    """Afterwards all images of the bundle are in the store, unpacked and named; on failure none of them is."""
    with at_work(shelves) as work, _opened(place, work) as source:
        found = find_images(source, platform, base)
        return record(work, [(_bring_in(work, source, image, progress), image.names) for image in found])


class FromBundle(Arrival):
    """A layer that lies in a bundle; it is copied only if the store has it in no form that would do."""

    def __init__(  # noqa: PLR0913, PLR0917  # all of them are facts about the one layer
        self, work: Work, source: Source, diff_id: str, name: str, pointer: Descriptor | None, progress: Progress
    ) -> None:
        self.diff_id = diff_id
        self._work = work
        self._source = source
        self._name = name
        self._pointer = pointer  # a docker archive has none: any form of the layer will do
        self._progress = progress
        self._blob: Blob | None = None

    def fetch(self) -> Blob:
        """Its blob is in the store, and held."""
        if self._blob is None:
            self._blob = self._take(self._pointer) if self._pointer else self._known() or self._take_any()
        return self._blob

    def check(self) -> None:
        """DigestMismatch unless the blob has the diff id. A pair that an image has is known to be right."""
        check_diff_id(self._work, self.fetch().digest, self.diff_id)

    def described(self) -> Descriptor:
        """As the bundle's manifest says, or as we found it."""
        if self._pointer is not None:
            return self._pointer
        blob = self.fetch()
        with self._work.shelves.blobs.open(blob.digest) as file:
            return Descriptor(OCI_LAYER + SUFFIX[compression_of(file)], blob.digest, blob.size)

    def _known(self) -> Blob | None:
        with self._work.shelves.catalog.read() as rows:
            layers = rows.layers_with(self.diff_id)
        for layer in layers:
            self._work.hold([self._work.shelves.blob(layer.blob)])
            with contextlib.suppress(NotFound):
                return Blob(layer.blob, self._work.shelves.blobs.size(layer.blob))
        return None

    def _take(self, pointer: Descriptor) -> Blob:
        with self._source.open(self._name) as file:
            return take(self._work, self._watched(file, pointer.size), pointer.digest, pointer.size)

    def _take_any(self) -> Blob:
        with self._source.open(self._name) as file:
            known = compression_of(file) in SUFFIX
            if known and (blob := self._source.stored(self._name)) is not None:
                return blob
            stream = self._watched(file, None)
            return take_unknown(self._work, stream) if known else repack(self._work, stream)

    def _watched(self, file: BinaryIO, size: int | None) -> BinaryIO:
        return watched(file, LayerProgress(self.diff_id, Status.READING, 0, size), self._progress)


def _bring_in(work: Work, source: Source, found: Found, progress: Progress) -> Image:
    pointers: Sequence[Descriptor | None] = found.manifest.layers if found.manifest else [None] * len(found.layers)
    layers = [
        FromBundle(work, source, diff_id, name, pointer, progress)
        for diff_id, name, pointer in zip(found.config.diff_ids, found.layers, pointers, strict=True)
    ]
    return settle(work, found.config, layers, found.manifest, progress)


@contextlib.contextmanager
def _opened(place: Path | BinaryIO, work: Work) -> Iterator[Source]:
    """A directory, a file or a stream; compressed or not."""
    if not isinstance(place, Path):
        yield StreamSource(place, work)
    elif place.is_dir():
        with contextlib.closing(DirectorySource(place)) as source:
            yield source
    else:
        with _open_file(place) as file:
            plain = file.seekable() and compression_of(file) == PLAIN
            yield TarSource(file) if plain else StreamSource(file, work)


def _open_file(place: Path) -> BinaryIO:
    try:
        return place.open("rb")
    except FileNotFoundError:
        raise NotFound(f"there is no file {place}") from None

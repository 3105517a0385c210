"""Make layers and documents an image of the store: unpacked, checked, recorded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import attrs

from lamina.images.blobs import Blob
from lamina.images.config import ImageConfig
from lamina.images.intake import Layer, take_bytes
from lamina.images.manifest import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest, make_manifest
from lamina.images.progress import Progress
from lamina.images.records import Image, ImageLayer, Loaded
from lamina.images.reference import Reference
from lamina.images.unpack import Coming, Wanted, unpack
from lamina.images.work import Shelves, Work


class Arrival(ABC):
    """One layer on its way into an image."""

    diff_id: str

    @abstractmethod
    def fetch(self) -> Blob:
        """Its blob is in the store, and held. Called once or twice, perhaps from another thread."""

    @abstractmethod
    def check(self) -> None:
        """Nobody unpacked it: DigestMismatch unless the blob has this diff id."""

    @abstractmethod
    def described(self) -> Descriptor:
        """What a manifest says of it, once it was fetched."""

    def coming(self) -> Coming | None:
        """How to read it before it is whole, if it can be."""
        return None


@attrs.frozen
class Stored(Arrival):
    """A layer that an image of the store has, or that we have just written ourselves: checked already."""

    diff_id: str
    media_type: str
    blob: Blob

    def fetch(self) -> Blob:
        """It is here."""
        return self.blob

    def check(self) -> None:
        """It was checked when it came."""

    def described(self) -> Descriptor:
        """As it was described."""
        return Descriptor(self.media_type, self.blob.digest, self.blob.size)


def stored(layer: ImageLayer) -> Stored:
    """A layer of an image, to be used for another one."""
    return Stored(layer.diff_id, layer.media_type, Blob(layer.blob, layer.blob_size))


def written(layer: Layer) -> Stored:
    """A layer that we have just compressed."""
    return Stored(layer.diff_id, f"{OCI_LAYER}+gzip", layer.blob)


def settle(
    work: Work, config: ImageConfig, layers: Sequence[Arrival], manifest: Manifest | None, progress: Progress
) -> Image:
    """Blobs, documents and snapshots of one image are in the store, checked and held; the catalog does not know it yet.

    Without a manifest (a docker archive has none) one is written.
    """
    stack = zip(layers, config.chain_ids, strict=True)
    unpacked = unpack(
        work, [Wanted(layer.diff_id, chain, layer.fetch, layer.coming()) for layer, chain in stack], progress
    )
    for layer in layers:
        if layer.diff_id not in unpacked:
            layer.fetch()
            layer.check()
    if manifest is None:
        config_at = Descriptor(OCI_CONFIG, config.id, len(config.raw))
        manifest = make_manifest(config_at, tuple(layer.described() for layer in layers))
    take_bytes(work, config.raw, config.id)
    take_bytes(work, manifest.raw, manifest.digest)
    return _describe(work.shelves, config, manifest)


def record(work: Work, images: Iterable[tuple[Image, tuple[Reference, ...]]]) -> tuple[Loaded, ...]:
    """In one transaction: the images are in the catalog and the names point at them."""
    pairs = tuple(images)
    with work.shelves.catalog.change() as rows:
        for image, names in pairs:
            rows.put_image(image, things_of(work.shelves, image))
            for name in names:
                rows.put_name(name, image.id)
        return tuple(Loaded(rows.image(image.id), tuple(name.familiar for name in names)) for image, names in pairs)


def ensure(work: Work, image: Image, progress: Progress) -> None:
    """The image is held, and unpacked in the store of this driver (it may have come when another was in charge)."""
    shelves = work.shelves
    work.hold(things_of(shelves, image))
    with shelves.catalog.read() as rows:
        rows.image(image.id)  # NotFound if somebody has removed it before we held it
    stack = [Wanted(layer.diff_id, layer.chain_id, stored(layer).fetch) for layer in image.layers]
    if unpack(work, stack, progress):
        with shelves.catalog.change() as rows:
            rows.use(f"image {image.id}", things_of(shelves, image))


def things_of(shelves: Shelves, image: Image) -> tuple[str, ...]:
    """Everything that the image stands on, the topmost snapshot first."""
    snapshots = [shelves.snapshot(layer.chain_id) for layer in reversed(image.layers)]
    blobs = [shelves.blob(digest) for digest in (image.id, image.manifest, *(layer.blob for layer in image.layers))]
    return tuple(dict.fromkeys([*snapshots, *blobs]))


def _describe(shelves: Shelves, config: ImageConfig, manifest: Manifest) -> Image:
    layers = tuple(
        ImageLayer(diff_id, chain_id, blob.digest, blob.media_type, blob.size, _size(shelves, chain_id))
        for diff_id, chain_id, blob in zip(config.diff_ids, config.chain_ids, manifest.layers, strict=True)
    )
    size = sum(layer.size for layer in layers)
    return Image(config.id, manifest.digest, str(config.platform), config.created, size, layers=layers)


def _size(shelves: Shelves, chain_id: str) -> int:
    usage = shelves.snapshots.stat(chain_id).usage
    return usage.size if usage else 0

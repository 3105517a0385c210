"""Pull: images from a registry, unpacked while they come in."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, Final, cast

import attrs

from lamina.errors import BadArchive, BadRequest, DigestMismatch, NotFound, RegistryError
from lamina.images.blobs import Blob
from lamina.images.config import ImageConfig, read_config
from lamina.images.familiar import HUB
from lamina.images.intake import check_diff_id
from lamina.images.manifest import INDEXES, MANIFESTS, Descriptor, Index, Manifest, read_document
from lamina.images.platforms import choose
from lamina.images.progress import LayerProgress, Progress, Status
from lamina.images.records import Image
from lamina.images.reference import Reference
from lamina.images.registry import Document
from lamina.images.registry_config import Registries
from lamina.images.settle import Arrival, record, settle
from lamina.images.transfer import Downloads, Line, Origin, opened_line
from lamina.images.transfer_incoming import Following
from lamina.images.unpack import Coming
from lamina.images.work import Shelves, Work, at_work

DEEPEST: Final = 4  # indexes inside indexes
_SCHEMA_1: Final = re.compile(r"application/vnd\.docker\.distribution\.manifest\.v1\b.*")

Tell = Callable[[str], object]


@attrs.frozen
class Pulled:
    """An image that was pulled: under which name, the digest that the registry knows it by, and whether it is new."""

    name: str
    digest: str
    image: Image
    newer: bool


def pull(  # noqa: PLR0913  # as many as the command has flags
    shelves: Shelves,
    registries: Registries,
    reference: Reference,
    *,
    platform: str | None,
    all_tags: bool,
    progress: Progress,
    tell: Tell,
) -> tuple[Pulled, ...]:
    """The image (or all tags of the repository) is in the store, unpacked and named; on failure the store is as before.

    Of several tags, those before the one that failed stay. `tell` hears docker's lines.
    """
    if all_tags and (reference.tag or reference.digest):
        raise BadRequest(f"{reference.familiar}: all tags, or this one?")
    with opened_line(registries) as line:
        origins = _origins(line, registries, reference)
        wanted = _all_tags(line, origins, reference) if all_tags else (reference.tagged(),)
        return tuple(_Pull(shelves, line, origins, each, platform, progress, tell).run() for each in wanted)


def _origins(line: Line, registries: Registries, reference: Reference) -> tuple[Origin, ...]:
    """The mirrors, then the registry itself."""
    found = []
    for mirror in registries.host(reference.domain).mirrors:
        host, slash, prefix = mirror.partition("/")
        found.append(Origin(line.registry(host), f"{prefix}{slash}{reference.path}"))
    return (*found, Origin(line.registry(reference.domain), reference.path))


def _all_tags(line: Line, origins: Sequence[Origin], reference: Reference) -> tuple[Reference, ...]:
    last = origins[-1]  # a mirror may have some only
    tags = line.portal.call(last.registry.tags, last.path)
    if not tags:
        raise NotFound(f"{reference.familiar_repository}: the repository has no tags")
    return tuple(reference.with_tag(tag) for tag in sorted(tags))


@attrs.frozen
class _Pull:
    """One image."""

    shelves: Shelves
    line: Line
    origins: tuple[Origin, ...]
    reference: Reference
    platform: str | None
    progress: Progress
    tell: Tell

    def run(self) -> Pulled:
        """Everything but the last words."""
        with at_work(self.shelves) as work:
            top, origins = self._top()
            self.tell(f"{self._which}: Pulling from {self._where}")
            manifest = self._choose(work, top, origins)
            config = self._config(work, manifest, origins)
            image = self._settle(work, config, manifest, origins)
            newer, image = self._record(work, image, top.digest)
        self.tell(f"Digest: {top.digest}")
        return Pulled(self.reference.familiar, top.digest, image, newer)

    @property
    def _which(self) -> str:
        return self.reference.digest or self.reference.tag or ""

    @property
    def _where(self) -> str:
        return self.reference.path if self.reference.domain == HUB else self.reference.repository.partition("/")[2]

    def _top(self) -> tuple[Document, tuple[Origin, ...]]:
        """What the name points at, and from where on it can be had."""
        last: RegistryError | NotFound | None = None
        for place, origin in enumerate(self.origins):
            try:
                document = self.line.portal.call(origin.registry.manifest, origin.path, self._which)
            except (RegistryError, NotFound) as error:
                last = error
            else:
                return document, self.origins[place:]
        raise last or NotFound(self.reference.familiar)

    def _choose(self, work: Work, top: Document, origins: Sequence[Origin]) -> Manifest:
        document = self._read(top)
        for _ in range(DEEPEST):
            if isinstance(document, Manifest):
                return document
            fitting = choose(document.manifests, self.platform)
            if not fitting:
                raise NotFound(f"{self.reference.familiar}: has no image for {self.platform or 'this platform'}")
            document = self._manifest_at(work, fitting[0], origins)
        raise BadArchive(top.digest, "indexes inside indexes, too deep")

    def _manifest_at(self, work: Work, entry: Descriptor, origins: Sequence[Origin]) -> Manifest | Index:
        blobs = work.shelves.blobs
        work.hold([work.shelves.blob(entry.digest)])
        if blobs.has(entry.digest):
            return read_document(blobs.read(entry.digest), entry.digest, entry.media_type or None)
        document = self._from_any(origins, lambda origin: origin.registry.manifest, entry.digest)
        if len(document.raw) != entry.size:
            raise DigestMismatch(f"the length of {entry.digest}", f"{entry.size} bytes", f"{len(document.raw)} bytes")
        return read_document(document.raw, entry.digest, entry.media_type or None)

    def _read(self, top: Document) -> Manifest | Index:
        if _SCHEMA_1.fullmatch(top.media_type):
            raise BadArchive(self.reference.familiar, "has a manifest of schema 1, which is no longer in use")
        known = top.media_type if top.media_type in MANIFESTS | INDEXES else None
        return read_document(top.raw, self.reference.familiar, known)

    def _config(self, work: Work, manifest: Manifest, origins: Sequence[Origin]) -> ImageConfig:
        blobs, wanted = work.shelves.blobs, manifest.config
        work.hold([work.shelves.blob(wanted.digest)])
        if blobs.has(wanted.digest):
            raw = blobs.read(wanted.digest)
        else:
            raw = self._from_any(origins, lambda origin: origin.registry.blob, wanted)
        if len(raw) != wanted.size:
            raise DigestMismatch(f"the length of {wanted.digest}", f"{wanted.size} bytes", f"{len(raw)} bytes")
        config = read_config(raw, wanted.digest)
        if len(config.diff_ids) != len(manifest.layers):
            told = f"has {len(manifest.layers)} layers, its config speaks of {len(config.diff_ids)}"
            raise BadArchive(manifest.digest, told)
        return config

    def _from_any(
        self, origins: Sequence[Origin], verb: Callable[[Origin], Callable[..., object]], what: object
    ) -> Any:
        last: RegistryError | NotFound | None = None
        for origin in origins:
            try:
                return self.line.portal.call(verb(origin), origin.path, what)
            except (RegistryError, NotFound) as error:
                last = error
        raise last or NotFound(self.reference.familiar)

    def _settle(self, work: Work, config: ImageConfig, manifest: Manifest, origins: Sequence[Origin]) -> Image:
        work.hold(work.shelves.blob(layer.digest) for layer in manifest.layers)
        told = _Translated(config, manifest, self.progress, work.shelves.blobs.has, known=self._known(config))
        downloads = Downloads(work, self.line, origins, told)
        with contextlib.closing(downloads):
            downloads.start(manifest.layers)
            layers = [
                FromRegistry(work, diff_id, pointer, downloads)
                for diff_id, pointer in zip(config.diff_ids, manifest.layers, strict=True)
            ]
            image = settle(work, config, layers, manifest, told)
            told.finish()
            return image

    def _known(self, config: ImageConfig) -> bool:
        with self.shelves.catalog.read() as rows:
            return rows.has_image(config.id)

    def _record(self, work: Work, image: Image, digest: str) -> tuple[bool, Image]:
        pinned = self.reference.with_digest(digest)
        tag = () if self.reference.digest else (self.reference,)
        with work.shelves.catalog.read() as rows:
            newer = rows.named((*tag, pinned)[0]) != image.id
        (loaded,) = record(work, [(image, (*tag, pinned))])
        return newer, loaded.image


class FromRegistry(Arrival):
    """A layer that is being downloaded, or is there already."""

    def __init__(self, work: Work, diff_id: str, pointer: Descriptor, downloads: Downloads) -> None:
        self.diff_id = diff_id
        self._work = work
        self._pointer = pointer
        self._incoming = downloads[pointer.digest]

    def fetch(self) -> Blob:
        """Its blob is in the store, and held."""
        return self._incoming.wait()

    def coming(self) -> Coming:
        """It can be read while it is downloaded."""
        return Coming(self._pointer.size, self._follow, self._incoming.abandon)

    def check(self) -> None:
        """DigestMismatch unless the blob has the diff id."""
        check_diff_id(self._work, self.fetch().digest, self.diff_id)

    def described(self) -> Descriptor:
        """As the manifest says."""
        return self._pointer

    def _follow(self) -> BinaryIO:
        return cast("BinaryIO", Following(self._incoming))


class _Translated:
    """Progress of a pull, in docker's words: layers go by the digests of their blobs."""

    def __init__(
        self,
        config: ImageConfig,
        manifest: Manifest,
        progress: Progress,
        has: Callable[[str], bool],
        *,
        known: bool,
    ) -> None:
        pairs = zip(config.diff_ids, manifest.layers, strict=True)
        self._digests: Mapping[str, str] = {diff_id: layer.digest for diff_id, layer in pairs}
        self._here = {layer.digest for layer in manifest.layers if has(layer.digest)}
        self._progress = progress
        self._known = known
        self._ended: set[str] = set()

    def __call__(self, event: LayerProgress) -> None:
        digest = self._digests.get(event.layer, event.layer)
        status = event.status
        if status is Status.EXISTS and digest not in self._here:
            return  # unpacked before, from another blob: this one has to come
        if status is Status.DONE:
            status = Status.PULLED
        if status in {Status.PULLED, Status.EXISTS}:
            self._ended.add(digest)
        if status is Status.EXISTS and self._known:
            return  # of an image that is here docker does not tell the layers
        self._progress(attrs.evolve(event, layer=digest, status=status))

    def finish(self) -> None:
        """All layers are here."""
        for digest in self._digests.values():
            if digest not in self._ended:
                self(LayerProgress(digest, Status.PULLED))

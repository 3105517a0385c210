"""OCI and docker documents that point at blobs, as frozen records: descriptors, manifests, indexes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import attrs

from lamina.errors import BadArchive
from lamina.images import fields
from lamina.images.reference import is_digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


@attrs.frozen
class Platform:
    """For which machine an image is."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@attrs.frozen
class Descriptor:
    """A pointer to a blob: what it is, how long, with which digest."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = attrs.field(factory=dict)
    urls: tuple[str, ...] = ()  # where else it may be, if a registry must not have it

    @property
    def foreign(self) -> bool:
        """Whether registries must not be given the blob."""
        return "nondistributable" in self.media_type or ".foreign." in self.media_type

    def to_json(self) -> dict[str, Any]:
        """As it stands in a document; fields in the order that Go's encoder gives them."""
        result: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.urls:
            result["urls"] = list(self.urls)
        if self.annotations:
            result["annotations"] = dict(sorted(self.annotations.items()))
        if self.platform:
            result["platform"] = attrs.asdict(self.platform, filter=lambda _, value: bool(value))
        return result


@attrs.frozen
class Manifest:
    """One image: its config and its layers, the lowest first. `raw` is the document, byte for byte."""

    raw: bytes = attrs.field(repr=False)
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def digest(self) -> str:
        """The digest of `raw`."""
        return digest_of(self.raw)

    def descriptor(self, **changes: Any) -> Descriptor:
        """A pointer to this document."""
        return Descriptor(self.media_type, self.digest, len(self.raw), **changes)


@attrs.frozen
class Index:
    """Several manifests (or further indexes) under one name. `raw` is the document, byte for byte."""

    raw: bytes = attrs.field(repr=False)
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = attrs.field(factory=dict)


def digest_of(data: bytes) -> str:
    """sha256, written as a digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def encode(document: Mapping[str, Any]) -> bytes:
    """The bytes of a document that we write ourselves: compact, always the same for the same content."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def read_document(raw: bytes, what: str, media_type: str | None = None) -> Manifest | Index:
    """Read a manifest or an index; `media_type` is what the descriptor that led here promised.

    Raises BadArchive for anything that two readers could understand in two ways.
    """
    document = fields.read_object(raw, what)
    if document.get("schemaVersion") != 2:
        raise BadArchive(what, f"schemaVersion is {document.get('schemaVersion')!r}; only version 2 is understood")
    own = fields.text(document, "mediaType", what, "") or media_type or _guess(document)
    if media_type and media_type in MANIFESTS | INDEXES and own != media_type:
        raise BadArchive(what, f"calls itself {own}, but was announced as {media_type}")
    if own in INDEXES:
        return _read_index(raw, document, own, what)
    if own in MANIFESTS:
        return _read_manifest(raw, document, own, what)
    raise BadArchive(what, f"{own!r} is not a kind of image that is understood")


def make_manifest(
    config: Descriptor, layers: tuple[Descriptor, ...], annotations: Mapping[str, str] | None = None
) -> Manifest:
    """A new OCI manifest."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return Manifest(encode(document), OCI_MANIFEST, config, layers, annotations or {})


def make_index(manifests: tuple[Descriptor, ...]) -> Index:
    """A new OCI index."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [manifest.to_json() for manifest in manifests],
    }
    return Index(encode(document), OCI_INDEX, manifests)


def _guess(document: Mapping[str, Any]) -> str:
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST


def _read_manifest(raw: bytes, document: dict[str, Any], media_type: str, what: str) -> Manifest:
    if "manifests" in document:
        raise BadArchive(what, "is a manifest and an index at once")
    if "config" not in document or "layers" not in document:
        raise BadArchive(what, "a manifest needs config and layers")
    layers = tuple(_read_descriptor(layer, f"{what}: layer") for layer in fields.objects(document, "layers", what))
    config = _read_descriptor(fields.table(document, "config", what), f"{what}: config")
    return Manifest(raw, media_type, config, layers, fields.text_table(document, "annotations", what))


def _read_index(raw: bytes, document: dict[str, Any], media_type: str, what: str) -> Index:
    if "layers" in document or "config" in document:
        raise BadArchive(what, "is a manifest and an index at once")
    found = tuple(_read_descriptor(each, f"{what}: manifest") for each in fields.objects(document, "manifests", what))
    return Index(raw, media_type, found, fields.text_table(document, "annotations", what))


def _read_descriptor(document: dict[str, Any], what: str) -> Descriptor:
    digest = fields.text(document, "digest", what)
    if not is_digest(digest):
        raise BadArchive(what, f"{digest[:80]!r} is not a digest")
    if not digest.startswith("sha256:"):
        raise BadArchive(what, f"{digest.partition(':')[0]} digests are not supported; sha256 is")
    return Descriptor(
        fields.text(document, "mediaType", what, ""),
        digest,
        fields.size(document, "size", what),
        _read_platform(fields.table(document, "platform", what), what),
        fields.text_table(document, "annotations", what),
        fields.texts(document, "urls", what),
    )


def _read_platform(document: dict[str, Any], what: str) -> Platform | None:
    if not document:
        return None
    return Platform(
        fields.text(document, "os", what, ""),
        fields.text(document, "architecture", what, ""),
        fields.text(document, "variant", what, ""),
    )

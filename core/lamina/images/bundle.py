"""Load images: what a docker archive, an OCI archive or an OCI layout holds, resolved to one manifest each."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from lamina.errors import BadArchive, DigestMismatch, InvalidName
from lamina.images import fields
from lamina.images.config import ImageConfig, read_config
from lamina.images.manifest import (
    CONTAINERD_NAME,
    REF_NAME,
    Descriptor,
    Index,
    Manifest,
    digest_of,
    read_document,
)
from lamina.images.platforms import choose
from lamina.images.reference import Reference, parse
from lamina.images.source import Source

DEEPEST = 4  # indexes inside indexes
MOST_IMAGES = 1000


@attrs.frozen
class Found:
    """One image of a bundle: its config, the files that are its layers, and its manifest if the bundle has one."""

    config: ImageConfig
    layers: tuple[str, ...]
    manifest: Manifest | None
    names: tuple[Reference, ...]


def find_images(source: Source, platform: str | None, base: Reference | None) -> tuple[Found, ...]:
    """Every image in the bundle that is for this platform; BadArchive if there is none, or if it breaks its format.

    An archive of a newer docker is both: its OCI index is preferred, since it keeps the manifests byte for byte.
    """
    if source.has("index.json") and source.has("oci-layout"):
        found = _from_layout(source, platform, base)
        if found or not source.has("manifest.json"):
            return _some(found)
    if source.has("manifest.json"):
        return _some(tuple(_from_docker(source)))
    if source.has("repositories"):
        raise BadArchive("repositories", "the archive comes from a docker before 1.10, which knew no digests")
    raise BadArchive("", "has neither index.json nor manifest.json: it is not an image")


def blob_name(digest: str) -> str:
    """Where a layout keeps a blob."""
    return f"blobs/{digest.replace(':', '/', 1)}"


def _some(found: tuple[Found, ...]) -> tuple[Found, ...]:
    if not found:
        raise BadArchive("index.json", "holds no image for this platform")
    return found


def _from_layout(source: Source, platform: str | None, base: Reference | None) -> tuple[Found, ...]:
    layout = fields.read_object(source.read("oci-layout"), "oci-layout")
    if not fields.text(layout, "imageLayoutVersion", "oci-layout").startswith("1."):
        raise BadArchive("oci-layout", f"version {layout['imageLayoutVersion']!r} is not understood")
    index = read_document(source.read("index.json"), "index.json")
    if not isinstance(index, Index):
        raise BadArchive("index.json", "is a manifest, not an index")
    merged: dict[str, Found] = {}
    for name, manifest in _images(source, index, platform, base):
        if manifest.digest in merged:
            before = merged[manifest.digest]
            merged[manifest.digest] = attrs.evolve(before, names=(*before.names, *name))
        else:
            merged[manifest.digest] = attrs.evolve(_resolve(source, manifest), names=name)
    return tuple(merged.values())


def _images(
    source: Source, index: Index, platform: str | None, base: Reference | None
) -> Iterator[tuple[tuple[Reference, ...], Manifest]]:
    """One manifest for each name; where there are no names, each entry for this platform."""
    if len(index.manifests) > MOST_IMAGES:
        raise BadArchive("index.json", f"lists more than {MOST_IMAGES} images")
    named: dict[str, list[Descriptor]] = {}
    for entry in index.manifests:
        if name := entry.annotations.get(CONTAINERD_NAME) or entry.annotations.get(REF_NAME):
            named.setdefault(name, []).append(entry)
    # a lone image that was saved under a name is wanted whatever machine it is for, as docker has it
    groups = [entries if len(entries) == 1 else choose(entries, platform)[:1] for entries in named.values()]
    for entry in itertools.chain.from_iterable(groups) if named else choose(index.manifests, platform):
        manifest = _descend(source, entry, platform, ())
        if manifest is not None:
            yield _names(entry.annotations, base), manifest


def _descend(source: Source, entry: Descriptor, platform: str | None, above: tuple[str, ...]) -> Manifest | None:
    if entry.digest in above or len(above) >= DEEPEST:
        raise BadArchive(entry.digest, "indexes point at each other in a circle, or too deep")
    if above and not source.has(blob_name(entry.digest)):
        return None  # an index may list platforms whose blobs were left out
    document = read_document(_read_blob(source, entry), entry.digest, entry.media_type or None)
    if isinstance(document, Manifest):
        return document
    for candidate in choose(document.manifests, platform):
        if (manifest := _descend(source, candidate, platform, (*above, entry.digest))) is not None:
            return manifest
    return None


def _resolve(source: Source, manifest: Manifest) -> Found:
    config = read_config(_read_blob(source, manifest.config), manifest.config.digest)
    if len(config.diff_ids) != len(manifest.layers):
        raise BadArchive(
            manifest.digest, f"has {len(manifest.layers)} layers, its config speaks of {len(config.diff_ids)}"
        )
    files = tuple(blob_name(layer.digest) for layer in manifest.layers)
    for name in files:
        if not source.has(name):
            raise BadArchive(name, "is missing")
    return Found(config, files, manifest, ())


def _read_blob(source: Source, entry: Descriptor) -> bytes:
    name = blob_name(entry.digest)
    if not source.has(name):
        raise BadArchive(name, "is missing")
    data = source.read(name)
    if len(data) != entry.size:
        raise DigestMismatch(f"the length of {entry.digest}", f"{entry.size} bytes", f"{len(data)} bytes")
    if (got := digest_of(data)) != entry.digest:
        raise DigestMismatch(name, entry.digest, got)
    return data


def _names(annotations: Mapping[str, str], base: Reference | None) -> tuple[Reference, ...]:
    """The full name that containerd and docker write; else a name in ref.name; else its tag under `base`."""
    if full := annotations.get(CONTAINERD_NAME):
        return _usable(_parse(full))
    short = annotations.get(REF_NAME, "")
    if base is not None:
        return (base.with_tag(short.rpartition(":")[2] or "latest"),) if short else (base.tagged(),)
    return _usable(_parse(short)) if "/" in short or ":" in short else ()


def _usable(name: Reference) -> tuple[Reference, ...]:
    # a digest in a name is a registry's word; what a file says of it proves nothing
    return (attrs.evolve(name, digest=None),) if name.tag else ()


def _parse(name: str) -> Reference:
    try:
        return parse(name).tagged()
    except InvalidName as error:
        raise BadArchive("index.json", str(error)) from error


def _from_docker(source: Source) -> Iterator[Found]:
    entries = fields.read_json(source.read("manifest.json"), "manifest.json")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadArchive("manifest.json", "is not a list of images")
    if len(entries) > MOST_IMAGES:
        raise BadArchive("manifest.json", f"lists more than {MOST_IMAGES} images")
    for entry in entries:
        yield _docker_image(source, entry)


def _docker_image(source: Source, entry: Mapping[str, Any]) -> Found:
    what = "manifest.json"
    where = fields.text(entry, "Config", what)
    config = read_config(source.read(where), where)
    _check_name(where, config.id)
    layers = fields.texts(entry, "Layers", what)
    if len(config.diff_ids) != len(layers):
        raise BadArchive(what, f"lists {len(layers)} layers for an image of {len(config.diff_ids)}")
    for name in layers:
        if not source.has(name):
            raise BadArchive(name, "is missing")
    return Found(config, layers, None, _tags(entry, what))


def _tags(entry: Mapping[str, Any], what: str) -> tuple[Reference, ...]:
    return tuple(name for tag in fields.texts(entry, "RepoTags", what) for name in _usable(_parse(tag)))


def _check_name(where: str, digest: str) -> None:
    """A config that lies under its digest must have it. (Other names in a docker archive mean nothing.)"""
    if (match := re.fullmatch(r"blobs/sha256/([0-9a-f]{64})", where)) and f"sha256:{match[1]}" != digest:
        raise DigestMismatch(where, f"sha256:{match[1]}", digest)

"""New images: a container's changes as one more layer, or a root file system as the only one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO

import attrs

from lamina.compression import open_decompressed
from lamina.images.blobs import Blob
from lamina.images.config import History, ImageConfig, make_config, read_config
from lamina.images.instructions import apply_changes
from lamina.images.intake import Layer, new_layer
from lamina.images.manifest import DOCKER_LAYER, OCI_LAYER, Manifest, Platform, read_document
from lamina.images.partial import BLOCK
from lamina.images.platforms import here, parse_platform
from lamina.images.progress import LayerProgress, Progress, Status
from lamina.images.records import Image
from lamina.images.reference import Reference
from lamina.images.settle import Stored, record, settle, written
from lamina.images.work import Shelves, Work, at_work

EMPTY = 1024  # a tar of nothing: two blocks of zeros

# what docker calls them has no place in an OCI manifest
_OCI_NAMES = {
    DOCKER_LAYER: f"{OCI_LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": OCI_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{OCI_LAYER}+zstd",
}


@attrs.frozen
class Note:
    """What people say about a new image."""

    author: str = ""
    message: str = ""
    changes: Sequence[str] = ()
    created_by: str = ""


@attrs.frozen
class Base:
    """On what a new image stands."""

    config: ImageConfig | None
    layers: tuple[Stored, ...]
    platform: Platform


def commit(  # noqa: PLR0913, PLR0917  # as many as the command has flags
    shelves: Shelves,
    base: Base,
    key: str,
    name: Reference | None,
    settings: Mapping[str, Any],
    note: Note,
    progress: Progress,
) -> Image:
    """The snapshot `key` and what it changed are a new image on top of `base`; the snapshot stays as it is.

    The cost depends on what changed, not on the size of the image. If nothing changed, the image has no new layer.
    """
    wanted = apply_changes(settings, note.changes)
    with at_work(shelves) as work:
        layer = _changes_of(work, key, progress)
        return _finish(work, base, layer, name, wanted, note, progress)


def import_tar(  # noqa: PLR0913, PLR0917  # as many as the command has flags
    shelves: Shelves, tar: BinaryIO, name: Reference | None, platform: str | None, note: Note, progress: Progress
) -> Image:
    """A tar of a root file system (compressed or not) is an image of one layer."""
    wanted = apply_changes({}, note.changes)
    base = Base(None, (), parse_platform(platform) if platform else here())
    with at_work(shelves) as work:
        layer = _repack(work, tar, progress)
        return _finish(work, base, layer, name, wanted, note, progress)


def base_of(shelves: Shelves, config_id: str, manifest_digest: str) -> Base:
    """The documents of an image as a base; they are read from the blobs, so a forced rmi does not take them away."""
    config = read_config(shelves.blobs.read(config_id), config_id)
    manifest = read_document(shelves.blobs.read(manifest_digest), manifest_digest)
    assert isinstance(manifest, Manifest)  # noqa: S101  # we recorded it as one
    layers = tuple(
        Stored(diff_id, _OCI_NAMES.get(each.media_type, each.media_type), Blob(each.digest, each.size))
        for diff_id, each in zip(config.diff_ids, manifest.layers, strict=True)
    )
    return Base(config, layers, config.platform)


def _finish(  # noqa: PLR0913, PLR0917  # the end of both stories
    work: Work,
    base: Base,
    layer: Layer | None,
    name: Reference | None,
    settings: Mapping[str, Any],
    note: Note,
    progress: Progress,
) -> Image:
    now = datetime.now(UTC)
    config = make_config(
        base.config,
        platform=base.platform,
        created=now,
        author=note.author,
        settings={key: value for key, value in settings.items() if value is not None},
        layer=layer.diff_id if layer else None,
        step=History(now, note.created_by, note.author, note.message, empty_layer=layer is None),
    )
    layers = (*base.layers, *([written(layer)] if layer else ()))
    work.hold(work.shelves.blob(each.blob.digest) for each in layers)
    image = settle(work, config, layers, None, progress)
    return record(work, [(image, (name.tagged(),) if name else ())])[0].image


def _changes_of(work: Work, key: str, progress: Progress) -> Layer | None:
    progress(LayerProgress(key, Status.COMMITTING))
    with new_layer(work) as (out, sink):
        work.shelves.snapshots.diff(key, out)
        empty = sink.size <= EMPTY
    return None if empty else sink.layer


def _repack(work: Work, tar: BinaryIO, progress: Progress) -> Layer:
    with open_decompressed(tar) as plain, new_layer(work) as (out, sink):
        while block := plain.read(BLOCK):
            out.write(block)
            progress(LayerProgress("import", Status.READING, sink.size))
    assert sink.layer is not None  # noqa: S101  # the block has ended well
    return sink.layer

"""Write images as bundles that docker, containerd, skopeo and umoci read; the same images give the same bytes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import attrs

from lamina.compression import open_compressed
from lamina.errors import AlreadyExists, BadRequest, InvalidName
from lamina.images.bundle import blob_name
from lamina.images.catalog import Rows
from lamina.images.lookup import find
from lamina.images.manifest import (
    CONTAINERD_NAME,
    REF_NAME,
    Descriptor,
    Manifest,
    encode,
    make_index,
    read_document,
)
from lamina.images.partial import BLOCK, sync_directory
from lamina.images.progress import LayerProgress, Progress, Status
from lamina.images.records import Form, Image
from lamina.images.reference import Reference, parse
from lamina.images.work import Shelves, at_work
from lamina.tar import END_OF_ARCHIVE, EntryType, Header, padding, write_header

LAYOUT = encode({"imageLayoutVersion": "1.0.0"})


@attrs.frozen
class Chosen:
    """One image to save, and the names under which it was asked for."""

    image: Image
    names: tuple[Reference, ...]


def save(  # noqa: PLR0913, PLR0917  # as many as the command has flags
    shelves: Shelves, names: Sequence[str], target: Path | BinaryIO, form: Form, compression: str, progress: Progress
) -> None:
    """The bundle is written; a file or directory appears in its place only when it is whole."""
    with at_work(shelves) as work:
        with shelves.catalog.change() as rows:
            chosen = choose(rows, names)
            for each in chosen:  # a forced rmi meanwhile takes the names, not the blobs
                rows.use(work.owner, rows.used_by(f"image {each.image.id}"))
        if form is Form.OCI_DIR:
            _write_directory(shelves, chosen, target, progress)
            return
        with _output(target) as out, open_compressed(out, compression) as squeezed:
            _write_archive(shelves, chosen, squeezed, form, progress)


def choose(rows: Rows, names: Sequence[str]) -> tuple[Chosen, ...]:
    """What the names mean: a repository without a tag means all of its tags, an id means the image without a name."""
    if not names:
        raise BadRequest("say which images to save")
    chosen: dict[str, Chosen] = {}
    for text in names:
        for image, wanted in _meant(rows, text):
            before = chosen.get(image.id, Chosen(image, ()))
            chosen[image.id] = attrs.evolve(before, names=tuple(dict.fromkeys([*before.names, *wanted])))
    return tuple(chosen.values())


def _meant(rows: Rows, text: str) -> Iterator[tuple[Image, tuple[Reference, ...]]]:
    tags = _all_tags(rows, text)
    for name, image_id in tags:
        yield rows.image(image_id), (name,)
    if not tags:
        match = find(rows, text)
        yield match.image, (match.reference,) if match.reference and match.reference.tag else ()


def _all_tags(rows: Rows, text: str) -> tuple[tuple[Reference, str], ...]:
    try:
        reference = parse(text)
    except InvalidName:
        return ()
    return () if reference.tag or reference.digest else rows.tags_of(reference)


def _write_archive(shelves: Shelves, chosen: Sequence[Chosen], out: BinaryIO, form: Form, progress: Progress) -> None:
    """Documents first, so that a reader of a stream knows what is coming; then each blob once, by digest."""
    documents = {"oci-layout": LAYOUT, "index.json": _index(shelves, chosen)}
    if form is Form.DOCKER_ARCHIVE:
        documents["manifest.json"] = _docker_manifest(chosen)
    for name, data in documents.items():
        _add(out, name, len(data), io.BytesIO(data))
    for name in ("blobs/", "blobs/sha256/"):
        out.write(write_header(Header(path=name.encode(), type=EntryType.DIRECTORY, mode=0o755)))
    for digest in _blobs(chosen):
        with shelves.blobs.open(digest) as blob:
            size = os.fstat(blob.fileno()).st_size
            progress(LayerProgress(digest, Status.SAVING, 0, size))
            _add(out, blob_name(digest), size, blob)
            progress(LayerProgress(digest, Status.SAVING, size, size))
    out.write(END_OF_ARCHIVE)


def _write_directory(shelves: Shelves, chosen: Sequence[Chosen], target: Path | BinaryIO, progress: Progress) -> None:
    if not isinstance(target, Path):
        raise BadRequest("an OCI layout is a directory; it cannot go into a stream")
    with _new_directory(target) as place:
        (place / "blobs/sha256").mkdir(parents=True)
        for digest in _blobs(chosen):
            progress(LayerProgress(digest, Status.SAVING))
            with shelves.blobs.open(digest) as blob:
                _write(place / blob_name(digest), blob)
        _write(place / "oci-layout", io.BytesIO(LAYOUT))
        _write(place / "index.json", io.BytesIO(_index(shelves, chosen)))


def _index(shelves: Shelves, chosen: Sequence[Chosen]) -> bytes:
    tags = Counter(name.tag for each in chosen for name in each.names)
    entries: list[Descriptor] = []
    for each in chosen:
        document = read_document(shelves.blobs.read(each.image.manifest), each.image.manifest)
        assert isinstance(document, Manifest)  # noqa: S101  # we recorded it as one
        for name in each.names:
            # umoci and skopeo look for the tag; where several images share it, only the whole name tells them apart
            short = name.tag if name.tag and tags[name.tag] == 1 else name.familiar
            annotations = {CONTAINERD_NAME: str(name), REF_NAME: short}
            entries.append(document.descriptor(annotations=annotations))
        entries += [] if each.names else [document.descriptor()]
    return make_index(tuple(entries)).raw


def _docker_manifest(chosen: Sequence[Chosen]) -> bytes:
    return json.dumps(
        [
            {
                "Config": blob_name(each.image.id),
                "RepoTags": [name.familiar for name in each.names] or None,
                "Layers": [blob_name(layer.blob) for layer in each.image.layers],
            }
            for each in chosen
        ],
        separators=(",", ":"),
    ).encode()


def _blobs(chosen: Iterable[Chosen]) -> list[str]:
    digests: set[str] = set()
    for each in chosen:
        digests |= {each.image.id, each.image.manifest, *(layer.blob for layer in each.image.layers)}
    return sorted(digests)


def _add(out: BinaryIO, name: str, size: int, data: BinaryIO) -> None:
    out.write(write_header(Header(path=name.encode(), type=EntryType.FILE, mode=0o644, size=size)))
    shutil.copyfileobj(data, out, BLOCK)
    out.write(padding(size))


@contextlib.contextmanager
def _output(target: Path | BinaryIO) -> Iterator[BinaryIO]:
    """A stream as it is; a file appears under its name when it is whole; a device or pipe is written to."""
    if not isinstance(target, Path):
        yield target
    elif target.exists() and not target.is_file():
        with target.open("wb") as out:
            yield out
    else:
        with _new_file(target) as out:
            yield out


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO]:
    target = Path(os.path.realpath(target))
    draft = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    try:
        with open_new(draft) as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        draft.rename(target)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(target.parent)


@contextlib.contextmanager
def _new_directory(target: Path) -> Iterator[Path]:
    target = Path(os.path.realpath(target))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AlreadyExists(f"{target} is there already; name a new directory")
    draft = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    try:
        draft.mkdir()
        yield draft
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    sync_directory(target.parent)


def open_new(path: Path) -> BinaryIO:
    """A new file that only its owner can read: an image may hold secrets."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _write(path: Path, data: BinaryIO) -> None:
    with path.open("xb") as out:
        shutil.copyfileobj(data, out, BLOCK)
        out.flush()
        os.fsync(out.fileno())

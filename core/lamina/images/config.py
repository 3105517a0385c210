"""An image's config: for which machine it is, how it starts, from which layers it is made."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import attrs

from lamina.errors import BadArchive
from lamina.images import fields
from lamina.images.manifest import Platform, digest_of, encode
from lamina.images.reference import is_digest


@attrs.frozen
class History:
    """How one layer came to be, or one step that made none."""

    created: datetime | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@attrs.frozen
class ImageConfig:
    """The document that is the image's identity: its digest is the image ID. `raw` is kept byte for byte."""

    raw: bytes = attrs.field(repr=False)
    platform: Platform
    created: datetime | None
    author: str
    settings: Mapping[str, Any]  # "config" in the document: Cmd, Env, Labels, …
    diff_ids: tuple[str, ...]
    history: tuple[History, ...]

    @property
    def id(self) -> str:
        """The image ID."""
        return digest_of(self.raw)

    @property
    def chain_ids(self) -> tuple[str, ...]:
        """For each layer the name of the stack that ends with it."""
        return chain_ids(self.diff_ids)


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """The OCI chain ids: a name for each stack of layers, by content; the lowest first."""
    result: list[str] = []
    for diff_id in diff_ids:
        result.append(_join(result[-1], diff_id) if result else diff_id)
    return tuple(result)


def read_config(raw: bytes, what: str = "config") -> ImageConfig:
    """Read an image's config; BadArchive if it lacks what an image of layers must have."""
    document = fields.read_object(raw, what)
    rootfs = fields.table(document, "rootfs", what)
    if fields.text(rootfs, "type", what, "layers") != "layers":
        raise BadArchive(what, "rootfs is not made of layers")
    diff_ids = fields.texts(rootfs, "diff_ids", what)
    for diff_id in diff_ids:
        if not is_digest(diff_id) or not diff_id.startswith("sha256:"):
            raise BadArchive(what, f"{diff_id[:80]!r} is not a sha256 digest")
    return ImageConfig(
        raw,
        Platform(*(fields.text(document, key, what, "") for key in ("os", "architecture", "variant"))),
        fields.time(document, "created", what),
        fields.text(document, "author", what, ""),
        fields.table(document, "config", what),
        diff_ids,
        tuple(_read_history(step, what) for step in fields.objects(document, "history", what)),
    )


def make_config(  # noqa: PLR0913  # a config has that many parts
    base: ImageConfig | None,
    *,
    platform: Platform,
    created: datetime,
    author: str,
    settings: Mapping[str, Any],
    layer: str | None,
    step: History,
) -> ImageConfig:
    """A new config: `base` and one layer more, or one step that made none.

    What `base` says that we do not know about is carried along.
    """
    document: dict[str, Any] = dict(fields.read_object(base.raw, base.id)) if base else {}
    for stale in ("id", "parent", "container", "container_config", "docker_version", "Size", "size"):
        document.pop(stale, None)  # they would speak of the base, not of this image
    diff_ids = [*(base.diff_ids if base else ()), *([layer] if layer else ())]
    document |= {
        "architecture": platform.architecture,
        "author": author,
        "config": dict(settings),
        "created": fields.format_time(created),
        "history": [*document.get("history", ()), _write_history(step)],
        "os": platform.os,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    document |= {"variant": platform.variant} if platform.variant else {}
    if not author:
        del document["author"]
    return read_config(encode(dict(sorted(document.items()))))


def _join(chain_id: str, diff_id: str) -> str:
    return _hash(f"{chain_id} {diff_id}")


@functools.lru_cache(maxsize=4096)
def _hash(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _read_history(step: Mapping[str, Any], what: str) -> History:
    return History(
        fields.time(step, "created", what),
        fields.text(step, "created_by", what, ""),
        fields.text(step, "author", what, ""),
        fields.text(step, "comment", what, ""),
        fields.flag(step, "empty_layer", what),
    )


def _write_history(step: History) -> dict[str, Any]:
    result: dict[str, Any] = {"created": fields.format_time(step.created)} if step.created else {}
    for key in ("created_by", "author", "comment"):
        if value := getattr(step, key):
            result[key] = value
    return result | ({"empty_layer": True} if step.empty_layer else {})

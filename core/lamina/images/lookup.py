"""Find an image by what a person types: a name, a digest, an id or the beginning of one."""

from __future__ import annotations

import re

import attrs

from lamina.errors import BadRequest, InvalidName, NotFound
from lamina.images.catalog import Rows
from lamina.images.records import Image
from lamina.images.reference import Reference, parse

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")


@attrs.frozen
class Match:
    """The image, and the name that led to it; None if it was an id or a manifest's digest."""

    image: Image
    reference: Reference | None


def find(rows: Rows, text: str) -> Match:
    """The one image that is meant. A name goes before the beginning of an id, as docker has it.

    Raises NotFound, or BadRequest if the beginning of an id fits several.
    """
    if (reference := _reference(text)) is not None and (image_id := rows.named(reference)) is not None:
        return Match(rows.image(image_id), reference if rows.has_name(reference) else None)
    if (match := _ID.fullmatch(text)) is not None:
        found = rows.ids_beginning(f"sha256:{match[1]}")
        if len(found) > 1:
            raise BadRequest(f"{text!r} is the beginning of {len(found)} image IDs; give more digits")
        if found:
            return Match(rows.image(found[0]), None)
        if (by_manifest := rows.with_manifest(f"sha256:{match[1]}")) is not None:
            return Match(rows.image(by_manifest), None)
    raise NotFound(f"no image {text!r} in this store; `lamina images` lists those that are")


def _reference(text: str) -> Reference | None:
    try:
        return parse(text).tagged()
    except InvalidName:
        if _ID.fullmatch(text):
            return None
        raise

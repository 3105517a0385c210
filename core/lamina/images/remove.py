"""Take names from images, and images from the store; what others still need stays."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lamina.errors import InUse
from lamina.images.catalog import Rows
from lamina.images.familiar import short_id
from lamina.images.lookup import Match, find
from lamina.images.records import Deleted, Image, Removal, Untagged
from lamina.images.reference import Reference, parse
from lamina.images.settle import things_of
from lamina.images.work import Gone, Shelves, Work, at_work


@attrs.frozen
class Removed:
    """What a transaction took out of the catalog; the things are to be deleted now."""

    names: tuple[str, ...] = ()
    image: Image | None = None
    doomed: tuple[str, ...] = ()


def remove(shelves: Shelves, name: str, *, force: bool) -> tuple[Removal, ...]:
    """By a name: that name goes, and the image with its last one. By an id: the image and its names go.

    InUse if a container was made from it or (by an id) several names point at it, unless `force`; then the container
    keeps its layers. Layers that others need stay.
    """
    with at_work(shelves) as work:
        with shelves.catalog.change() as rows:
            match = find(rows, name)
            removed = (
                _by_name(work, rows, match, force=force) if match.reference else _by_id(work, rows, match, force=force)
            )
        return report(removed, work.delete(removed.doomed))


def drop_image(work: Work, rows: Rows, image: Image) -> Removed:
    """The image and its names are out of the catalog, and what nobody else needs is doomed."""
    for name in (*image.names, *image.digests):
        rows.drop_name(parse(name))
    had = rows.drop_image(image.id)
    ordered = [thing for thing in things_of(work.shelves, image) if thing in had]
    doomed = work.doom(rows, dict.fromkeys([*ordered, *had]))
    return Removed((*image.names, *image.digests), image, tuple(doomed))


def report(removed: Removed, gone: Sequence[Gone]) -> tuple[Removal, ...]:
    """Docker's lines: names, then the image, then each layer that is really gone, the topmost first."""
    lines: list[Removal] = [Untagged(name) for name in removed.names]
    if removed.image is not None:
        blobs = sum(each.freed for each in gone if each.thing.startswith("blob/"))
        lines.append(Deleted(removed.image.id, blobs))
        freed = {each.thing.partition("/")[2]: each.freed for each in gone if not each.thing.startswith("blob/")}
        lines += [
            Deleted(layer.chain_id, freed[layer.chain_id])
            for layer in reversed(removed.image.layers)
            if layer.chain_id in freed
        ]
    return tuple(lines)


def _by_id(work: Work, rows: Rows, match: Match, *, force: bool) -> Removed:
    if len(match.image.names) > 1 and not force:
        raise InUse(
            f"image {short_id(match.image.id)} has several names ({', '.join(match.image.names)}); "
            "remove them by name, or force"
        )
    return _drop(work, rows, match.image, force=force)


def _by_name(work: Work, rows: Rows, match: Match, *, force: bool) -> Removed:
    image, name = match.image, match.reference
    assert name is not None  # noqa: S101  # the caller has looked
    going = [str(name)]
    tags = [parse(each) for each in image.names]
    if name.digest is None and not any(_same_repository(each, name) for each in tags if str(each) != str(name)):
        # digests without a tag would keep an image that nobody can see the name of
        going += [str(each) for each in map(parse, image.digests) if _same_repository(each, name)]
    staying = {str(parse(each)) for each in (*image.names, *image.digests)} - set(going)
    if not staying:
        return _drop(work, rows, image, force=force)
    for each in going:
        rows.drop_name(parse(each))
    return Removed(tuple(parse(each).familiar for each in going))


def _drop(work: Work, rows: Rows, image: Image, *, force: bool) -> Removed:
    if not force:
        _refuse_if_wanted(rows, image)
    return drop_image(work, rows, image)


def _refuse_if_wanted(rows: Rows, image: Image) -> None:
    if containers := rows.containers_on(image.id):
        first_id, first_name = containers[0]
        more = f" and {len(containers) - 1} more" if len(containers) > 1 else ""
        raise InUse(
            f"image {_call(image)} is used by container {first_id[:12]} ({first_name}){more}; "
            "remove the container first, or force"
        )


def _same_repository(one: Reference, other: Reference) -> bool:
    return one.repository == other.repository


def _call(image: Image) -> str:
    return image.names[0] if image.names else short_id(image.id)

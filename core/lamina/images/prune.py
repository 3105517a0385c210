"""Free what nobody needs: images without a name, and whatever crashes and other drivers have left."""

from __future__ import annotations

from lamina.images.catalog import Rows
from lamina.images.records import Deleted, Image, Pruned, Removal, Share
from lamina.images.remove import Removed, drop_image, report
from lamina.images.unpack import LABEL
from lamina.images.work import Gone, Shelves, Work, at_work


def prune(shelves: Shelves, *, everything: bool) -> Pruned:
    """Images without names are gone, or (`everything`) all that no container was made from; and all litter is."""
    with at_work(shelves) as work:
        with shelves.catalog.change() as rows:
            unwanted = [image for image in _images(rows) if _is_unwanted(rows, image, everything=everything)]
        removed: list[Removal] = []
        for image in unwanted:
            removed += _drop(work, image, everything=everything)
        litter = sweep(work)
    removed += [Deleted(each.thing.partition("/")[2], each.freed) for each in litter]
    freed = sum(each.freed for each in removed if isinstance(each, Deleted))
    return Pruned(tuple(removed), freed + shelves.blobs.collect())


def sweep(work: Work) -> tuple[Gone, ...]:
    """Blobs and snapshots of ours that nobody needs are gone. Work under way elsewhere is not disturbed."""
    shelves = work.shelves
    blobs = [shelves.blob(blob.digest) for blob in shelves.blobs.list()]
    snapshots = [shelves.snapshot(each.name) for each in shelves.snapshots.list() if LABEL in each.labels]
    with shelves.catalog.change() as rows:
        doomed = work.doom(rows, [*reversed(snapshots), *blobs])
    return work.delete(doomed)


def usage(shelves: Shelves) -> tuple[Share, ...]:
    """What images, containers and blobs occupy, and what of it pruning everything would give back."""
    with shelves.catalog.read() as rows:
        images = _images(rows)
        active = [image for image in images if rows.containers_on(image.id)]
    needed = _layers(active)
    every = _layers(images)
    blobs = {layer.blob: layer.blob_size for image in images for layer in image.layers}
    kept = {layer.blob for image in active for layer in image.layers}
    spare = sum(every.values()) - sum(size for chain, size in every.items() if chain in needed)
    return (
        Share("Images", len(images), len(active), sum(every.values()), spare),
        Share("Blobs", len(blobs), len(kept), sum(blobs.values()), sum(blobs[each] for each in blobs.keys() - kept)),
    )


def _images(rows: Rows) -> list[Image]:
    return [rows.image(image_id) for image_id in rows.image_ids()]


def _layers(images: list[Image]) -> dict[str, int]:
    return {layer.chain_id: layer.size for image in images for layer in image.layers}


def _is_unwanted(rows: Rows, image: Image, *, everything: bool) -> bool:
    return (everything or not (image.names or image.digests)) and not rows.containers_on(image.id)


def _drop(work: Work, image: Image, *, everything: bool) -> tuple[Removal, ...]:
    with work.shelves.catalog.change() as rows:
        if not rows.has_image(image.id):
            return ()
        current = rows.image(image.id)  # it may have got a name or a container since we looked
        removed = drop_image(work, rows, current) if _is_unwanted(rows, current, everything=everything) else Removed()
    return report(removed, work.delete(removed.doomed))

"""Show an image as a plain, read-only directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from lamina.errors import AlreadyExists, NotFound
from lamina.images.progress import silent
from lamina.images.records import Image
from lamina.images.settle import ensure
from lamina.images.unpack import LABEL
from lamina.images.work import Shelves, at_work


def mount(shelves: Shelves, image: Image, target: Path) -> None:
    """The image is to be seen at `target`. Its layers stay until `unmount`, even if the image itself is removed."""
    key = _key(target)
    with at_work(shelves) as work:
        ensure(work, image, silent)
        work.hold([shelves.snapshot(key)])
        try:
            shelves.snapshots.view(key, image.chain_id, {LABEL: "mount"})
        except AlreadyExists:
            raise AlreadyExists(f"an image is mounted at {target} already; unmount it first") from None
        shelves.snapshots.mount(key, target)
        with shelves.catalog.change() as rows:
            rows.use(f"mount {key}", [shelves.snapshot(key), *rows.used_by(f"image {image.id}")])


def unmount(shelves: Shelves, target: Path) -> None:
    """Nothing is mounted at `target` any more, and layers that only this mount kept are freed. NotFound."""
    key = _key(target)
    with at_work(shelves) as work:
        with shelves.catalog.read() as rows:
            if not rows.used_by(f"mount {key}"):
                raise NotFound(f"no image of this store is mounted at {target}")
        with contextlib.suppress(NotFound):  # a reboot unmounts without telling us
            shelves.snapshots.unmount(target)
        with shelves.catalog.change() as rows:
            doomed = work.doom(rows, rows.let_go(f"mount {key}"))
        work.delete(doomed)


def _key(target: Path) -> str:
    return f"mount-{hashlib.sha256(os.fsencode(os.path.realpath(target))).hexdigest()[:32]}"

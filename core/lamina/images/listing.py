"""What the catalog lists, without a driver: quick, and possible also where no driver can be used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lamina.errors import ConfigError
from lamina.images.brief import FILE
from lamina.images.catalog import Catalog, Rows
from lamina.images.records import Image


@contextlib.contextmanager
def listed(root: Path) -> Iterator[Rows | None]:
    """One look at the catalog of the store in `root`; None if nothing was ever brought in. Nothing is made."""
    if not (root / FILE).exists():
        if root.exists() and not root.is_dir():
            raise ConfigError(f"{root}: is no directory; choose another root")
        yield None
        return
    with contextlib.closing(Catalog(root / FILE)) as catalog, catalog.read() as rows:
        yield rows


def list_images(root: Path, *, dangling: bool | None = None) -> tuple[Image, ...]:
    """All images, the newest first; `dangling` picks those without, or with, a name."""
    with listed(root) as rows:
        return () if rows is None else images_in(rows, dangling=dangling)


def images_in(rows: Rows, *, dangling: bool | None = None) -> tuple[Image, ...]:
    """As `list_images`, of a catalog that is open."""
    images = (rows.image(image_id) for image_id in rows.image_ids())
    return tuple(image for image in images if dangling is None or dangling is not bool(image.names or image.digests))

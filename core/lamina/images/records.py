"""What the image store tells its callers: frozen records."""

from __future__ import annotations

import enum
from datetime import datetime

import attrs

from lamina.images.reference import parse


class Form(enum.Enum):
    """The shapes in which images travel."""

    DOCKER_ARCHIVE = "docker-archive"
    OCI_ARCHIVE = "oci-archive"
    OCI_DIR = "oci-dir"


@attrs.frozen
class ImageLayer:
    """One layer of an image: by content, by place in the stack, and the blob that it came in."""

    diff_id: str
    chain_id: str
    blob: str
    media_type: str
    blob_size: int
    size: int  # what it occupies unpacked


@attrs.frozen
class Image:
    """One image of the store. `names` and `digests` are in the short form that people type."""

    id: str
    manifest: str
    platform: str
    created: datetime | None
    size: int
    names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    layers: tuple[ImageLayer, ...] = ()

    @property
    def chain_id(self) -> str | None:
        """The name of the snapshot with the whole image, if it has layers."""
        return self.layers[-1].chain_id if self.layers else None

    def rows(self) -> tuple[tuple[str, str], ...]:
        """Repository and tag, a pair for each line of a listing; `<none>` for what it lacks."""
        references = [parse(name) for name in self.names]
        if references:
            return tuple((each.familiar_repository, each.tag or "<none>") for each in references)
        return tuple((parse(each).familiar_repository, "<none>") for each in self.digests) or (("<none>", "<none>"),)


@attrs.frozen
class Loaded:
    """One image that a bundle brought, and the names that point at it now."""

    image: Image
    names: tuple[str, ...]

    def __str__(self) -> str:
        if not self.names:
            return f"Loaded image ID: {self.image.id}"
        return "\n".join(f"Loaded image: {name}" for name in self.names)


@attrs.frozen
class Untagged:
    """A name that points at nothing now."""

    name: str

    def __str__(self) -> str:
        return f"Untagged: {self.name}"


@attrs.frozen
class Deleted:
    """An image or a layer that is really gone."""

    digest: str
    freed: int = 0

    def __str__(self) -> str:
        return f"Deleted: {self.digest}"


Removal = Untagged | Deleted


@attrs.frozen
class Pruned:
    """What pruning removed, and how many bytes that gave back."""

    removed: tuple[Removal, ...]
    freed: int


@attrs.frozen
class HistoryRow:
    """One line of `history`, the newest step first."""

    image: str
    created: datetime | None
    created_by: str
    size: int
    comment: str


@attrs.frozen
class Share:
    """One line of `df`."""

    kind: str
    count: int
    active: int
    size: int
    reclaimable: int

"""The image store as its users see it: load, save, list, tag, remove, commit, mount."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from lamina.errors import InvalidName, LaminaError
from lamina.images.blobs import Blobs
from lamina.images.brief import FILE
from lamina.images.catalog import Catalog
from lamina.images.config import ImageConfig, read_config
from lamina.images.leases import Leases
from lamina.images.listing import images_in
from lamina.images.lookup import find
from lamina.images.progress import Progress, silent
from lamina.images.records import Form, HistoryRow, Image, Loaded, Pruned, Removal, Share
from lamina.images.reference import parse
from lamina.images.work import Shelves

if TYPE_CHECKING:
    from lamina.images.transfer_pull import Pulled
    from lamina.images.transfer_push import Pushed
    from lamina.snapshotter import Snapshotter


class Images:
    """All images below one root. Several processes may use it at once; one object belongs to one thread at a time."""

    def __init__(self, root: Path, snapshots: Snapshotter, registries: Mapping[str, Any] | None = None) -> None:
        """Remember; the first use makes the directories and the database. `registries` is that table of the config."""
        self.root = root
        self.snapshots = snapshots
        self._registries = registries or {}
        self._shelves: Shelves | None = None

    @property
    def shelves(self) -> Shelves:
        """The parts that the rooms of this house work with."""
        if self._shelves is None:
            blobs, leases = Blobs(self.root), Leases(self.root)
            blobs.start()
            leases.start()
            self._shelves = Shelves(blobs, Catalog(self.root / FILE), leases, self.snapshots)
        return self._shelves

    def close(self) -> None:
        """Let go of the database. The snapshotter is its owner's to close."""
        if self._shelves is not None:
            self._shelves.catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # in and out

    def load(
        self,
        source: Path | BinaryIO,
        *,
        platform: str | None = None,
        name: str | None = None,
        progress: Progress = silent,
    ) -> tuple[Loaded, ...]:
        """Bring in a docker archive, an OCI archive (both also compressed, also from a pipe) or an OCI layout.

        All of its images are unpacked and named afterwards; on failure the store is as before. `name` is the repository
        for images that the bundle calls only by a tag.
        """
        from lamina.images.load import load  # noqa: PLC0415  # decompressors: not for a listing

        return load(self.shelves, source, platform, parse(name) if name else None, progress)

    def save(
        self,
        names: Sequence[str],
        target: Path | BinaryIO,
        *,
        form: Form = Form.DOCKER_ARCHIVE,
        compression: str = "none",
        progress: Progress = silent,
    ) -> None:
        """Write the images as one bundle; a file or directory appears only when it is whole."""
        from lamina.images.save import save  # noqa: PLC0415  # compressors: not for a listing

        save(self.shelves, names, target, form, compression, progress)

    def import_tar(  # noqa: PLR0913  # as many as the command has flags
        self,
        tar: BinaryIO,
        name: str | None = None,
        *,
        changes: Sequence[str] = (),
        message: str | None = None,
        platform: str | None = None,
        progress: Progress = silent,
    ) -> Image:
        """A tar of a root file system becomes an image of one layer."""
        from lamina.images.commit import Note, import_tar  # noqa: PLC0415

        note = Note(message=message or "", changes=changes)
        return import_tar(self.shelves, tar, parse(name) if name else None, platform, note, progress)

    # registries

    def full_name(self, name: str) -> str:
        """What a name means: the config's rules for short names are applied; InvalidName."""
        from lamina.images.registry_config import full_name, read_registries  # noqa: PLC0415  # httpx, trio

        return full_name(name, read_registries(self._registries)).familiar

    def pull(  # as many as the command has flags
        self,
        name: str,
        *,
        platform: str | None = None,
        all_tags: bool = False,
        progress: Progress = silent,
        tell: Callable[[str], object] = str,
    ) -> tuple[Pulled, ...]:
        """Bring an image (or every tag of a repository) from its registry; on failure the store is as before.

        `tell` hears docker's lines, such as `Digest: …`. RegistryError, NotFound, DigestMismatch or BadArchive.
        """
        from lamina.images.registry_config import full_name, read_registries  # noqa: PLC0415  # httpx, trio
        from lamina.images.transfer_pull import pull  # noqa: PLC0415

        known = read_registries(self._registries)
        reference = full_name(name, known)
        return pull(self.shelves, known, reference, platform=platform, all_tags=all_tags, progress=progress, tell=tell)

    def push(
        self,
        name: str,
        *,
        all_tags: bool = False,
        progress: Progress = silent,
        tell: Callable[[str], object] = str,
    ) -> tuple[Pushed, ...]:
        """Bring an image (or every tag of a repository) to its registry, byte for byte as it is here."""
        from lamina.images.registry_config import full_name, read_registries  # noqa: PLC0415  # httpx, trio
        from lamina.images.transfer_push import push  # noqa: PLC0415

        known = read_registries(self._registries)
        reference = full_name(name, known)
        return push(self.shelves, known, reference, all_tags=all_tags, progress=progress, tell=tell)

    # who is there

    def list(self, *, dangling: bool | None = None) -> tuple[Image, ...]:
        """All images, the newest first; `dangling` picks those without, or with, a name."""
        with self.shelves.catalog.read() as rows:
            return images_in(rows, dangling=dangling)

    def find(self, name: str) -> Image:
        """The image of that name, digest, id or beginning of an id; NotFound."""
        with self.shelves.catalog.read() as rows:
            return find(rows, name).image

    def config(self, image: Image) -> ImageConfig:
        """The image's config document."""
        return read_config(self.shelves.blobs.read(image.id), image.id)

    def inspect(self, name: str) -> dict[str, Any]:
        """What docker's inspect tells of an image."""
        from lamina.images.inspect import inspect  # noqa: PLC0415

        image = self.find(name)
        return inspect(image, self.config(image), self.shelves.driver)

    def history(self, name: str) -> tuple[HistoryRow, ...]:
        """How the image came to be, the newest step first."""
        from lamina.images.inspect import history  # noqa: PLC0415

        image = self.find(name)
        return history(image, self.config(image))

    # names

    def tag(self, source: str, target: str) -> None:
        """`target` names the image `source` from now on, whatever it named before."""
        reference = parse(target)
        if reference.digest is not None:
            raise InvalidName(f"{target!r}: a tag cannot have a digest")
        with self.shelves.catalog.change() as rows:
            rows.put_name(reference.tagged(), find(rows, source).image.id)

    def remove(self, name: str, *, force: bool = False) -> tuple[Removal, ...]:
        """Take a name away, and with the last one the image; what others need stays. InUse if a container needs it."""
        from lamina.images.remove import remove  # noqa: PLC0415

        return remove(self.shelves, name, force=force)

    def prune(self, *, everything: bool = False) -> Pruned:
        """Free images without a name (or all that no container needs), and what crashes have left."""
        from lamina.images.prune import prune  # noqa: PLC0415

        return prune(self.shelves, everything=everything)

    # looking inside

    def mount(self, name: str, target: Path) -> None:
        """Show the image, read-only, at `target`, until `unmount`. Its layers stay that long, even if it is removed."""
        from lamina.images.show import mount  # noqa: PLC0415

        mount(self.shelves, self.find(name), target)

    def unmount(self, target: Path) -> None:
        """Undo `mount`; NotFound if no image is mounted there."""
        from lamina.images.show import unmount  # noqa: PLC0415

        unmount(self.shelves, target)

    def usage(self) -> tuple[Share, ...]:
        """What is stored, and what of it could be freed."""
        from lamina.images.prune import usage  # noqa: PLC0415

        return usage(self.shelves)

    def verify(self) -> Iterator[str]:
        """Read every blob that an image needs; one sentence for each that is damaged or gone."""
        for digest in sorted({digest for image in self.list() for digest in _blobs(image)}):
            try:
                self.shelves.blobs.check(digest)
            except LaminaError as error:
                yield str(error)


def _blobs(image: Image) -> tuple[str, ...]:
    return (image.id, image.manifest, *(layer.blob for layer in image.layers))

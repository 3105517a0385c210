"""Push: an image to a registry, every blob byte for byte as it is in the store, the manifest last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio

from lamina.errors import BadRequest, NotFound
from lamina.images.catalog import Rows
from lamina.images.manifest import Descriptor, Manifest, read_document
from lamina.images.progress import LayerProgress, Progress, Status
from lamina.images.records import Image
from lamina.images.reference import Reference
from lamina.images.registry import Document, Registry
from lamina.images.registry_config import Registries
from lamina.images.registry_upload import Upload
from lamina.images.transfer import opened_line
from lamina.images.transfer_pull import Tell
from lamina.images.work import Shelves, Work, at_work

_MOST_SOURCES = 3  # each costs a request


@attrs.frozen
class Pushed:
    """An image that the registry has now."""

    name: str
    digest: str
    size: int  # of the manifest


def push(  # noqa: PLR0913  # as many as the command has flags
    shelves: Shelves,
    registries: Registries,
    reference: Reference,
    *,
    all_tags: bool,
    progress: Progress,
    tell: Tell,
) -> tuple[Pushed, ...]:
    """The registry has the image under this name (or every tag of the repository). `tell` hears docker's lines."""
    if reference.digest or (all_tags and reference.tag):
        raise BadRequest(f"{reference.familiar}: push a repository, or one tag of it")
    with at_work(shelves) as work:
        wanted = _wanted(work, reference, all_tags=all_tags)
        tell(f"The push refers to repository [{reference.repository}]")
        with opened_line(registries) as line:
            registry = line.registry(reference.domain)
            return tuple(
                line.portal.call(_Push(work, registry, registries, name, image, progress, tell).run)
                for name, image in wanted
            )


def _wanted(work: Work, reference: Reference, *, all_tags: bool) -> tuple[tuple[Reference, Image], ...]:
    with work.shelves.catalog.change() as rows:
        pairs = rows.tags_of(reference) if all_tags else _tag(rows, reference.tagged())
        if not pairs:
            raise NotFound(f"{reference.familiar}: no image of this store has that name; `lamina tag` gives it one")
        for _, image_id in pairs:  # a forced rmi meanwhile takes the names, not the blobs
            rows.use(work.owner, rows.used_by(f"image {image_id}"))
        return tuple((name, rows.image(image_id)) for name, image_id in pairs)


def _tag(rows: Rows, name: Reference) -> tuple[tuple[Reference, str], ...]:
    image_id = rows.named(name)
    return () if image_id is None else ((name, image_id),)


@attrs.frozen
class _Push:
    """One name."""

    work: Work
    registry: Registry
    registries: Registries
    name: Reference
    image: Image
    progress: Progress
    tell: Tell

    async def run(self) -> Pushed:
        """Blobs, as many at once as the config allows, then the manifest."""
        raw = await trio.to_thread.run_sync(self.work.shelves.blobs.read, self.image.manifest)
        manifest = read_document(raw, self.image.manifest)
        assert isinstance(manifest, Manifest)  # noqa: S101  # we recorded it as one
        await self._send_blobs(manifest)
        document = Document(raw, manifest.media_type, manifest.digest)
        await self.registry.put_manifest(self.name.path, self.name.tag or "", document)
        await trio.to_thread.run_sync(self._remember, manifest.digest)
        self.tell(f"{self.name.tag}: digest: {manifest.digest} size: {len(raw)}")
        return Pushed(self.name.familiar, manifest.digest, len(raw))

    async def _send_blobs(self, manifest: Manifest) -> None:
        diff_ids = [layer.diff_id for layer in self.image.layers]
        turns = trio.Semaphore(self.registries.parallel)
        failed: list[Exception] = []
        # a layer may be there twice; two uploads of it would be one too many
        pairs = {layer.digest: (layer, diff_id) for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)}
        async with trio.open_nursery() as nursery:

            async def send(blob: Descriptor, diff_id: str | None) -> None:
                try:
                    async with turns:
                        await self._send(blob, diff_id)
                except Exception as error:  # noqa: BLE001  # the first is raised below; a nursery would wrap it
                    failed.append(error)
                    nursery.cancel_scope.cancel()

            for layer, diff_id in reversed(list(pairs.values())):  # the topmost first, as docker lists them
                nursery.start_soon(send, layer, diff_id)
            nursery.start_soon(send, manifest.config, None)
        if failed:
            raise failed[0]

    async def _send(self, blob: Descriptor, diff_id: str | None) -> None:
        if blob.foreign:
            self._say(diff_id, Status.SKIPPED)
            return
        upload = Upload(
            self.registry,
            self.name.path,
            blob,
            lambda: self.work.shelves.blobs.open(blob.digest),
            self._told(diff_id, blob.size),
            self.registries.chunk,
        )
        sources = await trio.to_thread.run_sync(self._sources, blob.digest)
        done = await upload.run(sources)
        status = Status.THERE if done.existed else Status.MOUNTED if done.mounted else Status.PUSHED
        self._say(diff_id, status, done.mounted)

    def _told(self, diff_id: str | None, size: int) -> Callable[[int], None]:
        return lambda sent: self._say(diff_id, Status.PUSHING, current=sent, total=size)

    def _say(
        self,
        diff_id: str | None,
        status: Status,
        source: str = "",
        current: int = 0,
        total: int | None = None,
    ) -> None:
        if diff_id is not None:  # nobody hears of the config
            self.progress(LayerProgress(diff_id, status, current, total, source))

    def _sources(self, digest: str) -> Sequence[str]:
        """Other repositories of this registry that had the blob when we last saw them."""
        with self.work.shelves.catalog.read() as rows:
            return rows.repositories_with(digest, self.name.domain, self.name.path)[:_MOST_SOURCES]

    def _remember(self, digest: str) -> None:
        with self.work.shelves.catalog.change() as rows:
            if rows.has_image(self.image.id):
                rows.put_name(self.name.with_digest(digest), self.image.id)

"""Containers as their users see them: create, list, diff, copy, commit, remove."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs

from lamina.containers import belongings
from lamina.containers.container import Container, inspect
from lamina.containers.life import seen
from lamina.containers.listing import containers_in
from lamina.containers.mountpoints import stand_on
from lamina.containers.names import check_name
from lamina.containers.options import Options, merged
from lamina.containers.places import means_contents
from lamina.containers.records import find, named, put, refuse_taken
from lamina.containers.rooms import room_of
from lamina.containers.volumes import Volume
from lamina.containers.volumestore import Volumes
from lamina.errors import AlreadyExists, BadRequest, InUse, NotFound
from lamina.images.progress import Progress, silent
from lamina.images.records import Image
from lamina.images.reference import parse
from lamina.images.settle import ensure
from lamina.images.unpack import LABEL
from lamina.images.work import Shelves, at_work

if TYPE_CHECKING:
    from lamina.changes import Change
    from lamina.images.store import Images
    from lamina.snapshotter import Snapshotter


class Containers:
    """All containers of an image store. The catalog keeps their records beside the images that they need."""

    def __init__(self, images: Images) -> None:
        """Remember; touch nothing."""
        self._images = images

    @property
    def _shelves(self) -> Shelves:
        return self._images.shelves

    @property
    def root(self) -> Path:
        """Where the store lies."""
        return self._images.root

    @property
    def snapshots(self) -> Snapshotter:
        """Whose layers containers stand on."""
        return self._shelves.snapshots

    @property
    def volumes(self) -> Volumes:
        """What containers have besides their layers."""
        return Volumes(self.root / "volumes")

    @property
    def driver(self) -> str:
        """In whose store new containers live."""
        return self._shelves.driver

    def create(
        self,
        image: str,
        *,
        name: str | None = None,
        command: Sequence[str] = (),
        options: Options | None = None,
        progress: Progress = silent,
    ) -> Container:
        """A container with a writable layer on top of the image; nothing runs. AlreadyExists if the name is taken."""
        wanted = check_name(name) if name else None
        asked_for = (options or Options()).checked()
        found = self._images.find(image)
        with at_work(self._shelves) as work:
            ensure(work, found, progress)
            new = self._new(found, image, wanted, command, asked_for)
            key = self._shelves.snapshot(new.snapshot)
            work.hold([key])
            ground = stand_on(work, found.chain_id, self._scratch())
            self._shelves.snapshots.prepare(new.snapshot, ground, {LABEL: "container"})
            with belongings.added(self, new) as equipped, self._shelves.catalog.change() as rows:
                container = named(rows, equipped)
                put(rows, container)
                stands_on = [key, self._shelves.snapshot(ground), *rows.used_by(f"image {found.id}")]
                rows.use(f"container {container.id}", stands_on)
                with contextlib.suppress(NotFound):  # forced away meanwhile
                    rows.image(found.id)
                    rows.use(f"image {found.id}", [self._shelves.snapshot(ground)])  # the next container wants it, too
        return container

    def bound(self, container: Container) -> tuple[Volume, ...]:
        """All that is mounted in it while it runs, with its places on this machine; NotFound if a volume is gone."""
        return belongings.bound(self.volumes, container)

    def list(self) -> tuple[Container, ...]:
        """All of them, the newest first."""
        with self._shelves.catalog.read() as rows:
            return containers_in(rows)

    def find(self, name: str) -> Container:
        """By name, id, or the beginning of an id; NotFound."""
        with self._shelves.catalog.read() as rows:
            return find(rows, name)

    def inspect(self, name: str) -> dict[str, Any]:
        """What docker's inspect tells, as far as it is known before a container runs."""
        container = self.ours(name)
        now = seen(container.life, room_of(self.root, container.id).path)
        told = inspect(attrs.evolve(container, life=now), self._shelves.snapshots.usage(container.snapshot).size)
        return told | {"Mounts": belongings.mounts_document(self.volumes, container)}

    def rename(self, name: str, new: str) -> Container:
        """It has another name from now on; AlreadyExists if that is taken, be it by the container itself."""
        check_name(new)
        with self._shelves.catalog.change() as rows:
            found = find(rows, name)
            if found.name == new:
                raise AlreadyExists(f"container {found.short_id} is called {new!r} already")
            container = attrs.evolve(found, name=new)
            refuse_taken(rows, container)
            put(rows, container)
        return container

    def note(self, container: Container) -> Container:
        """Write down what has become of it; its name stays what it is now. NotFound if somebody has removed it."""
        with self._shelves.catalog.change() as rows:
            container = attrs.evolve(container, name=find(rows, container.id).name)
            put(rows, container)
        return container

    def remove(self, name: str, *, volumes: bool = False) -> Container:
        """The container and its writable layer are gone, and what only it kept of a removed image.

        With `volumes` its volumes without a name go, too. InUse while it is mounted; then nothing has changed.
        """
        container = self.ours(name)
        with at_work(self._shelves) as work:
            with contextlib.suppress(NotFound):  # an earlier `rm` was cut short after this
                self._shelves.snapshots.remove(container.snapshot)
            with self._shelves.catalog.change() as rows:
                doomed = work.doom(rows, rows.drop_container(container.id))
            work.delete(doomed)
        for volume in container.volumes if volumes else ():
            if volume.anonymous:
                with contextlib.suppress(InUse):  # a crash here leaves it to `volume prune`
                    belongings.remove(self, volume.name, force=True)
        return container

    # its files

    def diff(self, name: str) -> Iterator[Change]:
        """What the container has added, changed and deleted, sorted by path."""
        return self._shelves.snapshots.changes(self.ours(name).snapshot)

    def export(self, name: str, out: BinaryIO) -> None:
        """Write the whole tree as a tar."""
        from lamina.containers.export import export  # noqa: PLC0415  # the tar machinery: not for a listing

        export(self._shelves.snapshots, self.ours(name).snapshot, out)

    def copy_out(
        self, name: str, path: bytes, target: bytes | BinaryIO, *, archive: bool = False, follow: bool = False
    ) -> None:
        """As `docker cp CONTAINER:PATH TARGET`; into a stream it is a tar. `archive` keeps the owners."""
        from lamina.containers.copy import copy_out  # noqa: PLC0415

        container = self.ours(name)
        if (there := belongings.within(self.bound(container), path)) is not None:
            volume, inner = there
            if inner == b"/" and not means_contents(path):
                shown = os.fsdecode(path)
                raise BadRequest(f"{shown!r} is a volume, and not copied as a whole; say {shown}/. for what is in it")
            copy_out(Path(volume.source), inner, target, archive=archive, follow=follow)
            return
        with self._shelves.snapshots.look(container.snapshot) as root:
            copy_out(root, path, target, archive=archive, follow=follow)

    def copy_in(
        self, name: str, source: bytes | BinaryIO, path: bytes, *, archive: bool = False, follow: bool = False
    ) -> None:
        """As `docker cp SOURCE CONTAINER:PATH`; from a stream it is a tar. Without `archive` the files are root's."""
        from lamina.containers.copy import copy_in  # noqa: PLC0415

        container = self.ours(name)
        if (there := belongings.within(self.bound(container), path)) is not None:
            volume, inner = there
            if not volume.writable:
                raise BadRequest(f"{os.fsdecode(path)!r} lies in a volume that the container sees read-only")
            copy_in(Path(volume.source), source, inner, archive=archive, follow=follow)
            return
        with self._writable(container) as root:
            copy_in(root, source, path, archive=archive, follow=follow)

    def mount(self, name: str, target: Path) -> None:
        """Show the container's tree, writable, at `target`."""
        self._shelves.snapshots.mount(self.ours(name).snapshot, target)

    def unmount(self, target: Path) -> None:
        """Undo `mount`."""
        self._shelves.snapshots.unmount(target)

    def commit(  # noqa: PLR0913  # as many as the command has flags
        self,
        name: str,
        reference: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        progress: Progress = silent,
    ) -> Image:
        """The container as it is now becomes an image; the container stays as it is.

        `changes` are Dockerfile instructions. The time this takes depends on what the container has changed.
        """
        from lamina.images.commit import Note, base_of, commit  # noqa: PLC0415  # compressors: not for a listing

        container = self.ours(name)
        wanted = parse(reference) if reference else None
        note = Note(author, message, changes, " ".join(container.settings.get("Cmd") or ()))
        base = base_of(self._shelves, container.image, container.manifest)
        return commit(self._shelves, base, container.snapshot, wanted, container.settings, note, progress)

    def _new(self, image: Image, asked: str, name: str | None, command: Sequence[str], options: Options) -> Container:
        settings = dict(self._images.config(image).settings)
        if options.entrypoint is not None:
            settings |= {"Entrypoint": list(options.entrypoint), "Cmd": None}
        if command:
            settings["Cmd"] = list(command)
        if options.environment:
            settings["Env"] = merged(options.environment, settings.get("Env") or ())
        if options.workdir:
            settings["WorkingDir"] = os.path.normpath(os.path.join("/", options.workdir))
        if options.user:
            settings["User"] = options.user
        if unnamed := [each.target for each in options.mounts() if each.anonymous]:
            settings["Volumes"] = {**(settings.get("Volumes") or {}), **{target: {} for target in unnamed}}
        if options.labels:
            settings["Labels"] = {**(settings.get("Labels") or {}), **options.labels}
        container_id = secrets.token_hex(32)
        return Container(
            id=container_id,
            name=name or "",
            image=image.id,
            manifest=image.manifest,
            image_name=asked,
            driver=self._shelves.driver,
            snapshot=f"container-{container_id}",
            created=datetime.now(UTC),
            settings=settings,
            options=attrs.evolve(options, environment=()),  # it is among the settings, and so in what is committed
        )

    def _scratch(self) -> Path:
        place = self.root / "mnt"
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        return place

    def ours(self, name: str) -> Container:
        """By name, in the store of our driver; BadRequest if it lives in another one's."""
        container = self.find(name)
        if container.driver != self._shelves.driver:
            raise BadRequest(
                f"container {container.name} lives in the store of driver {container.driver!r}; "
                f"ask again with --driver {container.driver}"
            )
        return container

    @contextlib.contextmanager
    def _writable(self, container: Container) -> Iterator[Path]:
        """Its tree at a place of ours, for as long as the block lasts."""
        place = self._scratch() / f"copy-{secrets.token_hex(8)}"
        place.mkdir(mode=0o700)
        try:
            self._shelves.snapshots.mount(container.snapshot, place)
            try:
                yield place
            finally:
                self._shelves.snapshots.unmount(place)
        finally:
            place.rmdir()

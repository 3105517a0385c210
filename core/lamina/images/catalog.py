"""The image store's database: which name points at which image, and who needs what."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import attrs

from lamina.errors import NoSpace, NotFound
from lamina.images.catalogfile import open_catalog
from lamina.images.records import Image, ImageLayer
from lamina.images.reference import Reference, parse
from lamina.reserve import Reserve


class Catalog:
    """One database file, shared by several processes. Any thread may use it; they take turns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reserve = Reserve(path.with_name("images.reserve"))
        self._turn = threading.RLock()
        self._opened: sqlite3.Connection | None = None

    def close(self) -> None:
        """Let go of the file. Repeating it is harmless; the next use opens it again."""
        with self._turn:
            if self._opened is not None:
                self._opened.close()
                self._opened = None
                self._reserve.keep()

    def make_room(self) -> None:
        """What is kept aside is free space now, if the disk is full: most of what is done then frees some."""
        self._reserve.spend()

    @contextlib.contextmanager
    def change(self) -> Iterator[Rows]:
        """One transaction: all of the block's changes are kept, or (if it raises, say NoSpace) none of them."""
        with self._turn:
            connection = self._connection()
            self.make_room()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Rows(connection)
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:  # SQLite itself has rolled back if the disk is full
                    connection.execute("ROLLBACK")
                if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                    raise NoSpace(f"{self._path}: no space left to note what was asked for") from error
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[Rows]:
        """One consistent look."""
        with self._turn:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                yield Rows(connection)
            finally:
                connection.execute("ROLLBACK")

    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            self.make_room()  # also what is only opened makes files
            self._opened = open_catalog(self._path)
            self._reserve.keep()
        return self._opened


@attrs.frozen
class Rows:
    """The tables, inside one transaction."""

    _db: sqlite3.Connection

    # images and their names

    def image_ids(self) -> tuple[str, ...]:
        """All images, the newest first; those without a date last."""
        return self._column("SELECT id FROM images ORDER BY created IS NULL, created DESC, id")

    def image(self, image_id: str) -> Image:
        """One image with its names and layers; NotFound."""
        row = self._db.execute(
            "SELECT manifest, platform, created, size FROM images WHERE id = ?", (image_id,)
        ).fetchone()
        if row is None:
            raise NotFound(f"no image {image_id}")
        manifest, platform, created, size = row
        return Image(
            image_id,
            manifest,
            platform,
            datetime.fromisoformat(created) if created else None,
            size,
            self._familiar("SELECT name FROM names WHERE image = ? ORDER BY name", image_id),
            self._familiar("SELECT name FROM digests WHERE image = ? ORDER BY name", image_id),
            tuple(ImageLayer(*layer) for layer in self._layers(image_id)),
        )

    def has_image(self, image_id: str) -> bool:
        """Whether there is such an image."""
        return self._one("SELECT 1 FROM images WHERE id = ?", image_id) is not None

    def ids_beginning(self, prefix: str) -> tuple[str, ...]:
        """The ids of images that begin so; `prefix` is `sha256:` and hexadecimal digits."""
        # GLOB, not LIKE: it takes the primary key's index
        return self._column("SELECT id FROM images WHERE id GLOB ? ORDER BY id", f"{prefix}*")

    def named(self, reference: Reference) -> str | None:
        """The id of the image that this name, or this digest in this repository, points at."""
        if reference.digest is None:
            return self._one("SELECT image FROM names WHERE name = ?", str(reference))
        pinned = str(reference.with_digest(reference.digest))
        return self._one("SELECT image FROM digests WHERE name = ?", pinned) or self._one(
            "SELECT names.image FROM names JOIN images ON images.id = names.image"
            " WHERE images.manifest = ? AND names.name BETWEEN ? AND ?",
            reference.digest,
            *_tag_range(reference),
        )

    def tags_of(self, reference: Reference) -> tuple[tuple[Reference, str], ...]:
        """Every tag of the repository, and the id of its image."""
        query = "SELECT name, image FROM names WHERE name BETWEEN ? AND ? ORDER BY name"
        return tuple((parse(name), image) for name, image in self._db.execute(query, _tag_range(reference)))

    def has_name(self, reference: Reference) -> bool:
        """Whether exactly this name is recorded."""
        table = "names" if reference.digest is None else "digests"
        return self._one(f"SELECT 1 FROM {table} WHERE name = ?", str(reference)) is not None  # noqa: S608  # two constants

    def with_manifest(self, digest: str) -> str | None:
        """The id of the image with this manifest."""
        return self._one("SELECT id FROM images WHERE manifest = ?", digest)

    def put_image(self, image: Image, things: Iterable[str]) -> None:
        """Record an image and what it stands on. One that is known keeps its record and gains the things."""
        self._db.execute(
            "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (image.id, image.manifest, image.platform, _iso(image.created), image.size, _now()),
        )
        self._db.executemany(
            "INSERT INTO layers VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(image.id, place, *attrs.astuple(layer)) for place, layer in enumerate(image.layers)],
        )
        self.use(f"image {image.id}", things)

    def drop_image(self, image_id: str) -> tuple[str, ...]:
        """Forget an image without names; what it stood on."""
        self._db.execute("DELETE FROM images WHERE id = ?", (image_id,))
        return self.let_go(f"image {image_id}")

    def put_name(self, reference: Reference, image_id: str) -> None:
        """The name points at this image from now on, whatever it pointed at before."""
        table = "names" if reference.digest is None else "digests"
        self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (str(reference), image_id))  # noqa: S608  # two constants

    def drop_name(self, reference: Reference) -> None:
        """The name points at nothing."""
        table = "names" if reference.digest is None else "digests"
        self._db.execute(f"DELETE FROM {table} WHERE name = ?", (str(reference),))  # noqa: S608  # two constants

    def layers_with(self, diff_id: str) -> tuple[ImageLayer, ...]:
        """Every form in which images of the store have this layer; each was checked when it came."""
        query = "SELECT DISTINCT diff_id, chain_id, blob, media_type, blob_size, size FROM layers WHERE diff_id = ?"
        return tuple(ImageLayer(*row) for row in self._db.execute(query, (diff_id,)))

    def repositories_with(self, blob: str, domain: str, but: str) -> tuple[str, ...]:
        """Other repositories of this registry that had an image with the blob when we last pulled or pushed it."""
        query = (
            "SELECT DISTINCT digests.name FROM digests LEFT JOIN layers ON layers.image = digests.image"
            " WHERE (layers.blob = ?1 OR digests.image = ?1) AND digests.name BETWEEN ?2 || '/' AND ?2 || '0'"
            " ORDER BY digests.name"
        )
        found = (parse(name).path for name in self._column(query, blob, domain))
        return tuple(dict.fromkeys(path for path in found if path != but))

    # who needs what

    def use(self, owner: str, things: Iterable[str]) -> None:
        """Nobody deletes these things while this owner has them."""
        self._db.executemany("INSERT OR IGNORE INTO uses VALUES (?, ?)", [(owner, thing) for thing in things])

    def used_by(self, owner: str) -> tuple[str, ...]:
        """What the owner needs."""
        return self._column("SELECT thing FROM uses WHERE owner = ? ORDER BY thing", owner)

    def let_go(self, owner: str) -> tuple[str, ...]:
        """The owner needs nothing any more; what it had."""
        things = self.used_by(owner)
        self._db.execute("DELETE FROM uses WHERE owner = ?", (owner,))
        return things

    def hand_over(self, owner: str, heir: str) -> None:
        """What the one had, the other has."""
        self.use(heir, self.let_go(owner))

    def is_used(self, thing: str) -> bool:
        """Whether anybody needs it."""
        return self._one("SELECT 1 FROM uses WHERE thing = ? LIMIT 1", thing) is not None

    # who is at work

    def leases(self) -> tuple[str, ...]:
        """Everybody who is, or was when he died, at work."""
        return self._column("SELECT id FROM leases ORDER BY started, id")

    def put_lease(self, lease: str) -> None:
        """Somebody is at work."""
        self._db.execute("INSERT INTO leases VALUES (?, ?)", (lease, _now()))

    def drop_lease(self, lease: str) -> None:
        """The work is done."""
        self._db.execute("DELETE FROM leases WHERE id = ?", (lease,))

    def doom(self, thing: str, lease: str) -> None:
        """`lease` is deleting this; whoever wants it has to wait."""
        self._db.execute("INSERT OR REPLACE INTO doomed VALUES (?, ?)", (thing, lease))

    def doomed_by(self, lease: str) -> tuple[str, ...]:
        """What this one is deleting."""
        return self._column("SELECT thing FROM doomed WHERE lease = ? ORDER BY thing", lease)

    def doomer_of(self, thing: str) -> str | None:
        """Who is deleting it, if anybody."""
        return self._one("SELECT lease FROM doomed WHERE thing = ?", thing)

    def spare(self, thing: str) -> None:
        """Nobody is deleting it any more: it is gone, or it stays."""
        self._db.execute("DELETE FROM doomed WHERE thing = ?", (thing,))

    def adopt_doomed(self, dead: str, heir: str) -> None:
        """Whatever the dead one was deleting is the other's to finish."""
        self._db.execute("UPDATE doomed SET lease = ? WHERE lease = ?", (heir, dead))

    # containers; their records are the upper floor's business

    def containers(self) -> tuple[str, ...]:
        """The records of all containers, the newest first."""
        return self._column("SELECT record FROM containers ORDER BY created DESC, id")

    def containers_on(self, image_id: str) -> tuple[tuple[str, str], ...]:
        """Id and name of each container made from this image."""
        return tuple(
            self._db.execute("SELECT id, name FROM containers WHERE image = ? ORDER BY created, id", (image_id,))
        )

    def container(self, name: str) -> str | None:
        """The record of the container with this name or whole id."""
        return self._one("SELECT record FROM containers WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 LIMIT 1", name)

    def containers_beginning(self, prefix: str) -> tuple[str, ...]:
        """The records of containers whose id begins so; `prefix` is hexadecimal digits."""
        return self._column("SELECT record FROM containers WHERE id GLOB ? ORDER BY id", f"{prefix}*")

    def put_container(self, row: tuple[str, str, str, str, str], record: str) -> None:
        """Record a container: (id, name, image, driver, created), and its record."""
        self._db.execute("INSERT OR REPLACE INTO containers VALUES (?, ?, ?, ?, ?, ?)", (*row, record))

    def drop_container(self, container_id: str) -> tuple[str, ...]:
        """Forget a container; what it stood on."""
        self._db.execute("DELETE FROM containers WHERE id = ?", (container_id,))
        return self.let_go(f"container {container_id}")

    def _layers(self, image_id: str) -> list[tuple[str, str, str, str, int, int]]:
        return self._db.execute(
            "SELECT diff_id, chain_id, blob, media_type, blob_size, size FROM layers WHERE image = ? ORDER BY position",
            (image_id,),
        ).fetchall()

    def _familiar(self, query: str, *arguments: str) -> tuple[str, ...]:
        return tuple(parse(name).familiar for name in self._column(query, *arguments))

    def _column(self, query: str, *arguments: str) -> tuple[str, ...]:
        return tuple(value for (value,) in self._db.execute(query, arguments))

    def _one(self, query: str, *arguments: str) -> str | None:
        row: tuple[str] | None = self._db.execute(query, arguments).fetchone()
        return None if row is None else row[0]


def _tag_range(reference: Reference) -> tuple[str, str]:
    """Between these two lie exactly the repository's tags: `;` is the character after `:`."""
    return f"{reference.repository}:", f"{reference.repository};"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")

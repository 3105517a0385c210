"""What the plain listings show, read from the catalog without the records of the house. Light: SQLite, and no more."""

from __future__ import annotations

import os
import sqlite3

from lamina.images.familiar import repository_and_tag

TYPE_CHECKING = False  # typing takes longer to import than a listing to print
if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = "images.db"
VERSION = 1

ImageLine = tuple[str, str, str, "str | None", int]  # repository, tag, id, created in ISO 8601, bytes


class Unknown(Exception):  # no error, but an answer
    """The catalog is not as we know it: ask those who can tell what is the matter."""


def opened(root: str) -> sqlite3.Connection | None:
    """The catalog of a store, to be read at one moment, or None if nothing was ever brought in."""
    path = f"{root}/{FILE}"
    if not os.path.exists(path):
        if os.path.exists(root) and not os.path.isdir(root):
            raise Unknown
        return None
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN")
    if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
        db.close()
        raise Unknown
    return db


def image_lines(db: sqlite3.Connection) -> Iterator[ImageLine]:
    """A line for each name of each image, or for the image itself; the newest first, those without a date last."""
    names, digests = _names(db, "names"), _names(db, "digests")
    query = "SELECT id, created, size FROM images ORDER BY created IS NULL, created DESC, id"
    for image, created, size in db.execute(query):
        for name in names.get(image) or digests.get(image) or ():
            yield (*repository_and_tag(name), image, created, size)
        if image not in names and image not in digests:
            yield ("<none>", "<none>", image, created, size)


def container_records(db: sqlite3.Connection) -> list[str]:
    """The records of all containers, the newest first."""
    return [record for (record,) in db.execute("SELECT record FROM containers ORDER BY created DESC, id")]


def _names(db: sqlite3.Connection, table: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for image, name in db.execute(f"SELECT image, name FROM {table} ORDER BY name"):  # noqa: S608  # two constants
        found.setdefault(image, []).append(name)
    return found

"""The file of the catalog: made, opened, and told from one that is broken or too new."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lamina.errors import NoSpace, StoreBroken
from lamina.images.brief import VERSION
from lamina.journal import journal_for
from lamina.reserve import is_full

_PATIENCE: Final = 60.0  # seconds to wait for another process; every transaction is short


def open_catalog(path: Path) -> sqlite3.Connection:
    """The database at `path`, made if there is none. StoreBroken if it is damaged, or newer than this version."""
    db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        path.chmod(0o600)
        db.execute(f"PRAGMA journal_mode = {journal_for(path.parent)}")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        _prepare(db)
    except sqlite3.DatabaseError as error:
        db.close()
        if is_full(path.parent):
            raise NoSpace(f"{path.parent}: no space left to open the database with") from error
        raise StoreBroken(f"{path} cannot be read: {error}") from error
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    if _version(db) == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    if (version := _version(db)) > VERSION:
        db.execute("ROLLBACK")
        raise StoreBroken(f"images.db has version {version}; this lamina understands up to {VERSION}: use a newer one")
    if version == 0:  # another process may have made the tables while we waited
        for statement in _statements():
            db.execute(statement)
    db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def _statements() -> Iterator[str]:
    # not executescript: it would commit our transaction
    statement = ""
    for line in Path(__file__).with_name("images.sql").read_text("utf-8").splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""

"""The database: one file, one connection for each thread, short transactions that hold or do not.

What is in it: rows.py, mountrows.py. Nothing slow ever happens inside a transaction; what takes time happens between
two of them, and the row's step remembers what was being done when the power failed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from lamina.errors import InUse, LaminaError, NoSpace, StoreBroken
from lamina.journal import Journal, journal_for
from lamina.reserve import Reserve, is_full

VERSION: Final = 2
Flush = Literal["OFF", "NORMAL", "FULL"]

_PATIENCE: Final = 60.0  # seconds to wait for another process; transactions take microseconds
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class _Cursor(sqlite3.Cursor):
    """One whose errors are ours."""

    connection: _Connection

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except sqlite3.DatabaseError as error:
            raise _explained(error, self.connection.path) from error

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except sqlite3.DatabaseError as error:
            raise _explained(error, self.connection.path) from error


class _Connection(sqlite3.Connection):
    """One that knows how it flushes, and whose errors are ours."""

    path: Path
    flush: Flush | None = None

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        try:
            return sqlite3.Cursor.execute(self.cursor(_Cursor), *arguments)
        except sqlite3.DatabaseError as error:
            raise _explained(error, self.path) from error


class _Holder:
    """Closes a connection when the thread that used it is gone; SQLite's own reference cycles would take their time."""

    def __init__(self, connection: _Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class Metadata:
    """One store's database."""

    def __init__(self, path: Path, *, lasting: Flush = "FULL", passing: Flush = "NORMAL") -> None:
        """Remember; `start` opens.

        `lasting` says how transactions reach the disk that a power cut must not undo, `passing` how the others do.
        """
        self._path = path
        self.reserve = Reserve(path.with_name("reserve"))
        self._lasting = lasting
        self._passing = passing
        self._guard = threading.Lock()
        self._started = False
        self._journal: Journal | None = None
        self._forget()

    def _forget(self) -> None:
        self._local = threading.local()
        self._process = os.getpid()
        self._all: weakref.WeakSet[_Holder] = weakref.WeakSet()

    def start(self) -> None:
        """The tables are there, in our form. Raises StoreBroken for a damaged file, or one from a newer version."""
        self.reserve.spend()  # also what is only opened makes files
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._started = True
        connection = self._connection()
        version = _version(connection)
        if version > VERSION:
            raise StoreBroken(
                f"{self._path}: written by a newer lamina (format {version}, this one knows {VERSION}); "
                "use that one, or another root"
            )
        self._journal = journal_for(self._path.parent)
        self._keep_journal(connection)
        if version == 0:
            with self.change(lasting=True):
                if _version(connection) == 0:  # nobody was quicker
                    _create(connection)
            _sync_directories(self._path.parent)
        if version == 1:
            with self.change(lasting=True):
                if _version(connection) == 1:
                    _add_rooted(connection)
        self.reserve.keep()

    def close(self) -> None:
        """Close the connections of all threads. Repeating it is harmless."""
        was_started, self._started = self._started, False
        with self._guard:
            holders = [] if self._process != os.getpid() else list(self._all)
            self._forget()
        for holder in holders:
            holder.connection.close()
        if was_started:
            self.reserve.keep()  # what was opened on a full disk had to spend it

    def read(self) -> sqlite3.Connection:
        """A connection to read with; each statement sees one moment."""
        return self._connection()

    @contextlib.contextmanager
    def change(self, *, lasting: bool = False, freeing: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction that holds when the `with` ends, or has not happened if that raises.

        `lasting`: it also survives a power cut. `freeing`: it makes room, so on a full disk the reserve is spent on it.
        NoSpace when there is no room to write it down.
        """
        connection = self._connection()
        if freeing:
            self.reserve.spend()
        elif self._journal == "TRUNCATE" and is_full(self._path.parent):
            # half of a transaction must not fit: nobody could read before there is room to take it back
            raise _no_room(self._path)
        self._set_flush(connection, self._lasting if lasting else self._passing)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite itself has rolled back if the disk is full
                connection.execute("ROLLBACK")
            raise

    def _connection(self) -> _Connection:
        if self._process != os.getpid():
            self._abandon()
        if not self._started:
            raise RuntimeError(f"{self._path}: the store is not open; use it in a `with`")
        holder: _Holder | None = getattr(self._local, "holder", None)
        if holder is None:
            self._local.holder = holder = _Holder(self._open())
            with self._guard:
                self._all.add(holder)
        return holder.connection

    def _open(self) -> _Connection:
        # several threads may close it in the end, but only one ever uses it
        try:
            connection = sqlite3.connect(
                self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False, factory=_Connection
            )
        except sqlite3.DatabaseError as error:
            raise _explained(error, self._path) from error
        connection.path = self._path
        connection.execute("PRAGMA foreign_keys=ON")
        self._keep_journal(connection)
        return connection

    def _keep_journal(self, connection: _Connection) -> None:
        """Only the log is noted in the file itself; the other one each connection has to be told of."""
        if self._journal is not None:
            connection.execute(f"PRAGMA journal_mode={self._journal}")

    def _abandon(self) -> None:
        """We are a forked child: our parent's connections are neither to be used nor to be closed."""
        _abandoned.append((self._local, list(self._all)))
        self._guard = threading.Lock()
        self._forget()

    def _set_flush(self, connection: _Connection, flush: Flush) -> None:
        if connection.flush != flush:
            connection.execute(f"PRAGMA synchronous={flush}")
            connection.flush = flush


_abandoned: list[object] = []


def _explained(error: sqlite3.DatabaseError, path: Path) -> LaminaError:
    """What SQLite says as one of ours, with what to do about it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the extended codes refine the last byte
    # why writing failed SQLite does not tell of all system calls
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and is_full(path.parent)):
        return _no_room(path)
    if code == sqlite3.SQLITE_BUSY:
        return InUse(f"{path}: another process holds the database; try again")
    if code in _DAMAGED:
        return StoreBroken(
            f"{path}: the database is damaged ({error}); restore it from a backup, or move {path.parent} away and "
            "load the images again"
        )
    return StoreBroken(f"{path}: {error}")


def _no_room(path: Path) -> NoSpace:
    return NoSpace(f"{path.parent}: no space left to note what was asked for")


def _sync_directories(room: Path) -> None:
    """The names of a new store survive a power cut; SQLite takes care of what lies inside."""
    for directory in (room, room.parent, room.parent.parent):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _create(connection: sqlite3.Connection) -> None:
    script = Path(__file__).with_name("schema.sql").read_text(encoding="utf-8")
    lines = (line.partition("--")[0] for line in script.splitlines())
    for statement in " ".join(lines).split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version={VERSION}")


def _add_rooted(connection: sqlite3.Connection) -> None:
    """Format 1 knew nothing of layers that can have no parent any more."""
    connection.execute("ALTER TABLE snapshots ADD COLUMN rooted INTEGER NOT NULL DEFAULT 0 CHECK (rooted IN (0, 1))")
    connection.execute(f"PRAGMA user_version={VERSION}")

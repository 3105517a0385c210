"""Open a store, alone or beside others, and close it again."""

from __future__ import annotations

from pathlib import Path

from lamina import mountrows, rows
from lamina.errors import Unhealthy
from lamina.locks import RootLock
from lamina.recovery import recover
from lamina.store import Store, lacks_room


def open_store(store: Store) -> tuple[RootLock, tuple[str, ...]]:
    """The store is there and sound; the lock that says we have it open, and what the dead had left undone."""
    lock = _enter(store)
    try:
        store.meta.start()
        store.ask(store.driver.start)
        told = recover(store, alone=lock.alone)
        lock.share()
    except BaseException:
        store.meta.close()
        lock.close()
        raise
    return lock, told


def close_store(store: Store, lock: RootLock) -> None:
    """Let go of the database, and of the driver's servers and devices if nobody else can need them."""
    try:
        if lock.try_alone():
            _let_go(store)
    finally:
        store.meta.close()
        lock.close()


def _let_go(store: Store) -> None:
    """Nobody else has the store open. What a driver keeps up for layers that nobody sees, goes; the dead's, too."""
    connection = store.meta.read()
    if store.lent and rows.is_any_mountable(connection):
        return
    if not mountrows.is_any(connection):
        store.ask(store.driver.stop)
        return
    for layer_id in mountrows.unseen(connection):
        store.ask(store.driver.release, layer_id)


def _enter(store: Store) -> RootLock:
    room = store.room
    try:
        _make(room.parent, 0o711)  # what is mounted for users must be reachable
        _make(room, 0o711)
        _make(room / "mnt", 0o700)  # what we look at must not: images hold setuid programs
        return RootLock(room / "lock")
    except OSError as error:
        if lacks_room(error):
            raise store.explained(error, "start", None) from error
        owner = "be its owner, or " if isinstance(error, PermissionError) else ""
        why = f"{error.filename or room}: {error.strerror}; {owner}choose another root"
        raise Unhealthy(store.driver.name, [why]) from error


def _make(directory: Path, mode: int) -> None:
    if not directory.is_dir():
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
        directory.chmod(mode)  # whatever the umask says

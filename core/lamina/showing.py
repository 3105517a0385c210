"""Show layers at places: mounts for users, counted and remembered, and looks for ourselves."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from lamina import mountrows, rows, syscalls
from lamina.errors import BadRequest, InUse, NotFound
from lamina.layer import Kind, Layer
from lamina.mount import Mount, depth_of, may_mount, mount_all, unmount
from lamina.mountrows import Place
from lamina.rows import Row
from lamina.store import Store

# what users asked for; the snapshot's lock is held


def show(store: Store, row: Row, target: Path) -> Path:
    """The snapshot is to be seen at `target`, and the database knows; returns the target as it knows it.

    Raises InUse if the target shows another snapshot; then, and when mounting fails, nothing has changed.
    """
    target = _checked(target)
    with store.locks.hold_target(target):
        taken = mountrows.on_target(store.meta.read(), target)
        if taken is not None and taken.live:
            _again(store, row, taken)
            return target
        if taken is not None:
            _drop(store, taken)
        _show_first(store, row, target)
    return target


def _show_first(store: Store, row: Row, target: Path) -> None:
    source = _shown_at(store, row)
    mounts = () if source else store.ask(store.driver.mounts, store.layer_of(row))
    depth = depth_of(mounts) if mounts else 1
    below = mountrows.mounts_on(target)
    place = Place(target, row.id, 1, depth, below, mountrows.this_boot(), mountrows.namespace())
    with store.meta.change() as connection:
        mountrows.put(connection, place)
    try:
        _mount(store, row, source, mounts, target)
    except BaseException:
        with store.meta.change(freeing=True) as connection:
            mountrows.drop(connection, place)
        raise


def _checked(target: Path) -> Path:
    found = os.path.realpath(target)
    if not os.path.isdir(found):
        raise BadRequest(f"{target}: not a directory; make it before something is mounted there")
    if "\0" in found or found == "/":
        raise BadRequest(f"{target}: cannot be mounted on")
    return Path(found)


def _again(store: Store, row: Row, taken: Place) -> None:
    if taken.snapshot != row.id:
        raise InUse(f"{taken.target}: another snapshot is mounted there; unmount it first")
    if not taken.here:
        raise InUse(f"{taken.target}: {row.name!r} is mounted there in another mount namespace")
    with store.meta.change() as connection:
        mountrows.put(connection, attrs.evolve(taken, count=taken.count + 1))


def _shown_at(store: Store, row: Row) -> Path | None:
    """A place of this namespace where the layer can be seen: one file system must not be mounted twice."""
    connection = store.meta.read()
    if not rows.is_tied(connection, row.id):
        return None
    for place in live_places(store, row.id):
        if place.here:
            return place.target
        raise InUse(f"snapshot {row.name!r} is mounted in another mount namespace, at {place.target}")
    for look in rows.children(connection, row.id):
        if look.step == rows.LOOKING and mountrows.mounts_on(store.peephole(look.id)):
            return store.peephole(look.id)
    return None


def _mount(store: Store, row: Row, source: Path | None, mounts: Sequence[Mount], target: Path) -> None:
    try:
        if source is None:
            mount_all(mounts, target)
        elif may_mount():
            _show_again(source, target, writable=row.kind is Kind.ACTIVE)
        else:
            raise InUse(f"snapshot {row.name!r} is mounted at {source}; only root can show it at two places")
    except OSError as error:
        raise store.explained(error, "mount", row.id) from error


def _show_again(source: Path, target: Path, *, writable: bool) -> None:
    """What is mounted on `source` is also to be seen at `target`, whichever of the two ends first."""
    tree = syscalls.open_tree(os.fsencode(source), recursive=True)
    try:
        _set_writable(tree, writable=writable)
        syscalls.move_mount(tree, os.fsencode(target))
    finally:
        os.close(tree)


def _set_writable(tree: int, *, writable: bool) -> None:
    """Whether one mount lets its users write; the file system and its other mounts stay as they are."""
    read_only = syscalls.MOUNT_ATTR_RDONLY
    if writable:
        syscalls.mount_setattr(tree, cleared=read_only, recursive=True)
    else:
        syscalls.mount_setattr(tree, attributes=read_only, recursive=True)


def live_places(store: Store, layer_id: int) -> list[Place]:
    """Where the snapshot is mounted now. Rows of mounts that are gone, or were never finished, are dropped."""
    live = []
    for place in mountrows.of_snapshot(store.meta.read(), layer_id):
        if place.live:
            live.append(place)
        else:
            drop(store, place)
    return live


def drop(store: Store, place: Place) -> None:
    """The row is gone, and so is what a killed process had mounted of several mounts."""
    with store.locks.hold_target(place.target):
        if mountrows.on_target(store.meta.read(), place.target) == place:
            _drop(store, place)


def _drop(store: Store, place: Place) -> None:
    if place.boot == mountrows.this_boot() and place.here and (left := place.above) > 0:
        unmount(place.target, times=left, lazy=True)
    with store.meta.change(freeing=True) as connection:
        mountrows.drop(connection, place)


def hide(store: Store, layer_id: int, target: Path) -> bool:
    """Undo one `show`; with the last one the mount goes. InUse while somebody works in it; then it stays.

    False if the snapshot is not mounted there, as far as we know.
    """
    with store.locks.hold_target(target):
        place = mountrows.on_target(store.meta.read(), target)
        if place is None or place.snapshot != layer_id:
            return False
        if not place.live:
            _drop(store, place)
        elif place.count > 1:
            with store.meta.change() as connection:
                mountrows.put(connection, attrs.evolve(place, count=place.count - 1))
        else:
            _unmount(store, place)
    release_unseen(store, layer_id)
    return True


def _unmount(store: Store, place: Place) -> None:
    if not place.here:
        raise InUse(f"{place.target}: is mounted in another mount namespace; unmount it there")
    if place.above > place.depth:
        raise InUse(f"{place.target}: something else is mounted over it; unmount that first")
    store.sync_if_full(place.target)
    try:
        unmount(place.target, times=place.depth)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise InUse(f"{place.target}: somebody works in it; try again when they have left") from error
        raise store.explained(error, "unmount", place.snapshot) from error
    with store.meta.change(freeing=True) as connection:
        mountrows.drop(connection, place)


def release_unseen(store: Store, layer_id: int) -> None:
    """Let the driver let go of a layer that is not to be seen anywhere any more."""
    if not store.lent and not rows.is_tied(store.meta.read(), layer_id):
        store.ask(store.driver.release, layer_id)


def refuse_mounted(store: Store, row: Row) -> None:
    """InUse, with the targets, while the snapshot is mounted."""
    if places := live_places(store, row.id):
        targets = ", ".join(str(place.target) for place in places)
        raise InUse(f"snapshot {row.name!r} is mounted at {targets}; unmount it first")


# for ourselves


@contextlib.contextmanager
def committed_shown(store: Store, row: Row) -> Iterator[Path]:
    """A committed snapshot at a place of ours, read-only: an unnamed view on top of it, gone at the end."""
    with store.begun(lambda connection: _say_look(connection, row)) as layer:
        try:
            store.ask(store.driver.prepare, layer)
            mounts = store.ask(store.driver.mounts, layer)
            with _peephole(store, layer.id) as place:
                _mount(store, row, None, mounts, place)
                yield place
        finally:
            store.forget(layer.id)


@contextlib.contextmanager
def live_look(store: Store, row: Row) -> Iterator[int]:
    """A row that keeps an active snapshot or a view from going away; its id. Its own lock is held meanwhile."""
    with store.begun(lambda connection: _say_look(connection, row)) as look:
        try:
            yield look.id
        finally:
            with store.locks.hold(row.id):
                clear_peephole(store, look.id)
                with store.meta.change(freeing=True) as connection:
                    rows.delete(connection, look.id)
                release_unseen(store, row.id)


def open_peephole(store: Store, row: Row, number: int, *, writable: bool) -> Path:
    """An active snapshot or a view as it is now, at a place of ours, which the caller clears. Its lock is held.

    Where an ordinary user has mounted it already, that is the place, and it stays when ours is cleared.
    """
    source = _shown_at(store, row)
    if source is not None and not may_mount():
        return source  # since we cannot show it once more
    mounts = () if source else store.ask(store.driver.mounts, store.layer_of(row))
    place = store.peephole(number)
    closed = not writable and row.kind is Kind.ACTIVE
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        if closed and not may_mount():
            mounts = tuple(
                attrs.evolve(each, options=("ro", *each.options)) for each in mounts
            )  # cannot be changed later
        _mount(store, row, source, mounts, place)
        if closed and may_mount():
            _make_read_only(place)
    except OSError as error:
        raise store.explained(error, "mount", row.id) from error
    return place


@contextlib.contextmanager
def _peephole(store: Store, number: int) -> Iterator[Path]:
    place = store.peephole(number)
    try:
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise store.explained(error, "look", number) from error
    try:
        yield place
    finally:
        clear_peephole(store, number)


def clear_peephole(store: Store, number: int) -> None:
    """Nothing is mounted at our place of that number, and it is gone. Whoever still works in it may finish."""
    place = store.peephole(number)
    if times := mountrows.mounts_on(place):
        unmount(place, times=times, lazy=True)
    with contextlib.suppress(FileNotFoundError):
        place.rmdir()


def _make_read_only(place: Path) -> None:
    tree = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _set_writable(tree, writable=False)
    finally:
        os.close(tree)


def _say_look(connection: sqlite3.Connection, row: Row) -> Layer:
    now = rows.by_id(connection, row.id)
    if now is None or now.hidden:
        raise NotFound(f"no snapshot {row.name!r}")
    look = rows.insert_look(connection, row.id, os.urandom(8).hex())
    return Layer(look, Kind.VIEW, rows.ancestors(connection, row.id))

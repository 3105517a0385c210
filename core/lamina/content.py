"""What is in a layer: differences to its parent, layer tars out and in, and how much it occupies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import attrs

from lamina import rows
from lamina.driver import NativeDiff, StoresChanges
from lamina.errors import LaminaError, NeedsParent
from lamina.layer import Kind, Layer
from lamina.recovery import empty, leave_half
from lamina.rows import Row
from lamina.showing import clear_peephole, live_places, open_peephole
from lamina.store import Store

if TYPE_CHECKING:
    from lamina.changes import Change, ChangesTree


@attrs.frozen
class Applied:
    """What was unpacked: digest of the tar itself, digest and size of the input as it was given."""

    diff_id: str
    digest: str
    size: int


# out


def compare(store: Store, layer: Layer, old: int | None, new: int) -> Iterator[Change]:
    """What differs between the open parent and the open layer, in the quickest way that the driver knows."""
    if layer.kind is Kind.VIEW:
        return iter(())  # nobody can write to it
    from lamina import diff  # noqa: PLC0415  # imports that a listing does without

    if isinstance(store.driver, StoresChanges):
        return diff.compare_changes(old, store.ask(store.driver.changes, layer))
    if isinstance(store.driver, NativeDiff) and old is not None:
        candidates = store.ask(store.driver.diff, layer)
        if candidates is not None:
            return diff.compare_paths(old, new, candidates)
    return diff.compare(old, new)


@contextlib.contextmanager
def opened_tree(root: Path) -> Iterator[int]:
    """A directory as a descriptor."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# in


@attrs.frozen
class _Unpacked:
    applied: Applied
    roots: bool  # whether removals were carried out, and so would not hide what a later parent holds


def apply(store: Store, row: Row, tar: BinaryIO, *, alone: bool) -> Applied:
    """The active layer holds what the tar says on top of what it held. The caller holds its lock.

    When this raises, a layer that was empty before is empty again; one that had content has kept it, except where the
    tar had already replaced or removed it.
    """
    was_empty = _is_empty(store, row)
    step = rows.FILLING if was_empty else rows.APPLYING
    with store.meta.change() as connection:
        rows.set_step(connection, row.id, rows.READY, step)
    row = attrs.evolve(row, step=step)
    try:
        unpacked = _unpack(store, row, tar, alone=alone)
        store.sync_if_full()
    except BaseException:
        _back_out(store, row)
        raise
    with store.meta.change() as connection:
        if unpacked.roots:
            rows.set_rooted(connection, row.id)
        rows.set_step(connection, row.id, step, rows.READY)
    return unpacked.applied


def _back_out(store: Store, row: Row) -> None:
    with contextlib.suppress(LaminaError):  # what cannot be undone now is settled when the layer is next asked for
        if row.step == rows.FILLING:
            empty(store, row)
        else:
            leave_half(store, row)


def _is_empty(store: Store, row: Row) -> bool:
    """Whether nothing was written to the layer since it was prepared; False where only a walk could tell."""
    layer = store.layer_of(row)
    if live_places(store, row.id) or rows.children(store.meta.read(), row.id):
        return False
    if isinstance(store.driver, StoresChanges):
        return _holds_nothing(store.ask(store.driver.changes, layer))
    if row.parent is not None:
        return False
    mounts = store.ask(store.driver.mounts, layer)
    return all(mount.type == "bind" for mount in mounts) and not os.listdir(mounts[-1].source)


def _holds_nothing(tree: ChangesTree) -> bool:
    """Whether nothing was written there but the bookkeeping of a union that is mounted."""
    with opened_tree(tree.root) as root:
        names = map(os.fsencode, os.listdir(root))
        return all(map(tree.whiteouts.is_private_name, names)) and not tree.whiteouts.is_opaque(root)


def _unpack(store: Store, row: Row, tar: BinaryIO, *, alone: bool) -> _Unpacked:
    tree = _direct_tree(store, row)
    if tree is None or (row.parent is not None and not tar.seekable()):
        return _merged(store, row, tar)  # only there the parent can be asked
    store.ask(store.driver.release, row.id)  # a server would not notice what changes below it
    start = tar.tell() if tar.seekable() else 0
    try:
        return _direct(store, row, tar, tree, base=row.parent is None and not alone)
    except NeedsParent:
        if row.parent is None:
            raise
    if row.step == rows.FILLING:
        _start_again(store, row)
    tar.seek(start)
    return _merged(store, row, tar)


def _start_again(store: Store, row: Row) -> None:
    store.ask(store.driver.release, row.id)
    store.ask(store.driver.prepare, store.layer_of(row))


def _direct_tree(store: Store, row: Row) -> ChangesTree | None:
    """Where the layer can be written to without a mount: not while somebody has it mounted."""
    if not isinstance(store.driver, StoresChanges) or row.step != rows.FILLING:
        return None
    return store.ask(store.driver.changes, store.layer_of(row))


def _direct(store: Store, row: Row, tar: BinaryIO, tree: ChangesTree, *, base: bool) -> _Unpacked:
    from lamina.archive import apply_direct  # noqa: PLC0415

    with _reading(store, row, tar) as layer:
        removes = apply_direct(layer, tree, base=base)
        return _Unpacked(_applied(layer), removes and base)


def _merged(store: Store, row: Row, tar: BinaryIO) -> _Unpacked:
    from lamina.archive import apply_merged  # noqa: PLC0415

    place = open_peephole(store, row, row.id, writable=True)
    try:
        with _reading(store, row, tar) as layer:
            removes = apply_merged(layer, place)
            return _Unpacked(_applied(layer), removes and row.parent is None)
    finally:
        clear_peephole(store, row.id)


@contextlib.contextmanager
def _reading(store: Store, row: Row, tar: BinaryIO) -> Iterator[BinaryIO]:
    from lamina.compression import LayerReader  # noqa: PLC0415

    try:
        with LayerReader(tar) as layer:
            yield cast("BinaryIO", layer)
    except OSError as error:
        raise store.explained(error, "apply", row.id) from error


def _applied(layer: BinaryIO) -> Applied:
    from lamina.compression import LayerReader  # noqa: PLC0415

    assert isinstance(layer, LayerReader)  # noqa: S101
    layer.drain()
    return Applied(layer.diff_id, layer.digest, layer.size)

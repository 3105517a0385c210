"""The ten public verbs, and the only door to the drivers.

Every verb that changes something says what it is going to do, does it, and notes that it was done: two short
transactions, and the driver's work between them, outside of any. docs/crash-safety.md tells the story step by step.
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, Self, TypeVar

from lamina import mountrows, rows
from lamina.commits import complete_commit
from lamina.content import Applied, apply, compare, opened_tree
from lamina.driver import Ability, Driver, Health, StoresChanges
from lamina.durability import Durability
from lamina.errors import AlreadyExists, BadRequest, InUse, LaminaError, NotFound
from lamina.events import Event
from lamina.filters import choose
from lamina.layer import Kind, Usage
from lamina.locks import LayerLocks, RootLock
from lamina.metadata import Metadata
from lamina.mount import Mount
from lamina.names import check_label, check_labels, check_name
from lamina.recovery import recover, settle, settle_the_dead
from lamina.rows import Row
from lamina.rules import parent_id, refuse_kind, say_commit, say_new, say_remove
from lamina.showing import committed_shown, hide, live_look, open_peephole, refuse_mounted, show
from lamina.snapshot import Snapshot
from lamina.store import Store

if TYPE_CHECKING:
    from lamina.changes import Change
    from lamina.config import Config

__all__ = ["KEEP", "Applied", "Snapshotter", "open_snapshotter"]


class _Keep(enum.Enum):
    KEEP = "the parent that it was prepared on"


KEEP: Final = _Keep.KEEP
_MOUNTABLE: Final = (Kind.ACTIVE, Kind.VIEW)

T = TypeVar("T")
Observer = Callable[[Event], object]


def _silent(event: Event) -> None:
    """Tell nobody."""


class Snapshotter:
    """The snapshots of one driver in one root. Use it in a `with`; many threads and processes may at once."""

    def __init__(
        self,
        root: Path,
        driver: Driver,
        durability: Durability | str = Durability.ORDERED,
        *,
        observer: Observer = _silent,
    ) -> None:
        """Remember; `start` acts. `driver` has its home in `root/NAME/layers`."""
        room = Path(root) / driver.name
        durability = Durability.of(durability)
        lasting, passing = durability.flushes
        meta = Metadata(room / "metadata.db", lasting=lasting, passing=passing)
        self._root = Path(root)
        self._store = Store(room, driver, meta, LayerLocks(room / "layers.lock"), durability)
        self._lock: RootLock | None = None
        self._observer = observer
        self.recovered: tuple[str, ...] = ()

    # opening and closing

    def start(self) -> None:
        """The store is there and sound; `recovered` tells what the dead had left undone."""
        room = self._store.room
        for directory in (self._root, room):
            if not directory.is_dir():
                directory.mkdir(mode=0o711, parents=True, exist_ok=True)
                directory.chmod(0o711)  # whatever the umask says: mounts below must be reachable
        lock = RootLock(room / "lock")
        try:
            self._store.meta.start()
            self._store.ask(self._store.driver.start)
            self.recovered = recover(self._store, alone=lock.alone)
            lock.share()
        except BaseException:
            self._store.meta.close()
            lock.close()
            raise
        self._lock = lock

    def close(self) -> None:
        """Let go of the driver's servers and of the database; what was mounted stays. Repeating it is harmless."""
        if self._lock is None:
            return
        try:
            self._store.ask(self._store.driver.stop)
        finally:
            self._store.meta.close()
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        if self._lock is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # what it is

    @property
    def driver(self) -> Driver:
        """Who stores the layers."""
        return self._store.driver

    @property
    def root(self) -> Path:
        """Where everything lies."""
        return self._root

    @property
    def union(self) -> bool:
        """Whether layers are stored as changes, so that each can be unpacked without its parent."""
        return isinstance(self._store.driver, StoresChanges)

    def can(self, ability: Ability) -> bool:
        """Whether the driver does not name this ability as lacking."""
        return ability not in self._store.driver.cannot

    def health(self) -> Health:
        """Whether the driver can be used on this machine."""
        return self._store.driver.health()

    # a snapshot's life

    def prepare(
        self, key: str, parent: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Mount, ...]:
        """A new active snapshot that shows what its parent shows; the mounts to write to it.

        Raises AlreadyExists, NotFound or WrongKind (of the parent); when this raises, there is no such snapshot.
        """
        return self._new("prepare", Kind.ACTIVE, key, parent, labels)

    def view(self, key: str, parent: str | None = None, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """A new view: as `prepare`, but nobody can write to it, and it is never committed."""
        return self._new("view", Kind.VIEW, key, parent, labels)

    def commit(
        self,
        name: str,
        key: str,
        *,
        parent: str | Literal[_Keep.KEEP] | None = KEEP,
        labels: Mapping[str, str] | None = None,
    ) -> Snapshot:
        """Freeze an active snapshot: it is called `name` from now on and may have children; `key` is free again.

        A `parent` other than the one it was prepared on needs Ability.REBASE. The labels are these; those of the active
        snapshot go with its key. InUse while it is mounted; when this raises, the snapshot is active as before.
        """
        check_name(name)
        labels = check_labels(labels)
        with self._held(key) as row:
            refuse_kind(row, wanted=(Kind.ACTIVE,), because="only an active one can be committed")
            refuse_mounted(self._store, row)
            begun = self._say_commit(row, name, parent, labels)
            try:
                complete_commit(self._store, begun)
            except BaseException:
                self._forget_commit(begun)
                raise
            committed = rows.by_id(self._store.meta.read(), row.id)
        assert committed is not None  # noqa: S101  # its lock was ours
        self._tell(Event("commit", name, self.driver.name, key))
        return committed.snapshot

    def remove(self, key: str) -> None:
        """The snapshot is gone and its space free. InUse while it has children or is mounted; then it is untouched.

        If the driver fails on the way, nobody can use the snapshot any more, but its name stays taken: remove it again.
        """
        with self._held(key, also_removing=True) as row:
            refuse_mounted(self._store, row)
            self._say_remove(row)
            self._store.forget(row.id)
        self._store.meta.keep_reserve()
        self._tell(Event("remove", key, self.driver.name))

    # seeing it

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """How to mount an active snapshot or a view, for callers who mount by themselves."""
        with self._held(key) as row:
            refuse_kind(row, wanted=_MOUNTABLE, because="make a view of it first")
            return self._store.ask(self.driver.mounts, rows.layer_of(self._store.meta.read(), row))

    def mount(self, key: str, target: Path) -> None:
        """An active snapshot or a view is to be seen at `target`, an existing directory, also after this process ends.

        Mounting it there once more is counted; mounting it elsewhere shows the same tree twice.
        """
        with self._held(key) as row:
            refuse_kind(row, wanted=_MOUNTABLE, because="make a view of it first")
            place = show(self._store, row, Path(target))
        self._tell(Event("mount", key, self.driver.name, str(place)))

    def unmount(self, target: Path) -> None:
        """Undo one `mount`. NotFound if we have mounted nothing there; InUse while somebody works in it.

        What was unmounted by somebody else, or by a reboot, is forgotten without a word.
        """
        place = Path(os.path.realpath(target))
        while True:
            connection = self._store.meta.read()
            known = mountrows.on_target(connection, place)
            row = None if known is None else rows.by_id(connection, known.snapshot)
            if row is None:
                raise NotFound(f"{target}: nothing of this store is mounted there")
            with self._store.locks.hold(row.id):
                if hide(self._store, row, place):
                    break
        self._tell(Event("unmount", row.name, self.driver.name, str(place)))

    @contextlib.contextmanager
    def look(self, key: str) -> Iterator[Path]:
        """Any snapshot as a read-only directory, for the length of a `with`; meanwhile it cannot be removed."""
        row = rows.visible(self._store.meta.read(), key)
        if row.kind is Kind.COMMITTED:
            with committed_shown(self._store, row) as place:
                yield place
            return
        with contextlib.ExitStack() as stack:
            with self._held(key) as row:
                look = stack.enter_context(live_look(self._store, row))
                place = open_peephole(self._store, row, look, writable=False)
            yield place

    # knowing it

    def stat(self, key: str) -> Snapshot:
        """What is known of a snapshot; NotFound."""
        return rows.visible(self._store.meta.read(), key).snapshot

    def list(self, *filters: str) -> Iterator[Snapshot]:
        """The snapshots that match any of the filters, or all, as of this moment; the oldest first. See filters.py."""
        chosen = choose(filters)
        snapshots = [row.snapshot for row in rows.everything(self._store.meta.read())]
        return (one for one in snapshots if chosen(one))

    def label(self, key: str, labels: Mapping[str, str | None]) -> Snapshot:
        """Set these labels, and take away those whose value is None; the others stay."""
        for name, value in labels.items():
            check_label(name, value or "")
        with self._store.meta.change(lasting=True) as connection:
            row = rows.visible(connection, key)
            merged: dict[str, str | None] = {**row.labels, **labels}
            rows.set_labels(connection, row.id, {name: text for name, text in merged.items() if text is not None})
            snapshot = rows.visible(connection, key).snapshot
        self._tell(Event("label", key, self.driver.name))
        return snapshot

    def usage(self, key: str) -> Usage:
        """What the snapshot occupies without its parents: as noted at commit, or measured now."""
        row = rows.visible(self._store.meta.read(), key)
        if row.usage is not None:
            return row.usage
        usage = self._store.measure(rows.layer_of(self._store.meta.read(), row))
        if usage is not None:
            return usage
        from lamina.trees import measure_tree  # noqa: PLC0415  # a listing measures nothing

        with self.look(key) as root:
            return measure_tree(root)

    # its content

    def changes(self, key: str) -> Iterator[Change]:
        """What differs from its parent, in the canonical order (docs/decisions/canonical-diff.md)."""
        with self._compared(key) as (_, changes):
            yield from changes

    def diff(self, key: str, out: BinaryIO) -> None:
        """Write the differences as a layer tar: uncompressed, and the same bytes for the same trees."""
        from lamina.archive import write_layer  # noqa: PLC0415  # the tar machinery: not for a listing

        with self._compared(key) as (root, changes):
            write_layer(root, changes, out)

    def apply(self, key: str, tar: BinaryIO, *, alone: bool = False) -> Applied:
        """Unpack a layer tar, compressed or not, into an active snapshot.

        `alone`: the snapshot will get its parent only when it is committed; a tar that leans on it raises NeedsParent.
        When this raises, a snapshot that was empty is empty again; one with content has kept it except where the tar
        had already replaced it. Either may be used further, or removed.
        """
        with self._held(key) as row:
            refuse_kind(row, wanted=(Kind.ACTIVE,), because="only an active one can be written to")
            applied = apply(self._store, row, tar, alone=alone)
        self._tell(Event("apply", key, self.driver.name))
        return applied

    @contextlib.contextmanager
    def _compared(self, key: str) -> Iterator[tuple[int, Iterator[Change]]]:
        with contextlib.ExitStack() as stack:
            new = stack.enter_context(opened_tree(stack.enter_context(self.look(key))))
            row = rows.visible(self._store.meta.read(), key)
            old = None
            if row.parent_name is not None:
                old = stack.enter_context(opened_tree(stack.enter_context(self.look(row.parent_name))))
            layer = rows.layer_of(self._store.meta.read(), row)
            yield new, compare(self._store, layer, old, new)

    # how

    @contextlib.contextmanager
    def _held(self, key: str, *, also_removing: bool = False) -> Iterator[Row]:
        """The row of that name, ready, and nobody else at work on it; what the dead left undone is settled first."""
        store = self._store
        while True:
            row = rows.find(store.meta.read(), key)
            if row is None:
                raise NotFound(f"no snapshot {key!r}")
            with store.locks.hold(row.id):
                now = rows.by_id(store.meta.read(), row.id)
                if now is None or now.name != key:
                    continue
                if now.step == rows.READY or (also_removing and now.step == rows.REMOVING):
                    yield now
                    return
                settle(store, now)

    def _new(
        self, verb: str, kind: Kind, key: str, parent: str | None, labels: Mapping[str, str] | None
    ) -> tuple[Mount, ...]:
        check_name(key)
        labels = check_labels(labels)
        store = self._store
        with contextlib.ExitStack() as stack:
            layer_id = self._insisted(
                lambda: stack.enter_context(store.begun(lambda rows: say_new(rows, key, kind, parent, labels)))
            )
            try:
                mounts = self._make(layer_id)
            except BaseException:
                with contextlib.suppress(LaminaError):  # else it is settled when somebody asks for the key
                    store.forget(layer_id)
                raise
        self._tell(Event(verb, key, self.driver.name))
        return mounts

    def _make(self, layer_id: int) -> tuple[Mount, ...]:
        store = self._store
        row = rows.by_id(store.meta.read(), layer_id)
        assert row is not None  # noqa: S101  # its lock is ours
        layer = rows.layer_of(store.meta.read(), row)
        store.ask(store.driver.prepare, layer)
        mounts = store.ask(store.driver.mounts, layer)
        with store.meta.change() as connection:
            rows.set_step(connection, layer_id, rows.PREPARING, rows.READY)
        return mounts

    def _say_commit(
        self, row: Row, name: str, parent: str | Literal[_Keep.KEEP] | None, labels: Mapping[str, str]
    ) -> Row:
        def say() -> Row:
            with self._store.meta.change(lasting=True) as connection:
                below = row.parent
                if parent is not KEEP:
                    below = None if parent is None else parent_id(connection, parent)
                if below != row.parent and not self.can(Ability.REBASE):
                    raise BadRequest(f"{self.driver.name} cannot {Ability.REBASE.value}")
                return say_commit(connection, row, name, below, labels)

        return self._insisted(say)

    def _say_remove(self, row: Row) -> None:
        def say() -> None:
            # once its content is being taken away, a committed snapshot must not come back, not even after a power cut
            with self._store.meta.change(lasting=row.kind is Kind.COMMITTED, freeing=True) as connection:
                say_remove(connection, row)

        self._insisted(say)

    def _forget_commit(self, row: Row) -> None:
        with contextlib.suppress(LaminaError), self._store.meta.change(lasting=True, freeing=True) as connection:
            rows.forget_commit(connection, row.id)

    def _insisted(self, say: Callable[[], T]) -> T:
        """Say it; if something is in the way that the dead left behind, settle that and say it again."""
        try:
            return say()
        except (AlreadyExists, InUse):
            if not settle_the_dead(self._store):
                raise
        return say()

    def _tell(self, event: Event) -> None:
        with contextlib.suppress(Exception):  # whoever only watches breaks nothing
            self._observer(event)


def open_snapshotter(config: Config) -> Snapshotter:
    """The store that a config describes, with the driver that it chooses; to be used in a `with`."""
    from lamina.config import choose_driver  # noqa: PLC0415
    from lamina.plugins import tell_observers  # noqa: PLC0415

    choice = choose_driver(config)
    return Snapshotter(config.root, choice.driver, config.durability, observer=tell_observers)

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
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, Self

from lamina import mountrows, rows, verbs
from lamina.content import Applied, apply
from lamina.driver import Ability, Driver, Health, StoresChanges
from lamina.durability import Durability
from lamina.errors import NotFound
from lamina.events import Event
from lamina.filters import choose
from lamina.layer import Kind, Usage
from lamina.locks import LayerLocks, RootLock
from lamina.looking import compared, look, usage
from lamina.metadata import Metadata
from lamina.mount import Mount
from lamina.names import check_label, check_labels, check_name
from lamina.opening import close_store, open_store
from lamina.recovery import settle_the_dead
from lamina.rules import refuse_kind
from lamina.showing import hide, show
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
        self._lock, self.recovered = open_store(self._store)

    def lend(self) -> None:
        """From now on, in every process, the driver keeps up what `mounts` tells of until commit or remove.

        For an engine that mounts by itself: it never says when it has unmounted, and it outlives us.
        """
        self._store.lend()

    def settle(self) -> tuple[str, ...]:
        """Finish or undo what others left half done when they died, or could not do when they tried; each deed told."""
        return tuple(settle_the_dead(self._store))

    def close(self) -> None:
        """Let go of the database, and of the driver's servers if nobody needs them; what was mounted stays.

        Repeating it is harmless.
        """
        if self._lock is not None:
            lock, self._lock = self._lock, None
            close_store(self._store, lock)

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
        """Whether the driver does not name this ability as lacking here."""
        return ability not in self._store.driver.lacking()

    def health(self) -> Health:
        """Whether the driver can be used on this machine."""
        return self._store.driver.health()

    # a snapshot's life

    def prepare(
        self, key: str, parent: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Mount, ...]:
        """A new active snapshot that shows what its parent shows; the mounts to write to it.

        Raises AlreadyExists, NotFound or WrongParent; when this raises, there is no such snapshot.
        """
        mounts = verbs.make(self._store, Kind.ACTIVE, check_name(key), parent, check_labels(labels))
        self._tell("prepare", key)
        return mounts

    def view(self, key: str, parent: str | None = None, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """A new view: as `prepare`, but nobody can write to it, and it is never committed."""
        mounts = verbs.make(self._store, Kind.VIEW, check_name(key), parent, check_labels(labels))
        self._tell("view", key)
        return mounts

    def commit(
        self,
        name: str,
        key: str,
        *,
        parent: str | Literal[_Keep.KEEP] | None = KEEP,
        labels: Mapping[str, str] | None = None,
    ) -> Snapshot:
        """Freeze an active snapshot: it is called `name` from now on and may have children; `key` is free again.

        A `parent` other than the one it was prepared on needs Ability.REBASE; see also `apply`. The labels are these;
        those of the active snapshot go with its key. InUse while it is mounted; when this raises, the snapshot is
        active as before.
        """
        onto = None if parent is KEEP else verbs.Onto(parent)
        committed = verbs.commit(self._store, check_name(name), key, onto, check_labels(labels))
        self._tell("commit", name, key)
        return committed.snapshot

    def remove(self, key: str) -> None:
        """The snapshot is gone and its space free. InUse while it has children or is mounted; then it is untouched.

        If the driver fails on the way, nobody can use the snapshot any more, but its name stays taken: remove it again.
        """
        verbs.remove(self._store, key)
        self._tell("remove", key)

    # seeing it

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """How to mount an active snapshot or a view, for callers who mount by themselves."""
        with verbs.held(self._store, key) as row:
            refuse_kind(row, wanted=_MOUNTABLE, because="make a view of it first")
            return self._store.ask(self.driver.mounts, self._store.layer_of(row))

    def mount(self, key: str, target: Path) -> None:
        """An active snapshot or a view is to be seen at `target`, an existing directory, also after this process ends.

        Mounting it there once more is counted; mounting it elsewhere shows the same tree twice.
        """
        with verbs.held(self._store, key) as row:
            refuse_kind(row, wanted=_MOUNTABLE, because="make a view of it first")
            place = show(self._store, row, Path(target))
        self._tell("mount", key, str(place))

    def unmount(self, target: Path) -> None:
        """Undo one `mount`. NotFound if we have mounted nothing there; InUse while somebody works in it.

        What was unmounted by somebody else, or by a reboot, is forgotten without a word.
        """
        place = Path(os.path.realpath(target))
        while True:
            connection = self._store.meta.read()
            known = mountrows.on_target(connection, place)
            key = None if known is None else rows.name_of(connection, known.snapshot)
            if known is None or key is None:
                raise NotFound(f"{target}: nothing of this store is mounted there")
            with self._store.locks.hold(known.snapshot):
                if hide(self._store, known.snapshot, place):
                    break
        self._tell("unmount", key, str(place))

    def look(self, key: str) -> contextlib.AbstractContextManager[Path]:
        """Any snapshot as a read-only directory, for the length of a `with`; meanwhile it cannot be removed."""
        return look(self._store, key)

    # knowing it

    def stat(self, key: str) -> Snapshot:
        """What is known of a snapshot; NotFound."""
        return rows.visible(self._store.meta.read(), key).snapshot

    def list(self, *filters: str) -> Iterator[Snapshot]:
        """The snapshots that match any of the filters, or all, as of this moment; the oldest first. See filters.py."""
        chosen = choose(filters)
        snapshots = [row.snapshot for row in rows.everything(self._store.meta.read())]
        return (one for one in snapshots if chosen(one))

    def label(self, key: str, labels: Mapping[str, str | None], *, replace: bool = False) -> Snapshot:
        """Set these labels, and take away those whose value is None; the others stay, unless they are replaced."""
        for name, value in labels.items():
            check_label(name, value or "")
        with self._store.meta.change(lasting=True) as connection:
            row = rows.visible(connection, key)
            merged: dict[str, str | None] = {**({} if replace else row.labels), **labels}
            rows.set_labels(connection, row.id, {name: text for name, text in merged.items() if text is not None})
            snapshot = rows.visible(connection, key).snapshot
        self._tell("label", key)
        return snapshot

    def usage(self, key: str) -> Usage:
        """What the snapshot occupies without its parents: as noted at commit, or measured now."""
        return usage(self._store, key)

    # its content

    def changes(self, key: str) -> Iterator[Change]:
        """What differs from its parent, in the canonical order (docs/decisions/0009-canonical-diff.md)."""
        with compared(self._store, key) as (_, changes):
            yield from changes

    def diff(self, key: str, out: BinaryIO) -> None:
        """Write the differences as a layer tar: uncompressed, and the same bytes for the same trees."""
        from lamina.archive import write_layer  # noqa: PLC0415  # the tar machinery: not for a listing

        with compared(self._store, key) as (root, changes):
            write_layer(root, changes, out)

    def apply(self, key: str, tar: BinaryIO, *, alone: bool = False) -> Applied:
        """Unpack a layer tar, compressed or not, into an active snapshot.

        `alone`: the snapshot will get its parent only when it is committed; a tar that leans on it raises NeedsParent.
        Without `alone`, or where there was content before, a tar that removes something settles that a snapshot
        without a parent never gets one; so does one that was cut short on top of content.
        When this raises, a snapshot that was empty is empty again; one with content has kept it except where the tar
        had already replaced it. Either may be used further, or removed.
        """
        with verbs.held(self._store, key) as row:
            refuse_kind(row, wanted=(Kind.ACTIVE,), because="only an active one can be written to")
            applied = apply(self._store, row, tar, alone=alone)
        self._tell("apply", key)
        return applied

    def _tell(self, verb: str, name: str, about: str = "") -> None:
        if self._observer is _silent:
            return
        with contextlib.suppress(Exception):  # whoever only watches breaks nothing
            self._observer(Event(verb, name, self.driver.name, about))


def open_snapshotter(config: Config) -> Snapshotter:
    """The store that a config describes, with the driver that it chooses; to be used in a `with`."""
    from lamina.config import choose_driver  # noqa: PLC0415
    from lamina.plugins import tell_observers  # noqa: PLC0415

    choice = choose_driver(config)
    return Snapshotter(config.root, choice.driver, config.durability, observer=tell_observers)

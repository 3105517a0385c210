"""One operation on the image store: what it needs stays, what nobody needs goes, even if a process dies on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs

from lamina.errors import InUse, NotFound
from lamina.images.blobs import Blobs
from lamina.images.catalog import Catalog, Rows
from lamina.images.leases import Leases

if TYPE_CHECKING:
    from lamina.snapshotter import Snapshotter


@attrs.frozen
class Shelves:
    """Everything an operation works with."""

    blobs: Blobs
    catalog: Catalog
    leases: Leases
    snapshots: Snapshotter

    @property
    def driver(self) -> str:
        """In whose store our snapshots lie."""
        name: str = self.snapshots.driver.name
        return name

    def blob(self, digest: str) -> str:
        """A blob as a thing that can be needed and deleted."""
        return f"blob/{digest}"

    def snapshot(self, name: str) -> str:
        """A snapshot as a thing that can be needed and deleted."""
        return f"{self.driver}/{name}"


@attrs.frozen
class Gone:
    """A thing that was deleted, and how many bytes that freed."""

    thing: str
    freed: int


@attrs.frozen
class Work:
    """What one operation holds. Other processes delete none of it while this one lives."""

    shelves: Shelves
    lease: str

    @property
    def owner(self) -> str:
        """As what it stands in the table of users."""
        return f"lease {self.lease}"

    def hold(self, things: Iterable[str]) -> None:
        """Nobody deletes these until the work is done; returns when deletions under way are through.

        It says nothing about whether they are there: look afterwards.
        """
        wanted = tuple(things)
        while True:
            with self.shelves.catalog.change() as rows:
                doomers = {rows.doomer_of(thing) for thing in wanted} - {None, self.lease}
                if not doomers:
                    rows.use(self.owner, wanted)
                    return
            for doomer in doomers:
                self._outlive(doomer or "")

    def doom(self, rows: Rows, candidates: Iterable[str]) -> list[str]:
        """In the caller's transaction: those that nobody needs now are ours to delete, come what may."""
        doomed = [thing for thing in candidates if not rows.is_used(thing)]
        for thing in doomed:
            rows.doom(thing, self.lease)
        return doomed

    def delete(self, doomed: Iterable[str]) -> tuple[Gone, ...]:
        """Delete them, in an order that suits them; those that are really gone.

        One that something outside the image store stands on stays, and nobody is told: `prune` comes back to it.
        """
        left, gone = list(doomed), list[Gone]()
        while left:
            before = len(left)
            for thing in list(left):
                with contextlib.suppress(InUse):  # a child of it may go first; then it is tried again
                    freed = _delete(self.shelves, thing)
                    left.remove(thing)
                    gone += [Gone(thing, freed)] if freed is not None else []
                    self._spare(thing)
            if len(left) == before:
                break
        for thing in left:
            self._spare(thing)
        return tuple(gone)

    def adopt_the_dead(self) -> bool:
        """What killed operations held is ours now, and goes when we end if nobody needs it. Whether there were any."""
        with self.shelves.catalog.read() as rows:
            others = [lease for lease in rows.leases() if lease != self.lease]
        dead = [lease for lease in others if not self.shelves.leases.is_alive(lease)]
        for lease in dead:
            with self.shelves.catalog.change() as rows:
                rows.hand_over(f"lease {lease}", self.owner)
                rows.adopt_doomed(lease, self.lease)
                rows.drop_lease(lease)
            self.shelves.leases.forget(lease)
        return bool(dead)

    def _outlive(self, lease: str) -> None:
        self.shelves.leases.wait(lease)
        with self.shelves.catalog.change() as rows:
            rows.adopt_doomed(lease, self.lease)  # nothing, unless it was killed in the middle
            unfinished = rows.doomed_by(self.lease)
        self.delete(unfinished)

    def _spare(self, thing: str) -> None:
        with self.shelves.catalog.change() as rows:
            rows.spare(thing)


@contextlib.contextmanager
def at_work(shelves: Shelves) -> Iterator[Work]:
    """Do one operation. When the block ends, also by an error, what it held and nobody needs is deleted."""
    shelves.catalog.make_room()
    with shelves.leases.taken() as lease:
        work = Work(shelves, lease)
        with shelves.catalog.change() as rows:
            rows.put_lease(lease)
        try:
            dead = work.adopt_the_dead()
            yield work
        finally:
            _end(work)
        if dead:
            shelves.blobs.collect()


def _end(work: Work) -> None:
    catalog = work.shelves.catalog
    with catalog.change() as rows:
        doomed = work.doom(rows, rows.let_go(work.owner))
        unfinished = rows.doomed_by(work.lease)
    work.delete({*doomed, *unfinished})
    with catalog.change() as rows:
        rows.drop_lease(work.lease)


def _delete(shelves: Shelves, thing: str) -> int | None:
    """Delete one thing; the bytes freed, or None if it was not there or is not ours."""
    place, _, name = thing.partition("/")
    if place == "blob":
        return shelves.blobs.remove(name) if shelves.blobs.has(name) else None
    if place != shelves.driver:
        return None  # another driver's store: `prune` finds it when that driver is in charge
    try:
        usage = shelves.snapshots.stat(name).usage
        shelves.snapshots.remove(name)
    except NotFound:
        return None
    return usage.size if usage else 0

"""What the verbs of a snapshotter work with: one driver's room, its database, its locks; and how a driver is asked."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import attrs

from lamina import rows
from lamina.driver import Driver, NativeUsage, StoresChanges
from lamina.durability import Durability, sync_all
from lamina.errors import DriverFailed, InUse, LaminaError, NoSpace
from lamina.layer import Kind, Layer, Usage
from lamina.lineages import Lineages
from lamina.locks import LayerLocks
from lamina.metadata import Metadata
from lamina.rows import Row

P = ParamSpec("P")
T = TypeVar("T")

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_LENT: Final = "lent"


@attrs.frozen
class Store:
    """One driver's room in a root. Nothing in here acts by itself."""

    room: Path  # ROOT/DRIVER
    driver: Driver
    meta: Metadata
    locks: LayerLocks
    durability: Durability
    lineages: Lineages = attrs.field(factory=Lineages)

    def peephole(self, layer_id: int) -> Path:
        """Where we mount a layer for ourselves; nothing lies there otherwise."""
        return self.room / "mnt" / str(layer_id)

    def layer_of(self, row: Row) -> Layer:
        """The row's layer as drivers see it."""
        return self.lineages.layer_of(self.meta.read(), row)

    def layer_to_be(self, row: Row) -> Layer:
        """What the commit in progress will make of it."""
        return self.lineages.layer_to_be(self.meta.read(), row)

    @property
    def lent(self) -> bool:
        """Whether somebody mounts layers by himself, so that nobody can know which of them can be seen."""
        return os.path.exists(f"{self.room}/{_LENT}")

    def lend(self) -> None:
        """Note that, for every process that has the store open, and for good."""
        try:
            (self.room / _LENT).touch(mode=0o600)
        except OSError as error:
            raise self.explained(error, "lend", None) from error

    def ask(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a verb of the driver. Whatever it raises becomes NoSpace or DriverFailed, with the cause chained."""
        try:
            return verb(*args, **kwargs)
        except Exception as error:
            first = args[0] if args else None
            layer_id = first.id if isinstance(first, Layer) else first if isinstance(first, int) else None
            raise self.explained(error, getattr(verb, "__name__", "a verb"), layer_id) from error

    def explained(self, error: Exception, verb: str, layer_id: int | None) -> LaminaError:
        """An error from outside as one of ours."""
        if lacks_room(error):
            which = "" if layer_id is None else f" of layer {layer_id}"
            return NoSpace(f"{self.driver.name}: {verb}{which}: no space left ({error})")
        return DriverFailed(self.driver.name, verb, layer_id, error)

    def forget(self, layer_id: int) -> None:
        """The driver has nothing of this layer any more, and then the database has not either."""
        self.meta.reserve.spend()
        self.ask(self.driver.release, layer_id)
        self.ask(self.driver.remove, layer_id)
        with self.meta.change(freeing=True) as connection:
            rows.delete(connection, layer_id)

    @contextlib.contextmanager
    def begun(self, begin: Callable[[sqlite3.Connection], Layer]) -> Iterator[Layer]:
        """A new row's layer, locked from before anybody can see it. `begin` inserts the row."""
        with contextlib.ExitStack() as held:
            with self.meta.change() as connection:
                layer = begin(connection)
                if not held.enter_context(self.locks.try_hold(layer.id)):
                    raise InUse(f"{self.room}: layer {layer.id} is locked by somebody who cannot know of it")
            yield layer

    def measure(self, layer: Layer) -> Usage | None:
        """What the layer occupies, if that can be told without mounting it."""
        from lamina.trees import measure_tree  # noqa: PLC0415  # a listing measures nothing

        if isinstance(self.driver, NativeUsage):
            return self.ask(self.driver.usage, layer)
        if isinstance(self.driver, StoresChanges):
            return self.ask(measure_tree, self.ask(self.driver.changes, layer).root)
        return Usage() if layer.kind is Kind.VIEW else None

    def sync(self, *places: Path) -> None:
        """What lies on the file systems of these places, and on the driver's own, survives a power cut."""
        if self.durability.data:
            try:
                sync_all(self.driver.home, *places)
            except OSError as error:
                raise self.explained(error, "flush", None) from error

    def sync_if_full(self, *places: Path) -> None:
        """The same, where even what is not committed has to survive."""
        if self.durability is Durability.FULL:
            self.sync(*places)


def lacks_room(error: BaseException | None) -> bool:
    """Whether the error, or what caused it, is a full disk or an exhausted quota."""
    seen = set[int]()
    while error is not None and id(error) not in seen:  # one error raised twice may be its own cause
        seen.add(id(error))
        if isinstance(error, NoSpace) or (isinstance(error, OSError) and error.errno in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False

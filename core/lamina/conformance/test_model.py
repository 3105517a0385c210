"""Random histories: Hypothesis plays edits, layers, views, remounts and restarts against a model in memory."""

from __future__ import annotations

import io
import stat
from contextlib import ExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lamina.conformance.harness import Room, assert_ids_agree, can, seen
from lamina.conformance.model import Model, ModelTree, Step
from lamina.conformance.play import RealTree
from lamina.conformance.plugin import Rooms
from lamina.conformance.strategies import Whim, resolve, whims
from lamina.conformance.witness import assert_same, expected_changes, manifest
from lamina.driver import Ability
from lamina.layer import Kind
from lamina.snapshotter import Snapshotter

picks = st.integers(0, 99)
OLD = 10**18
FIRST_STEPS = [
    Step("make", b"a", {"type": stat.S_IFDIR}, OLD),
    Step("make", b"a/b", {"type": stat.S_IFDIR}, OLD),
    Step("make", b"a/b/c", {"type": stat.S_IFREG, "content": b"deep"}, OLD),
    Step("make", b"b", {"type": stat.S_IFREG, "content": b"linked"}, OLD),
    Step("link", b"b", {"to": b"a/d"}, OLD),
]


class Histories(RuleBasedStateMachine):
    """A store and what it ought to hold: a model for each snapshot, and the places where some are mounted."""

    rooms: Rooms

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.room: Room = self.stack.enter_context(self.rooms())
        self.snapshots: Snapshotter = self._open()
        self.models: dict[str, Model] = {}
        self.kinds: dict[str, Kind] = {}
        self.parents: dict[str, str | None] = {}
        self.places: dict[str, Path] = {}
        self.count = 0

    def _open(self) -> Snapshotter:
        # nobody cuts the power here: that is another test
        return self.room.open(durability="none").__enter__()

    def _new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def _some(self, pick: int, *kinds: Kind) -> str | None:
        found = sorted(name for name, kind in self.kinds.items() if kind in kinds)
        return found[pick % len(found)] if found else None

    def _note(self, name: str, kind: Kind, parent: str | None, model: Model) -> None:
        self.kinds[name], self.parents[name], self.models[name] = kind, parent, model

    def _place(self, key: str) -> Path:
        if key not in self.places:
            self.places[key] = self.room.place("mount")
            self.snapshots.mount(key, self.places[key])
        return self.places[key]

    @initialize(edits=st.lists(whims(), min_size=5, max_size=25))
    def begin(self, edits: list[Whim]) -> None:
        """There is a base with something in it, and an active snapshot on top."""
        self.snapshots.prepare("active0")
        self._note("active0", Kind.ACTIVE, None, Model(self.room.driver_class.cannot))
        self._see_root("active0")
        for step in FIRST_STEPS:
            self._do("active0", step)
        self.edit(0, edits)
        self.commit_and_go_on(0)

    def _see_root(self, key: str) -> None:
        # when a first layer's root was made is the driver's own affair
        root = self.models[key].root
        root.mtime_ns = seen(self.snapshots, key)[b""].mtime_ns

    @rule(pick=picks, child=st.booleans())
    def prepare(self, pick: int, child: bool) -> None:  # noqa: FBT001  # Hypothesis passes it by name
        """A new active snapshot, on a committed one or on nothing."""
        parent = self._some(pick, Kind.COMMITTED) if child else None
        key = self._new("active")
        self.snapshots.prepare(key, parent)
        model = self.models[parent].child() if parent else Model(self.room.driver_class.cannot)
        self._note(key, Kind.ACTIVE, parent, model)
        if parent is None:
            self._see_root(key)

    @rule(pick=picks)
    def view(self, pick: int) -> None:
        """A view shows what its parent holds."""
        parent = self._some(pick, Kind.COMMITTED)
        if parent is None:
            return
        key = self._new("view")
        self.snapshots.view(key, parent)
        self._note(key, Kind.VIEW, parent, self.models[parent].child())
        assert_same(self.models[parent].manifest(), seen(self.snapshots, key))

    @rule(pick=picks, edits=st.lists(whims(), min_size=5, max_size=25))
    def edit(self, pick: int, edits: list[Whim]) -> None:
        """Some edits of one active snapshot, through a mount that stays."""
        key = self._some(pick, Kind.ACTIVE)
        if key is None:
            return
        for whim in edits:
            self.count += 1
            step = resolve(whim, self.models[key], self.count)
            if step is not None:
                self._do(key, step)
        assert_same(self.models[key].manifest(), manifest(self._place(key)))

    def _do(self, key: str, step: Step) -> None:
        RealTree(self._place(key), self.room.driver_class.cannot).do(step)
        ModelTree(self.models[key]).do(step)
        if step.verb == "link" and not can(self.room.driver_class, Ability.LOWER_LINK_NUMBERS):
            self._leave(key)

    @rule(pick=picks)
    def unmount(self, pick: int) -> None:
        """The tree is the same when it is mounted again."""
        if not self.places:
            return
        key = sorted(self.places)[pick % len(self.places)]
        self._leave(key)
        assert_same(self.models[key].manifest(), manifest(self._place(key)))

    def _leave(self, key: str) -> None:
        place = self.places.pop(key, None)
        if place is not None:
            self.snapshots.unmount(place)

    @rule(pick=picks)
    def commit(self, pick: int) -> None:
        """The committed snapshot holds what the active one held."""
        key = self._some(pick, Kind.ACTIVE)
        if key is None:
            return
        self._leave(key)
        name = self._new("committed")
        self.snapshots.commit(name, key)
        self._note(name, Kind.COMMITTED, self.parents.pop(key), self.models.pop(key))
        del self.kinds[key]
        assert_same(self.models[name].manifest(), seen(self.snapshots, name))

    @rule(pick=picks)
    def commit_and_go_on(self, pick: int) -> None:
        """As a build does: commit a layer, and go on in a child of it."""
        key = self._some(pick, Kind.ACTIVE)
        if key is None:
            return
        self.commit(pick)
        name = f"committed{self.count}"
        self.snapshots.prepare(key, name)
        self._note(key, Kind.ACTIVE, name, self.models[name].child())

    @rule(pick=picks)
    def remove(self, pick: int) -> None:
        """What nobody stands on can be removed."""
        used = set(self.parents.values())
        free = sorted(name for name in self.kinds if name not in used)
        if len(free) < 2:  # keep something to play with
            return
        name = free[pick % len(free)]
        self._leave(name)
        self.snapshots.remove(name)
        for table in (self.kinds, self.parents, self.models):
            del table[name]

    @rule(pick=picks)
    def changes(self, pick: int) -> None:
        """The driver's changes are those between the model and its parent's; the tar makes the same tree again."""
        name = self._some(pick, Kind.COMMITTED)
        if name is None:
            return
        parent = self.parents[name]
        old = self.models[parent].manifest() if parent else {}
        new = self.models[name].manifest()
        told = [(change.kind.value, change.path) for change in self.snapshots.changes(name)]
        assert told == expected_changes(old, new) or parent is None
        self._copy(name, parent)

    def _copy(self, name: str, parent: str | None) -> None:
        out = io.BytesIO()
        self.snapshots.diff(name, out)
        self.snapshots.prepare("copy", parent)
        try:
            self.snapshots.apply("copy", io.BytesIO(out.getvalue()))
            assert_same(self.models[name].manifest(), seen(self.snapshots, "copy"))
        finally:
            self.snapshots.remove("copy")

    @rule()
    @precondition(lambda self: self.count > 3)
    def restart(self) -> None:
        """Another process opens the store."""
        for key in list(self.places):
            self._leave(key)
        self.snapshots.__exit__(None, None, None)
        self.snapshots = self._open()

    @invariant()
    def the_store_lists_what_it_should(self) -> None:
        """Names, kinds and parents, after every step."""
        told = {one.name: (one.kind, one.parent) for one in self.snapshots.list()}
        assert told == {name: (kind, self.parents[name]) for name, kind in self.kinds.items()}

    def teardown(self) -> None:
        """At the end every snapshot is looked at once more."""
        with self.stack:
            try:
                for key in list(self.places):
                    self._leave(key)
                for name, model in self.models.items():
                    assert_same(model.manifest(), seen(self.snapshots, name))
                assert_ids_agree(self.room)
            finally:
                for key in list(self.places):
                    self._leave(key)
                self.snapshots.__exit__(None, None, None)


def test_random_histories_agree_with_the_model(rooms: Rooms) -> None:
    run_state_machine_as_test(type("Histories", (Histories,), {"rooms": staticmethod(rooms)}), settings=settings())

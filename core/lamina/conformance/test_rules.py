"""Rules: names, kinds, parents, children, labels and filters; each refusal has its own error and changes nothing."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from lamina.conformance.harness import Room, assert_ids_agree, exists, grow, mounted, seen, write
from lamina.conformance.marks import needs
from lamina.conformance.witness import assert_same
from lamina.driver import Ability
from lamina.errors import AlreadyExists, BadRequest, InUse, NotFound, WrongKind
from lamina.layer import Kind
from lamina.snapshotter import Snapshotter

Verb = Callable[[Snapshotter], object]


def _three_kinds(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x"))
    snapshots.prepare("active", "base")
    snapshots.view("view", "base")


REFUSALS: list[tuple[str, Verb, type[Exception]]] = [
    ("prepare under a name that is taken", lambda s: s.prepare("base"), AlreadyExists),
    ("prepare under a key that is taken", lambda s: s.prepare("active"), AlreadyExists),
    ("view under a key that is taken", lambda s: s.view("view", "base"), AlreadyExists),
    ("prepare on nothing", lambda s: s.prepare("new", "nowhere"), NotFound),
    ("view of nothing", lambda s: s.view("new", "nowhere"), NotFound),
    ("prepare on an active snapshot", lambda s: s.prepare("new", "active"), WrongKind),
    ("prepare on a view", lambda s: s.prepare("new", "view"), WrongKind),
    ("view of an active snapshot", lambda s: s.view("new", "active"), WrongKind),
    ("commit under a name that is taken", lambda s: s.commit("base", "active"), AlreadyExists),
    ("commit under the key of a view", lambda s: s.commit("view", "active"), AlreadyExists),
    ("commit what is not there", lambda s: s.commit("new", "nowhere"), NotFound),
    ("commit a view", lambda s: s.commit("new", "view"), WrongKind),
    ("commit what is committed", lambda s: s.commit("new", "base"), WrongKind),
    ("remove a parent", lambda s: s.remove("base"), InUse),
    ("remove what is not there", lambda s: s.remove("nowhere"), NotFound),
    ("stat what is not there", lambda s: s.stat("nowhere"), NotFound),
    ("label what is not there", lambda s: s.label("nowhere", {"a": "b"}), NotFound),
    ("mounts of what is not there", lambda s: s.mounts("nowhere"), NotFound),
    ("usage of what is not there", lambda s: s.usage("nowhere"), NotFound),
    ("apply to a view", lambda s: s.apply("view", io.BytesIO(bytes(1024))), WrongKind),
    ("apply to what is committed", lambda s: s.apply("base", io.BytesIO(bytes(1024))), WrongKind),
    ("prepare under no name", lambda s: s.prepare(""), BadRequest),
]


@pytest.mark.parametrize(("verb", "error"), [pytest.param(*rest, id=name) for name, *rest in REFUSALS])
def test_a_refusal_has_its_own_error_and_changes_nothing(
    room: Room, snapshots: Snapshotter, verb: Verb, error: type[Exception]
) -> None:
    _three_kinds(room, snapshots)
    before = list(snapshots.list())
    layers = room.driver().layers()

    with pytest.raises(error):
        verb(snapshots)

    assert list(snapshots.list()) == before
    assert room.driver().layers() == layers
    assert_ids_agree(room)
    assert exists(snapshots, "base", "file")


def test_stat_tells_kind_parent_labels_and_times(room: Room, snapshots: Snapshotter) -> None:
    _three_kinds(room, snapshots)

    told = {key: snapshots.stat(key) for key in ("base", "active", "view")}

    assert [told[key].kind for key in told] == [Kind.COMMITTED, Kind.ACTIVE, Kind.VIEW]
    assert [told[key].parent for key in told] == [None, "base", "base"]
    assert all(one.created.tzinfo is not None and one.updated >= one.created for one in told.values())
    assert told["base"].created <= told["active"].created


def test_list_and_stat_agree(room: Room, snapshots: Snapshotter) -> None:
    _three_kinds(room, snapshots)

    listed = {one.name: one for one in snapshots.list()}

    assert set(listed) == {"base", "active", "view"}
    assert listed == {name: snapshots.stat(name) for name in listed}


def test_the_store_can_be_asked_and_changed_while_it_is_listed(room: Room, snapshots: Snapshotter) -> None:
    _three_kinds(room, snapshots)

    for one in snapshots.list():
        assert snapshots.stat(one.name).name == one.name
        if one.kind is Kind.VIEW:
            snapshots.remove(one.name)

    assert {one.name for one in snapshots.list()} == {"base", "active"}


def test_filters_choose(room: Room, snapshots: Snapshotter) -> None:
    _three_kinds(room, snapshots)
    snapshots.label("active", {"color": "blue"})

    def chosen(*filters: str) -> set[str]:
        return {one.name for one in snapshots.list(*filters)}

    assert chosen("kind==view") == {"view"}
    assert chosen("parent==base") == {"active", "view"}
    assert chosen("labels.color==blue") == {"active"}
    assert chosen("name==base") == {"base"}
    assert chosen("name==nowhere") == set()


def test_labels_are_set_replaced_and_taken_away(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", labels={"keep": "1", "replace": "1", "drop": "1"})

    told = snapshots.label("base", {"replace": "2", "drop": None, "new": "3"})

    assert dict(told.labels) == {"keep": "1", "replace": "2", "new": "3"}
    assert dict(snapshots.stat("base").labels) == dict(told.labels)
    assert told.updated >= told.created


def test_labels_do_not_touch_the_layer(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file", "x"))
    wanted = seen(snapshots, "base")

    snapshots.label("base", {"a": "b"})

    assert_same(wanted, seen(snapshots, "base"))


def test_what_is_mounted_is_not_removed_nor_committed(room: Room, snapshots: Snapshotter) -> None:
    _three_kinds(room, snapshots)

    for key in ("active", "view"):
        with mounted(room, snapshots, key) as root:
            with pytest.raises(InUse):
                snapshots.remove(key)
            assert (root / "file").read_text() == "x"
    with mounted(room, snapshots, "active"), pytest.raises(InUse):
        snapshots.commit("new", "active")


def test_closing_twice_is_harmless(room: Room) -> None:
    snapshots = room.open()

    with snapshots:
        grow(room, snapshots, "base", write("file"))
        snapshots.close()
    snapshots.close()


@needs(Ability.REBASE)
def test_a_layer_made_alone_can_be_committed_onto_a_parent(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("below", "1"), write("both", "1"))
    snapshots.prepare("alone")
    with mounted(room, snapshots, "alone") as root:
        write("above", "2")(root)
        write("both", "2")(root)

    committed = snapshots.commit("joined", "alone", parent="base")

    assert committed.parent == "base"
    assert sorted(seen(snapshots, "joined")) == [b"", b"above", b"below", b"both"]
    with pytest.raises(InUse):
        snapshots.remove("base")


@needs(Ability.REBASE)
def test_commit_onto_what_is_not_a_committed_parent_is_refused(room: Room, snapshots: Snapshotter) -> None:
    _three_kinds(room, snapshots)
    snapshots.prepare("alone")

    with pytest.raises(WrongKind):
        snapshots.commit("joined", "alone", parent="active")
    with pytest.raises(NotFound):
        snapshots.commit("joined", "alone", parent="nowhere")

    assert snapshots.stat("alone").kind is Kind.ACTIVE

"""The verbs: names, labels, filters, errors, events, opening and closing."""

from __future__ import annotations

import errno
import os

import pytest
from rooms import Room, grow

from lamina.driver import Driver
from lamina.errors import (
    AlreadyExists,
    BadRequest,
    DriverFailed,
    InvalidName,
    NoSpace,
    NotFound,
    StoreBroken,
    Unhealthy,
    WrongParent,
)
from lamina.events import Event
from lamina.snapshotter import Snapshotter

pytestmark = pytest.mark.needs_root

# names


@pytest.mark.parametrize("name", ["", "a\0b", "two\nlines", "a\x1b[31m", "x" * 1025, "\udcff", "\u2028"])
def test_a_name_that_would_not_fit_on_a_line_is_refused(snapshots: Snapshotter, name: str) -> None:
    with pytest.raises(InvalidName):
        snapshots.prepare(name)
    assert list(snapshots.list()) == []


@pytest.mark.parametrize("name", ["/", "..", "a b", "sha256:0123", "größe/日本", "x" * 1024, "-f", "%s", "'; DROP"])
def test_any_other_text_is_a_name(snapshots: Snapshotter, name: str) -> None:
    snapshots.prepare(name)
    assert snapshots.stat(name).name == name
    snapshots.remove(name)


def test_a_label_that_is_too_long_is_refused(snapshots: Snapshotter) -> None:
    with pytest.raises(BadRequest):
        snapshots.prepare("key", labels={"key": "v" * 4096})
    assert list(snapshots.list()) == []


def test_commit_replaces_the_labels(snapshots: Snapshotter) -> None:
    snapshots.prepare("key", labels={"of": "the key"})

    assert snapshots.commit("name", "key", labels={"of": "the name"}).labels == {"of": "the name"}


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (["labels.team==red"], {"one"}),
        (["labels.team!=red"], {"two", "three"}),
        (["labels.team"], {"one", "two"}),
        (["name~=^t"], {"two", "three"}),
        (["name~=^t,labels.team==blue"], {"two"}),
        (["name==one", "name==three"], {"one", "three"}),
        (['labels."a.b, c"=="x, y"'], {"three"}),
        (["kind==committed"], set()),
        ([""], {"one", "two", "three"}),
        (["parent"], {"one", "two", "three"}),
        (["labels.team==/red"], set()),
        (["name~=/^t[a-z]{2,4}$/"], {"two", "three"}),
        (["name~=|^o|, labels.team"], {"one"}),
        ([r'name=="\x6f\156\u0065"'], {"one"}),
        (['labels.a."b, c"=="x, y"'], {"three"}),
    ],
)
def test_filters_are_joined_by_and_within_and_by_or_between(
    snapshots: Snapshotter, filters: list[str], wanted: set[str]
) -> None:
    snapshots.prepare("one", labels={"team": "red"})
    snapshots.prepare("two", labels={"team": "blue"})
    snapshots.prepare("three", labels={"a.b, c": "x, y"})

    assert {one.name for one in snapshots.list(*filters)} == wanted


@pytest.mark.parametrize(
    "bad",
    ["size==3", "labels", "name=one", "name===one", "name==one,", "name==a b c,,", "name~=(", "labels.==", "name~=/a"],
)
def test_a_filter_that_cannot_be_read_says_so(snapshots: Snapshotter, bad: str) -> None:
    with pytest.raises(BadRequest, match="filter"):
        list(snapshots.list(bad))


def test_labels_can_be_replaced_as_a_whole(snapshots: Snapshotter) -> None:
    snapshots.prepare("key", labels={"old": "1", "both": "1"})

    assert snapshots.label("key", {"both": "2", "new": "2", "none": None}, replace=True).labels == {
        "both": "2",
        "new": "2",
    }


def test_only_a_committed_snapshot_can_be_a_parent(snapshots: Snapshotter) -> None:
    snapshots.prepare("active")

    with pytest.raises(WrongParent, match="'active' is an active snapshot"):
        snapshots.prepare("child", "active")


# errors


def failing(base: type[Driver], verb: str, error: Exception) -> type[Driver]:
    def fail(_self: Driver, *_arguments: object) -> None:
        raise error

    fail.__name__ = verb
    return type("Failing", (base,), {verb: fail})


def test_a_full_disk_has_its_own_error(room: Room) -> None:
    with room.open(failing(room.driver, "prepare", OSError(errno.EDQUOT, "Disk quota exceeded"))) as snapshots:
        with pytest.raises(NoSpace) as told:
            snapshots.prepare("key")
        assert isinstance(told.value.__cause__, OSError)
        assert list(snapshots.list()) == []


def test_other_failures_name_the_verb_and_the_layer(room: Room) -> None:
    with room.open(failing(room.driver, "commit", RuntimeError("the disk is on fire"))) as snapshots:
        snapshots.prepare("key")
        with pytest.raises(DriverFailed, match=r"commit of layer \d+ failed: the disk is on fire") as told:
            snapshots.commit("name", "key")
    assert isinstance(told.value.__cause__, RuntimeError)


def test_a_removal_that_failed_can_be_repeated(room: Room) -> None:
    with room.open() as snapshots:
        snapshots.prepare("key")
    with room.open(failing(room.driver, "remove", RuntimeError("busy"))) as snapshots:
        with pytest.raises(DriverFailed):
            snapshots.remove("key")
        with pytest.raises(NotFound):
            snapshots.stat("key")
        with pytest.raises(AlreadyExists):
            snapshots.prepare("key")

        snapshots.driver.__class__ = room.driver
        snapshots.remove("key")
        assert snapshots.driver.layers() == set()


def test_a_store_that_is_no_store_is_told(room: Room) -> None:
    with room.open():
        pass
    (room.root / room.driver.name / "metadata.db").write_bytes(b"not a database, " * 1000)

    with pytest.raises(StoreBroken, match="backup"):
        room.open().start()


def test_an_observer_hears_of_each_change_and_breaks_nothing(room: Room) -> None:
    heard: list[Event] = []

    def observe(event: Event) -> None:
        heard.append(event)
        raise RuntimeError("an observer's own trouble")

    place = room.place()
    with room.open(observer=observe) as snapshots:
        grow(snapshots, place, "base")
        snapshots.label("base", {"a": "b"})
        snapshots.view("view", "base")
        snapshots.remove("view")

    told = [(event.verb, event.name, event.about) for event in heard]
    assert told == [
        ("prepare", "growing", ""),
        ("mount", "growing", str(place)),
        ("unmount", "growing", str(place)),
        ("commit", "base", "growing"),
        ("label", "base", ""),
        ("view", "view", ""),
        ("remove", "view", ""),
    ]


# opening and closing


def test_others_may_pass_to_what_is_mounted_but_not_to_what_we_look_at(room: Room) -> None:
    before = os.umask(0o077)
    try:
        with room.open():
            pass
    finally:
        os.umask(before)

    inside = room.root / room.driver.name
    modes = {path.name: path.stat().st_mode & 0o777 for path in (room.root, inside, inside / "mnt")}
    assert modes == {"store": 0o711, room.driver.name: 0o711, "mnt": 0o700}


def test_a_store_that_cannot_be_opened_says_what_to_do(room: Room) -> None:
    room.root.write_text("a file is in the way")

    with pytest.raises(Unhealthy, match="choose another root"):
        room.open().start()


def test_a_driver_is_stopped_when_nobody_needs_it(room: Room) -> None:
    stopped: list[str] = []

    class Noting(room.driver):  # type: ignore[name-defined, misc]  # the class is known only now
        def stop(self) -> None:
            stopped.append("now")

    place = room.place()
    with room.open(Noting) as first:
        first.prepare("key")
        with room.open(Noting):
            pass
        assert stopped == []  # somebody else has the store open
        first.mount("key", place)
    assert stopped == []  # something is mounted
    with room.open(Noting) as again:
        again.unmount(place)
    assert stopped == ["now"]


def _told(base: type[Driver], told: list[str]) -> type[Driver]:
    """The driver, noting when it is to let go."""
    return type(
        "Telling",
        (base,),
        {"stop": lambda _: told.append("stop"), "release": lambda _, number: told.append(f"release {number}")},
    )


def test_what_is_lent_is_kept_up_until_it_is_removed_whoever_closes_the_store(room: Room) -> None:
    """An engine that mounts by itself never says when it has unmounted."""
    told: list[str] = []
    telling = _told(room.driver, told)
    with room.open(telling) as snapshots:
        snapshots.lend()
        snapshots.prepare("key")
    with room.open(telling) as other, other.look("key"):
        pass
    assert told == []

    with room.open(telling) as other:
        other.remove("key")

    assert list(dict.fromkeys(told)) == ["release 1", "stop"]  # a driver may release once more when it removes


def test_a_removal_that_failed_is_repeated_by_settling(room: Room) -> None:
    with room.open() as snapshots:
        snapshots.prepare("key")
    failing_driver = failing(room.driver, "remove", OSError(errno.EBUSY, "busy"))
    with room.open(failing_driver) as snapshots, pytest.raises(DriverFailed):
        snapshots.remove("key")
    with room.open() as snapshots:
        snapshots.settle()
        assert snapshots.driver.layers() == set()


def test_a_closed_store_is_not_used_by_mistake(room: Room) -> None:
    with room.open() as snapshots:
        pass

    with pytest.raises(RuntimeError, match="not open"):
        snapshots.stat("key")

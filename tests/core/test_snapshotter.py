"""The verbs: what the suite cannot ask of every driver. Errors, mounts that go astray, looks, apply, durability."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from lamina import durability
from lamina.driver import Driver
from lamina.errors import (
    AlreadyExists,
    BadArchive,
    BadRequest,
    ConfigError,
    DriverFailed,
    InUse,
    InvalidName,
    NoSpace,
    NotFound,
    StoreBroken,
    WrongKind,
)
from lamina.events import Event
from lamina.layer import Layer
from lamina.mount import is_mounted, mountinfo, unmount
from lamina.snapshotter import Snapshotter
from lamina_overlay.driver import OverlayDriver
from lamina_vfs.driver import VfsDriver

pytestmark = pytest.mark.needs_root

DRIVERS: list[type[Driver]] = [VfsDriver, OverlayDriver]


@attrs.frozen
class Room:
    """A store of one driver, and places to mount at."""

    path: Path
    driver: type[Driver] = VfsDriver

    @property
    def root(self) -> Path:
        return self.path / "store"

    def open(self, driver: type[Driver] | None = None, **how: object) -> Snapshotter:
        cls = driver or self.driver
        return Snapshotter(self.root, cls(self.root / cls.name / "layers"), **how)  # type: ignore[arg-type]

    def place(self, name: str = "place") -> Path:
        made = self.path / name
        made.mkdir(exist_ok=True)
        return made


@pytest.fixture(params=DRIVERS, ids=lambda cls: cls.name)
def room(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Room]:
    yield Room(tmp_path, request.param)
    for point in reversed(mountinfo()):
        if point.target.startswith(os.fsencode(tmp_path) + b"/"):
            unmount(Path(os.fsdecode(point.target)), lazy=True)


@pytest.fixture
def snapshots(room: Room) -> Iterator[Snapshotter]:
    with room.open() as opened:
        yield opened


def grow(snapshots: Snapshotter, place: Path, name: str, text: str = "x", parent: str | None = None) -> None:
    snapshots.prepare("growing", parent)
    snapshots.mount("growing", place)
    (place / "file").write_text(text)
    snapshots.unmount(place)
    snapshots.commit(name, "growing")


def tar_of(**files: str) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    out.seek(0)
    return out


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
    ],
)
def test_filters_are_joined_by_and_within_and_by_or_between(
    snapshots: Snapshotter, filters: list[str], wanted: set[str]
) -> None:
    snapshots.prepare("one", labels={"team": "red"})
    snapshots.prepare("two", labels={"team": "blue"})
    snapshots.prepare("three", labels={"a.b, c": "x, y"})

    assert {one.name for one in snapshots.list(*filters)} == wanted


@pytest.mark.parametrize("bad", ["", "size==3", "name=one", "name==a b c,,", "name~=(", "labels.=="])
def test_a_filter_that_cannot_be_read_says_so(snapshots: Snapshotter, bad: str) -> None:
    with pytest.raises(BadRequest, match="filter"):
        list(snapshots.list(bad))


# mounts


def test_mounts_at_one_target_are_counted(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    place = room.place()
    snapshots.mount("key", place)
    snapshots.mount("key", place)

    snapshots.unmount(place)
    assert is_mounted(place)
    snapshots.unmount(place)
    assert not is_mounted(place)
    with pytest.raises(NotFound):
        snapshots.unmount(place)


def test_a_mount_outlives_the_process_and_another_can_end_it(room: Room) -> None:
    place = room.place()
    with room.open() as snapshots:
        grow(snapshots, place, "base")
        snapshots.prepare("key", "base")
        snapshots.mount("key", place)

    with room.open() as snapshots:
        assert (place / "file").read_text() == "x"
        with pytest.raises(InUse, match=str(place)):
            snapshots.remove("key")
        snapshots.unmount(place)
        snapshots.remove("key")


def test_the_second_mount_outlives_the_first(room: Room, snapshots: Snapshotter) -> None:
    grow(snapshots, room.place(), "base")
    snapshots.prepare("key", "base")
    first, second = room.place("first"), room.place("second")
    snapshots.mount("key", first)
    snapshots.mount("key", second)

    snapshots.unmount(first)
    (second / "file").write_text("y")
    snapshots.mount("key", first)

    assert (first / "file").read_text() == "y"
    snapshots.unmount(first)
    snapshots.unmount(second)
    snapshots.remove("key")


def test_a_look_at_a_mounted_snapshot_is_live_and_read_only(room: Room, snapshots: Snapshotter) -> None:
    grow(snapshots, room.place(), "base")
    snapshots.prepare("key", "base")
    place = room.place()

    with snapshots.look("key") as root:
        snapshots.mount("key", place)  # a look that came first does not make the mount read-only
        (place / "file").write_text("changed")
        assert (root / "file").read_text() == "changed"
        with pytest.raises(OSError, match="Read-only"):
            (root / "file").write_text("no")
    (place / "file").write_text("the look's end is not the mount's")
    snapshots.unmount(place)


def test_what_is_looked_at_is_not_removed(room: Room, snapshots: Snapshotter) -> None:
    grow(snapshots, room.place(), "base")
    snapshots.prepare("key", "base")

    for key in ("key", "base"):
        with snapshots.look(key), pytest.raises(InUse):
            snapshots.remove(key)
    with snapshots.look("key"), pytest.raises(InUse, match="looked at"):
        snapshots.commit("name", "key")
    snapshots.commit("name", "key")


def test_a_look_leaves_nothing(room: Room, snapshots: Snapshotter) -> None:
    grow(snapshots, room.place(), "base")
    with pytest.raises(ZeroDivisionError), snapshots.look("base") as root:
        raise ZeroDivisionError

    assert not root.exists()
    assert os.listdir(room.root / room.driver.name / "mnt") == []
    snapshots.remove("base")


def test_a_target_that_shows_another_snapshot_is_refused(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("one")
    snapshots.prepare("two")
    place = room.place()
    snapshots.mount("one", place)

    with pytest.raises(InUse, match="another snapshot"):
        snapshots.mount("two", place)

    snapshots.unmount(place)
    assert not is_mounted(place)


def test_what_is_not_ours_is_not_unmounted(room: Room, snapshots: Snapshotter) -> None:
    place = room.place()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)

    with pytest.raises(NotFound):
        snapshots.unmount(place)
    snapshots.prepare("key")
    snapshots.mount("key", place)  # on top of it
    snapshots.unmount(place)

    assert is_mounted(place)
    subprocess.run(["umount", place], check=True)


def test_what_somebody_mounted_over_ours_is_left_alone(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    place = room.place()
    snapshots.mount("key", place)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)

    with pytest.raises(InUse, match="over it"):
        snapshots.unmount(place)

    subprocess.run(["umount", place], check=True)
    snapshots.unmount(place)


def test_what_somebody_else_unmounted_is_forgotten(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    place = room.place()
    snapshots.mount("key", place)
    subprocess.run(["umount", place], check=True)

    snapshots.unmount(place)
    snapshots.mount("key", place)
    subprocess.run(["umount", place], check=True)
    snapshots.remove("key")


def test_a_mount_in_use_stays_and_says_so(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    place = room.place()
    snapshots.mount("key", place)

    with (place / "file").open("w"), pytest.raises(InUse, match="works in it"):
        snapshots.unmount(place)

    assert is_mounted(place)
    snapshots.unmount(place)


def test_a_link_to_the_target_is_the_target(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    place = room.place("with a space")
    (room.path / "link").symlink_to(place)

    snapshots.mount("key", room.path / "link")
    assert is_mounted(place)
    snapshots.unmount(place)


def test_a_target_that_is_no_directory_is_refused(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")

    with pytest.raises(BadRequest, match="not a directory"):
        snapshots.mount("key", room.path / "nothing")
    snapshots.remove("key")


def test_a_committed_snapshot_is_not_mounted(room: Room, snapshots: Snapshotter) -> None:
    grow(snapshots, room.place(), "base")

    with pytest.raises(WrongKind, match="view"):
        snapshots.mount("base", room.place())


def test_a_mount_in_another_namespace_is_known_and_not_undone_here(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    place = room.place()
    script = (
        "import sys; from pathlib import Path; from lamina.plugins import load_driver\n"
        "from lamina.snapshotter import Snapshotter\n"
        "root, name, place = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])\n"
        "with Snapshotter(root, load_driver(name)(root / name / 'layers')) as snapshots:\n"
        "    snapshots.mount('key', place)\n"
        "print('mounted', flush=True); sys.stdin.read()\n"
    )
    elsewhere = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", script]
    with subprocess.Popen(
        [*elsewhere, room.root, room.driver.name, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"mounted\n"
        with pytest.raises(InUse, match=str(place)):
            snapshots.remove("key")
        with pytest.raises(InUse, match="namespace"):
            snapshots.unmount(place)
        other.stdin.close()
    assert other.returncode == 0

    snapshots.remove("key")  # its namespace went with it


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


# content


def files(snapshots: Snapshotter, key: str) -> dict[str, str]:
    with snapshots.look(key) as root:
        return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_tar_that_fails_leaves_an_empty_snapshot_empty(snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    cut = tar_of(one="1", two="2" * 5000).getvalue()[:3000]

    with pytest.raises(BadArchive):
        snapshots.apply("key", io.BytesIO(cut))

    assert files(snapshots, "key") == {}
    snapshots.apply("key", tar_of(one="1"))
    assert files(snapshots, "key") == {"one": "1"}


def test_a_tar_that_fails_spares_what_was_there_before(snapshots: Snapshotter) -> None:
    snapshots.prepare("key")
    snapshots.apply("key", tar_of(before="b"))
    cut = tar_of(one="1", two="2" * 5000).getvalue()[:3000]

    with pytest.raises(BadArchive):
        snapshots.apply("key", io.BytesIO(cut))

    assert files(snapshots, "key")["before"] == "b"
    snapshots.remove("key")


def test_a_tar_is_applied_while_the_snapshot_is_mounted(room: Room, snapshots: Snapshotter) -> None:
    grow(snapshots, room.place(), "base")
    snapshots.prepare("key", "base")
    place = room.place()
    snapshots.mount("key", place)

    snapshots.apply("key", tar_of(new="n"))

    assert (place / "new").read_text() == "n"
    snapshots.unmount(place)


class Pipe(io.RawIOBase):
    """A stream that can only be read on."""

    def __init__(self, content: bytes) -> None:
        self._inner = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._inner.read(size)


@pytest.mark.parametrize("stream", [io.BytesIO, Pipe])
def test_a_tar_that_leans_on_the_parent_is_applied_from_a_file_and_from_a_pipe(
    snapshots: Snapshotter, stream: Callable[[bytes], io.RawIOBase]
) -> None:
    snapshots.prepare("growing")
    snapshots.apply("growing", tar_of(dir__file="x"))
    snapshots.commit("base", "growing")
    snapshots.prepare("key", "base")

    snapshots.apply("key", stream(tar_of(dir__new="n").getvalue()))  # type: ignore[arg-type]  # it reads

    assert files(snapshots, "key") == {"dir/file": "x", "dir/new": "n"}


# durability


def test_data_is_flushed_before_the_row_says_committed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    flush = durability.sync_all

    def noted(*places: Path) -> None:
        steps.append("flush")
        flush(*places)

    monkeypatch.setattr("lamina.store.sync_all", noted)
    with room.open() as snapshots:
        snapshots.prepare("key")
        connection = snapshots._store.meta.read()  # noqa: SLF001  # the order cannot be seen from outside
        connection.set_trace_callback(lambda sql: steps.append("say") if "kind = 'committed'" in sql else None)
        snapshots.commit("name", "key")
        connection.set_trace_callback(None)

    assert steps.index("flush") < steps.index("say")


@pytest.mark.parametrize(("level", "flushes"), [("none", 0), ("metadata", 0), ("ordered", 1), ("full", 2)])
def test_each_level_flushes_what_it_promises(
    room: Room, monkeypatch: pytest.MonkeyPatch, level: str, flushes: int
) -> None:
    flushed = list[Path]()
    monkeypatch.setattr("lamina.trees.sync_tree", flushed.append)

    with room.open(durability=level) as snapshots:
        snapshots.prepare("key")
        snapshots.commit("name", "key")

    assert len(flushed) == flushes


def test_a_level_that_is_none_is_refused(room: Room) -> None:
    with pytest.raises(ConfigError, match="none, metadata, ordered, full"):
        room.open(durability="paranoid")


def test_two_layers_can_be_worked_on_while_a_third_is_busy(room: Room, snapshots: Snapshotter) -> None:
    snapshots.prepare("busy")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(writing)
            with room.open() as mine, open(reading, "rb") as stream:
                mine.apply("busy", stream)
            status = 0
        finally:
            os._exit(status)
    os.close(reading)

    with open(writing, "wb") as stream:
        snapshots.prepare("quick")
        snapshots.commit("quick too", "quick")
        stream.write(tar_of(file="x").getvalue())

    assert os.waitpid(child, 0)[1] == 0
    assert files(snapshots, "busy") == {"file": "x"}


def test_a_driver_is_given_its_ancestors_nearest_first(room: Room) -> None:
    given: list[Layer] = []

    class Noting(room.driver):  # type: ignore[name-defined, misc]  # the class is known only now
        def prepare(self, layer: Layer) -> None:
            given.append(layer)
            super().prepare(layer)

    with room.open(Noting) as snapshots:
        for number in range(3):
            snapshots.prepare("key", f"{number - 1}" if number else None)
            snapshots.commit(str(number), "key")

    assert [layer.parents for layer in given] == [(), (1,), (2, 1)]

"""Recovery: each step that a dead worker left is settled, by whoever comes first, and told in a sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.errors import AlreadyExists, DriverFailed, NotFound
from lamina.layer import Kind, Layer
from lamina.snapshotter import Snapshotter
from lamina_vfs.driver import VfsDriver

pytestmark = pytest.mark.needs_root

Story = Callable[[Snapshotter], object]


class Mortal(VfsDriver):
    """Ends its process on entering or on leaving one verb."""

    verb = ""
    after = False

    def _around(self, verb: str, work: Callable[[], None]) -> None:
        if verb == self.verb and not self.after:
            os._exit(9)
        work()
        if verb == self.verb:
            os._exit(9)

    def prepare(self, layer: Layer) -> None:
        self._around("prepare", lambda: super(Mortal, self).prepare(layer))

    def commit(self, layer: Layer) -> None:
        self._around("commit", lambda: super(Mortal, self).commit(layer))

    def remove(self, layer_id: int) -> None:
        self._around("remove", lambda: super(Mortal, self).remove(layer_id))


def opened(root: Path, driver: type[VfsDriver] = VfsDriver) -> Snapshotter:
    return Snapshotter(root, driver(root / "vfs/layers"))


def die(root: Path, verb: str, story: Story, *, after: bool = False) -> None:
    """A child tells the story and dies in that verb of the driver."""
    child = os.fork()
    if child == 0:
        try:
            dying = type("Dying", (Mortal,), {"verb": verb, "after": after})
            with opened(root, dying) as snapshots:
                story(snapshots)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def stored(root: Path) -> set[int]:
    return VfsDriver(root / "vfs/layers").layers()


both_sides = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


@both_sides
def test_a_prepare_that_was_cut_short_is_undone(tmp_path: Path, after: bool) -> None:  # noqa: FBT001
    die(tmp_path, "prepare", lambda snapshots: snapshots.prepare("key"), after=after)

    with opened(tmp_path) as snapshots:
        assert snapshots.recovered == ("cleared 'key': preparing it was cut short",)
        assert list(snapshots.list()) == []
        assert stored(tmp_path) == set()


@both_sides
def test_a_commit_that_was_cut_short_is_finished(tmp_path: Path, after: bool) -> None:  # noqa: FBT001
    with opened(tmp_path) as snapshots:
        snapshots.prepare("key", labels={"of": "key"})
    die(tmp_path, "commit", lambda snapshots: snapshots.commit("name", "key", labels={"of": "name"}), after=after)

    with opened(tmp_path) as snapshots:
        assert snapshots.recovered == ("finished the commit of 'key' as 'name'",)
        (committed,) = snapshots.list()
        assert (committed.name, committed.kind, committed.labels) == ("name", Kind.COMMITTED, {"of": "name"})
        assert committed.usage is not None


@both_sides
def test_a_removal_that_was_cut_short_is_finished(tmp_path: Path, after: bool) -> None:  # noqa: FBT001
    with opened(tmp_path) as snapshots:
        snapshots.prepare("key")
    die(tmp_path, "remove", lambda snapshots: snapshots.remove("key"), after=after)

    with opened(tmp_path) as snapshots:
        assert snapshots.recovered == ("removed the rest of 'key'",)
        assert stored(tmp_path) == set()


def test_a_commit_that_cannot_be_finished_leaves_the_snapshot_active(tmp_path: Path) -> None:
    class Refusing(VfsDriver):
        def commit(self, layer: Layer) -> None:
            raise RuntimeError("no")

    with opened(tmp_path) as snapshots:
        snapshots.prepare("key")
    die(tmp_path, "commit", lambda snapshots: snapshots.commit("name", "key"))

    with opened(tmp_path, Refusing) as snapshots:
        assert "active again" in snapshots.recovered[0]
        assert snapshots.stat("key").kind is Kind.ACTIVE
    with opened(tmp_path) as snapshots:
        snapshots.commit("name", "key")


def test_the_keys_of_the_dead_are_free_while_others_live(tmp_path: Path) -> None:
    with opened(tmp_path) as living:
        living.prepare("other")
        die(tmp_path, "prepare", lambda snapshots: snapshots.prepare("key"))

        living.prepare("key")

        assert living.stat("key").kind is Kind.ACTIVE
        assert len(stored(tmp_path)) == 2


def test_the_names_that_the_dead_wanted_are_settled_while_others_live(tmp_path: Path) -> None:
    with opened(tmp_path) as living:
        living.prepare("key")
        living.prepare("other")
        die(tmp_path, "commit", lambda snapshots: snapshots.commit("name", "key"))

        with pytest.raises(AlreadyExists):  # the dead one's commit was finished: it came first
            living.commit("name", "other")

        assert living.stat("name").kind is Kind.COMMITTED
        with pytest.raises(NotFound):
            living.stat("key")


def test_a_parent_of_the_dead_can_be_removed_while_others_live(tmp_path: Path) -> None:
    with opened(tmp_path) as living:
        living.prepare("key")
        living.commit("base", "key")
        die(tmp_path, "prepare", lambda snapshots: snapshots.prepare("child", "base"), after=True)

        living.remove("base")

        assert stored(tmp_path) == set()


def test_looks_of_the_dead_are_closed(tmp_path: Path) -> None:
    def look_and_die(snapshots: Snapshotter) -> None:
        with snapshots.look("base"), snapshots.look("key"):
            os._exit(9)

    with opened(tmp_path) as living:
        living.prepare("growing")
        living.commit("base", "growing")
        living.prepare("key", "base")
        die(tmp_path, "nothing", look_and_die)
        assert os.listdir(tmp_path / "vfs/mnt") != []

        living.remove("key")
        living.remove("base")

    assert os.listdir(tmp_path / "vfs/mnt") == []


def test_the_living_are_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as living:
        living.prepare("key")
        with living.look("key") as root, opened(tmp_path) as second:
            assert second.recovered == ()
            assert root.exists()
            with pytest.raises(AlreadyExists):
                second.prepare("key")


def test_layers_that_no_row_knows_go_when_nobody_else_is_there(tmp_path: Path) -> None:
    with opened(tmp_path) as first:
        first.prepare("key")
        (tmp_path / "vfs/layers/77").mkdir()
        with opened(tmp_path) as second:
            assert second.recovered == ()

    with opened(tmp_path) as snapshots:
        assert snapshots.recovered == ("removed layer 77, which nobody knows",)
        assert stored(tmp_path) == {1}


def test_content_that_is_missing_is_told_and_the_snapshot_can_be_removed(tmp_path: Path) -> None:
    with opened(tmp_path) as snapshots:
        snapshots.prepare("key")
    (tmp_path / "vfs/layers/1").rmdir()

    with opened(tmp_path) as snapshots:
        assert snapshots.recovered == ("the content of 'key' is missing; remove it",)
        snapshots.remove("key")


def test_mounts_of_another_boot_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with opened(tmp_path) as snapshots:
        snapshots.prepare("key")
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("lamina.mountrows.this_boot", lambda: "an earlier boot")
            elsewhere.setattr("lamina.showing.mount_all", lambda *_: None)
            snapshots.mount("key", place)

        snapshots.remove("key")


def test_what_cannot_be_settled_keeps_nobody_out(tmp_path: Path) -> None:
    class Stuck(VfsDriver):
        def remove(self, layer_id: int) -> None:
            raise RuntimeError("the pool is gone")

    with opened(tmp_path) as snapshots:
        snapshots.prepare("other")
    die(tmp_path, "prepare", lambda snapshots: snapshots.prepare("key"))

    with opened(tmp_path, Stuck) as snapshots:
        assert "the pool is gone" in snapshots.recovered[0]
        assert [one.name for one in snapshots.list()] == ["other"]
        with pytest.raises(DriverFailed):
            snapshots.remove("key")
    with opened(tmp_path) as snapshots:
        assert snapshots.recovered == ("cleared 'key': preparing it was cut short",)

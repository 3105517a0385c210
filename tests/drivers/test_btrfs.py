"""What is particular to btrfs, on a real one in a file; everything else is the suite's business."""

from __future__ import annotations

import os
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from loops import btrfs_on_a_loop

from lamina import diff
from lamina.changes import ChangeKind
from lamina.driver import Limit
from lamina.errors import ConfigError, Unhealthy
from lamina.layer import Kind, Layer
from lamina.syscalls import opened
from lamina_btrfs import ioctls, subvolume
from lamina_btrfs.driver import BtrfsDriver
from lamina_btrfs.options import BtrfsOptions
from lamina_btrfs.quota import Mode, accounts_of
from lamina_btrfs.stream import paths_in

pytestmark = pytest.mark.needs_root
USER = 12345


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with btrfs_on_a_loop(tmp_path_factory.mktemp("disk"), options="user_subvol_rm_allowed,commit=1") as place:
        yield place


@pytest.fixture
def driver(disk: Path, tmp_path: Path) -> Iterator[BtrfsDriver]:
    made = BtrfsDriver(disk / tmp_path.name / "layers")
    made.start()
    yield made
    for number in sorted(made.layers(), reverse=True):
        made.remove(number)


@pytest.fixture
def quotas(disk: Path) -> Iterator[None]:
    """Full quotas, as an administrator switches them on."""
    subprocess.run(["btrfs", "quota", "enable", disk], check=True)
    subprocess.run(["btrfs", "quota", "rescan", "-w", disk], check=True, capture_output=True)
    yield
    subprocess.run(["btrfs", "quota", "disable", disk], check=True)


def active(number: int, *parents: int) -> Layer:
    return Layer(number, Kind.ACTIVE, parents)


def committed(driver: BtrfsDriver, layer: Layer, *edits: Callable[[Path], object]) -> Layer:
    driver.prepare(layer)
    for change in edits:
        change(driver.home / str(layer.id))
    driver.commit(attrs.evolve(layer, kind=Kind.COMMITTED))
    return attrs.evolve(layer, kind=Kind.COMMITTED)


Told = list[tuple[ChangeKind, bytes]]


def changes(driver: BtrfsDriver, layer: Layer) -> tuple[Told, Told]:
    """What the kernel's candidates lead to, and what a walk over both trees finds."""
    candidates = driver.diff(layer)
    assert candidates is not None
    with (
        opened(driver.home / str(layer.parent), os.O_RDONLY) as old,
        opened(driver.home / str(layer.id), os.O_RDONLY) as new,
    ):
        native = [(each.kind, each.path) for each in diff.compare_paths(old, new, candidates)]
        walked = [(each.kind, each.path) for each in diff.compare(old, new)]
    return native, walked


# nested subvolumes


def _with_nested(root: Path) -> None:
    subvolume.make(root / "outer")
    (root / "outer/file").write_text("outer")
    subvolume.make(root / "outer/inner")
    (root / "outer/inner/file").write_text("inner")
    (root / "plain").mkdir()
    subvolume.make(root / "plain/third")
    subvolume.freeze(root / "plain/third")


def test_subvolumes_that_a_container_made_are_removed_with_the_layer(driver: BtrfsDriver) -> None:
    driver.prepare(active(1))
    _with_nested(driver.home / "1")

    driver.remove(1)

    assert driver.layers() == set()
    assert subvolume.nested_in(driver.home.parents[1]) == []


def test_a_committed_layer_shows_nested_subvolumes_to_its_children_as_directories(driver: BtrfsDriver) -> None:
    base = committed(driver, active(1), _with_nested, lambda root: os.utime(root / "plain", (7, 7)))

    driver.prepare(active(2, base.id))

    root = driver.home / "2"
    assert (root / "outer/inner/file").read_text() == "inner"
    assert sorted(os.listdir(root)) == ["outer", "plain"]
    assert (root / "plain").stat().st_mtime == 7
    assert subvolume.nested_in(driver.home / "1") == []


def test_an_interrupted_flattening_is_begun_afresh(driver: BtrfsDriver) -> None:
    driver.prepare(active(1))
    _with_nested(driver.home / "1")
    (driver.home / "1/.lamina-flat-0").mkdir()
    (driver.home / "1/.lamina-flat-0/half").touch()

    driver.commit(Layer(1, Kind.COMMITTED))

    assert sorted(os.listdir(driver.home / "1")) == ["outer", "plain"]


def test_what_is_in_nested_subvolumes_is_in_the_diff(driver: BtrfsDriver) -> None:
    committed(driver, active(1), lambda root: (root / "outer").mkdir(), lambda root: (root / "outer/file").touch())
    driver.prepare(active(2, 1))
    root = driver.home / "2"
    (root / "outer/file").unlink()
    (root / "outer").rmdir()
    _with_nested(root)

    native, walked = changes(driver, active(2, 1))

    assert native == walked
    assert b"outer/inner/file" in [path for _, path in native]


# diffs


def _swap(root: Path) -> None:
    os.rename(root / "a", root / "x")
    os.rename(root / "b", root / "a")
    os.rename(root / "x", root / "b")


def _move_over(root: Path) -> None:
    """A directory takes the place of another, and gets a grandchild under a name that it has only now."""
    subprocess.run(["rm", "-r", root / "a"], check=True)
    os.rename(root / "b", root / "a")
    (root / "a/deep/new").touch()
    os.rename(root / "a/deep", root / "a/deeper")


def _two_trees(root: Path) -> None:
    for name in ("a", "b"):
        (root / name / "deep").mkdir(parents=True)
        (root / name / "deep/file").write_text(name)
        (root / name / name).touch()
    os.link(root / "a/deep/file", root / "b/linked")


@pytest.mark.parametrize("edit", [_swap, _move_over], ids=lambda each: each.__name__.strip("_"))
def test_directories_that_take_each_others_places_are_compared_inside(
    driver: BtrfsDriver, edit: Callable[[Path], None]
) -> None:
    committed(driver, active(1), _two_trees)
    child = committed(driver, active(2, 1), edit)

    native, walked = changes(driver, child)

    assert native == walked != []


def test_all_names_of_a_changed_file_are_candidates_so_that_nobody_has_to_walk(driver: BtrfsDriver) -> None:
    committed(driver, active(1), _two_trees)
    child = committed(driver, active(2, 1), lambda root: (root / "b/linked").write_text("changed"))

    candidates = driver.diff(child)

    assert candidates is not None
    assert {b"a/deep/file", b"b/linked"} <= {change.path for change in candidates}


def test_a_diff_of_a_layer_in_use_leaves_no_snapshot(driver: BtrfsDriver) -> None:
    committed(driver, active(1), _two_trees)
    driver.prepare(active(2, 1))
    (driver.home / "2/new").touch()

    candidates = driver.diff(active(2, 1))

    assert candidates is not None
    assert b"new" in {change.path for change in candidates}
    assert os.listdir(driver.home / ".work") == []


def test_what_a_killed_diff_has_left_is_swept_at_the_next_start(driver: BtrfsDriver) -> None:
    driver.prepare(active(1))
    subvolume.clone(driver.home / "1", driver.home / ".work/1-4711-dead", read_only=True)

    driver.start()

    assert os.listdir(driver.home / ".work") == []


def test_a_stream_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not a btrfs send stream"):
        paths_in(b"something else")


# sizes


def test_usage_is_what_the_layer_does_not_share(driver: BtrfsDriver) -> None:
    base = committed(driver, active(1), lambda root: (root / "large").write_bytes(os.urandom(8 << 20)))
    child = committed(driver, active(2, 1), lambda root: (root / "small").write_bytes(os.urandom(1 << 20)))

    assert 8 << 20 <= driver.usage(base).size < 9 << 20
    assert 1 << 20 <= driver.usage(child).size < 2 << 20
    assert driver.usage(child).inodes == 2  # the file, and the root directory


@pytest.mark.usefixtures("quotas")
def test_usage_is_the_kernels_own_where_it_counts(driver: BtrfsDriver) -> None:
    committed(driver, active(1), lambda root: (root / "large").write_bytes(os.urandom(8 << 20)))
    child = committed(driver, active(2, 1), lambda root: (root / "small").write_bytes(os.urandom(1 << 20)))
    place = driver.home / "2"

    used = driver.usage(child)

    told = subprocess.run(["btrfs", "qgroup", "show", "--raw", place], check=True, capture_output=True, text=True)
    rows = [line.split() for line in told.stdout.splitlines()]
    (exclusive,) = [row[2] for row in rows if row and row[0] == f"0/{subvolume.info(place).id}"]
    assert used.size == int(exclusive) >= 1 << 20


def _mode(disk: Path) -> Mode:
    with opened(disk, os.O_RDONLY) as descriptor:
        return accounts_of(ioctls.file_system_id(descriptor) or "").mode


@pytest.mark.usefixtures("quotas")
def test_a_users_quotas_stay_as_they_were(driver: BtrfsDriver, disk: Path) -> None:
    limited = BtrfsDriver(driver.home, BtrfsOptions(size=64 << 20))
    limited.prepare(active(1))
    limited.commit(Layer(1, Kind.COMMITTED))
    limited.remove(1)

    assert _mode(disk) is Mode.FULL
    assert limited.limit() is Limit.ENFORCED


def test_a_size_without_quotas_is_refused_and_switches_nothing_on(driver: BtrfsDriver, disk: Path) -> None:
    limited = BtrfsDriver(driver.home, BtrfsOptions(size=64 << 20))

    with pytest.raises(ConfigError, match="quota enable"):
        limited.prepare(active(1))
    limited.remove(1)

    assert limited.limit() is Limit.REFUSED
    assert "quota enable" in limited.health().problems[0]
    assert _mode(disk) is Mode.OFF


@pytest.mark.usefixtures("quotas")
def test_no_account_outlives_its_layer(driver: BtrfsDriver, disk: Path) -> None:
    driver.prepare(active(1))
    number = subvolume.info(driver.home / "1").id
    driver.remove(1)

    subprocess.run(["btrfs", "subvolume", "sync", disk], check=True, capture_output=True)
    subprocess.run(["btrfs", "filesystem", "sync", disk], check=True, capture_output=True)
    driver.start()  # before Linux 6.11 the account goes with the next verb that follows the freeing of the space

    assert list((driver.home / ".work").iterdir()) == []
    with opened(disk, os.O_RDONLY) as descriptor:
        place = accounts_of(ioctls.file_system_id(descriptor) or "").place
    assert not (place / f"0_{number}").exists()


# hosts and users


def test_another_file_system_is_a_problem_that_is_named(tmp_path: Path) -> None:
    elsewhere = BtrfsDriver(tmp_path / "layers")

    assert "not on btrfs" in elsewhere.health().problems[0]
    assert elsewhere.limit() is Limit.REFUSED
    with pytest.raises(Unhealthy, match="not on btrfs"):
        elsewhere.start()


def _as_a_user(home: Path, action: Callable[[BtrfsDriver], None]) -> None:
    """In a child without any powers, which owns the directory above the home."""
    home.parent.mkdir()
    os.chown(home.parent, USER, USER)
    here = os.open(home.parent, os.O_RDONLY | os.O_DIRECTORY)
    child = os.fork()
    if not child:
        try:
            os.fchdir(here)  # the way to it is closed to others
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            action(BtrfsDriver(Path(home.name)))
            os._exit(0)
        except BaseException:  # noqa: BLE001  # whatever it is, the child must not go on as a second pytest
            traceback.print_exc()
            os._exit(1)
    os.close(here)
    assert os.waitpid(child, 0)[1] == 0


def _whole_life(driver: BtrfsDriver) -> None:
    assert driver.health().ok, driver.health().problems
    driver.start()
    base = committed(driver, active(1), lambda root: (root / "file").write_bytes(os.urandom(1 << 20)))
    child = committed(driver, active(2, 1), _with_nested)
    assert driver.diff(child) is None  # the kernel tells only root
    assert driver.usage(base).size >= 1 << 20
    assert driver.usage(child).size < 1 << 20
    committed(driver, active(3, 2, 1), lambda root: root.chmod(0o555))
    driver.remove(3)
    driver.remove(2)
    driver.remove(1)
    assert os.listdir(driver.home) == [".work"]


def test_an_ordinary_user_may_keep_layers_where_the_mount_lets_him(disk: Path, tmp_path: Path) -> None:
    _as_a_user(disk / tmp_path.name / "layers", _whole_life)


def test_an_ordinary_user_is_told_which_mount_option_is_missing(tmp_path: Path) -> None:
    def ask(driver: BtrfsDriver) -> None:
        (problem,) = driver.health().problems
        assert "user_subvol_rm_allowed" in problem
        assert os.listdir(".") == []

    with btrfs_on_a_loop(tmp_path, megabytes=128) as disk:
        _as_a_user(disk / "users" / "layers", ask)

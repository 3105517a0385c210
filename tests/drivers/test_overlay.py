"""What is particular to overlay: depth, joined runs, whiteouts, volatile layers, probes, ordinary users."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina import overlaydialect
from lamina.driver import Ability
from lamina.errors import ConfigError, StoreBroken
from lamina.layer import Kind, Layer
from lamina.mount import mountinfo, temporarily_mounted, unmount
from lamina.overlaydialect import OverlayWhiteouts, kernel_reads_attributes
from lamina.syscalls import opened
from lamina_overlay import joining, probes
from lamina_overlay.driver import OverlayDriver
from lamina_overlay.options import OverlayOptions
from lamina_overlay.trial import Found

pytestmark = pytest.mark.needs_root

DIALECT = OverlayWhiteouts("trusted.overlay.")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[OverlayDriver]:
    started = OverlayDriver(tmp_path / "layers")
    started.start()
    yield started
    clear(started)


def clear(driver: OverlayDriver) -> None:
    for layer_id in sorted(driver.layers(), reverse=True):
        driver.remove(layer_id)


def grow(driver: OverlayDriver, depth: int) -> tuple[int, ...]:
    """Committed layers 1 to `depth`, each with a file of its own and one that all write; the ids, the topmost first."""
    parents: tuple[int, ...] = ()
    for number in range(1, depth + 1):
        layer = Layer(number, Kind.ACTIVE, parents)
        driver.prepare(layer)
        tree = driver.changes(layer).root
        (tree / f"file{number}").touch()
        (tree / "last").write_text(str(number))
        driver.commit(attrs.evolve(layer, kind=Kind.COMMITTED))
        parents = (number, *parents)
    return parents


@contextmanager
def shown(driver: OverlayDriver, layer: Layer) -> Iterator[Path]:
    with temporarily_mounted(driver.mounts(layer), below=driver.home.parent) as place:
        yield place
    driver.release(layer.id)


def mounts_below(path: Path) -> list[bytes]:
    return [point.target for point in mountinfo() if point.target.startswith(os.fsencode(path) + b"/")]


# depth


@pytest.mark.parametrize("depth", [1, 128, 500, 501, 999, 1500])
def test_a_layer_on_a_stack_of_any_depth_shows_all_of_it_and_is_written(driver: OverlayDriver, depth: int) -> None:
    parents = grow(driver, depth)
    active = Layer(depth + 1, Kind.ACTIVE, parents)
    driver.prepare(active)

    with shown(driver, active) as root:
        assert len(os.listdir(root)) == depth + 1
        assert (root / "last").read_text() == str(depth)
        (root / "file1").unlink()
        (root / "written").touch()

    changes = driver.changes(active)
    assert sorted(os.listdir(changes.root)) == ["file1", "written"]
    with opened(changes.root, os.O_RDONLY) as directory:
        assert changes.whiteouts.is_whiteout(directory, b"file1", (changes.root / "file1").lstat())
    assert mounts_below(driver.home) == []


@pytest.mark.parametrize("depth", [1, 500, 501])
def test_committed_layers_and_views_are_shown_read_only(driver: OverlayDriver, depth: int) -> None:
    parents = grow(driver, depth)
    view = Layer(depth + 1, Kind.VIEW, parents)
    driver.prepare(view)

    for layer in (view, Layer(parents[0], Kind.COMMITTED, parents[1:])):
        with shown(driver, layer) as root:
            assert len(os.listdir(root)) == depth + 1
            with pytest.raises(OSError, match="Read-only"):
                (root / "new").touch()


def test_what_a_middle_run_removes_stays_removed(driver: OverlayDriver) -> None:
    parents = grow(driver, 1200)
    bottom, middle = (driver.changes(Layer(number, Kind.COMMITTED)).root for number in (5, 600))
    for name in ("gone", "kept", "dir/hidden", "other/deep/gone", "other/deep/kept"):
        (bottom / name).parent.mkdir(parents=True, exist_ok=True)
        (bottom / name).touch()
    (middle / "other/deep").mkdir(parents=True)
    (middle / "dir").mkdir()
    (middle / "dir/new").touch()
    for directory in (middle, middle / "other/deep"):
        with opened(directory, os.O_RDONLY) as descriptor:
            DIALECT.write_whiteout(descriptor, b"gone")
    with opened(middle / "dir", os.O_RDONLY) as descriptor:
        DIALECT.write_opaque(descriptor)

    with shown(driver, Layer(1201, Kind.VIEW, parents)) as root:
        assert not (root / "gone").exists()
        assert os.listdir(root / "dir") == ["new"]
        assert os.listdir(root / "other/deep") == ["kept"]
        assert (root / "kept").exists()


def test_runs_are_shared_and_go_with_the_last_of_their_users(driver: OverlayDriver) -> None:
    parents = grow(driver, 501)
    first, second = Layer(502, Kind.ACTIVE, parents), Layer(503, Kind.VIEW, parents)
    for layer in (first, second):
        driver.prepare(layer)
        driver.mounts(layer)

    assert len(mounts_below(driver.home)) == 1
    driver.release(502)
    with temporarily_mounted(driver.mounts(second), below=driver.home.parent) as root:
        assert len(os.listdir(root)) == 502
    driver.release(503)
    driver.release(503)
    assert mounts_below(driver.home) == []
    assert 503 not in driver.layers()


def test_runs_that_a_reboot_took_away_are_brought_up_again(driver: OverlayDriver) -> None:
    parents = grow(driver, 501)
    layer = Layer(502, Kind.ACTIVE, parents)
    driver.prepare(layer)
    before = driver.mounts(layer)
    for target in mounts_below(driver.home):
        unmount(Path(os.fsdecode(target)))

    again = OverlayDriver(driver.home)

    assert again.mounts(layer) == before
    with shown(again, layer) as root:
        assert len(os.listdir(root)) == 502


def test_many_threads_may_come_and_go_on_the_same_runs(driver: OverlayDriver) -> None:
    parents = grow(driver, 501)
    seen: list[int] = []

    def work(number: int) -> None:
        layer = Layer(number, Kind.VIEW, parents)
        driver.prepare(layer)
        for _ in range(5):
            with shown(driver, layer) as root:
                seen.append(len(os.listdir(root)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(600, 604)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [502] * 20
    assert mounts_below(driver.home) == []


def test_removing_a_layer_whose_run_is_still_mounted_unmounts_it(driver: OverlayDriver) -> None:
    parents = grow(driver, 501)
    driver.mounts(Layer(502, Kind.VIEW, parents))

    clear(driver)

    assert mounts_below(driver.home) == []
    assert os.listdir(driver.home) == []


def test_runs_keep_inode_numbers_when_a_file_is_written(driver: OverlayDriver) -> None:
    layer = Layer(502, Kind.ACTIVE, grow(driver, 501))
    driver.prepare(layer)

    with shown(driver, layer) as root:
        before = {name: (root / name).stat() for name in ("file1", "file500")}
        for name in before:
            (root / name).write_text("changed")

        for name, status in before.items():
            assert (root / name).stat().st_ino == status.st_ino


# a layer by chance: what stands at each of a few paths
ENTRIES = st.sampled_from(["file", "dir", "opaque", "whiteout"])
NAMES = ("a", "b")


def trees(levels: int) -> st.SearchStrategy[dict[str, Any]]:
    inside = trees(levels - 1) if levels else st.just({})
    return st.dictionaries(st.sampled_from(NAMES), st.tuples(ENTRIES, inside), max_size=2)


def plant(directory: Path, tree: dict[str, Any]) -> None:
    for name, (kind, inside) in tree.items():
        place = directory / name
        if kind == "file":
            place.write_text(os.fspath(place))
        elif kind == "whiteout":
            os.mknod(place, stat.S_IFCHR)
        else:
            place.mkdir()
            if kind == "opaque":
                os.setxattr(place, "trusted.overlay.opaque", b"y")
            plant(place, inside)


def seen(root: Path) -> dict[str, str | None]:
    # the kernel lists a whiteout with nothing below it, and then says that there is no such file
    there = [path for path in root.rglob("*") if os.path.lexists(path)]
    return {os.fspath(path.relative_to(root)): None if path.is_dir() else path.read_text() for path in there}


@settings(database=None, max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(trees(2), min_size=8, max_size=11))
def test_joined_runs_show_what_one_mount_would(tmp_path: Path, layers: list[dict[str, object]]) -> None:
    home = tmp_path / "random"
    driver = OverlayDriver(home)
    driver.start()
    parents = grow(driver, len(layers))
    for number, tree in enumerate(layers, start=1):
        plant(driver.changes(Layer(number, Kind.COMMITTED)).root, tree)
    view = Layer(len(layers) + 1, Kind.VIEW, parents)

    try:
        with shown(driver, view) as root:
            wanted = seen(root)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(joining, "MOST", 6)
            patch.setattr(joining, "LENGTH", 4)  # a run gives two layers up for four: two runs at ten and more
            with shown(driver, view) as root:
                assert seen(root) == wanted
    finally:
        clear(driver)
        shutil.rmtree(home)


# a layer and its parent


def test_the_root_begins_as_the_parents(driver: OverlayDriver) -> None:
    grow(driver, 1)
    parent = driver.changes(Layer(1, Kind.COMMITTED)).root
    os.chown(parent, 11, 22)
    parent.chmod(0o1751)
    os.setxattr(parent, "user.mine", b"x")
    os.setxattr(parent, "trusted.overlay.opaque", b"y")
    os.utime(parent, ns=(1, 2))

    child = Layer(2, Kind.ACTIVE, (1,))
    driver.prepare(child)

    root = driver.changes(child).root
    status = root.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777, status.st_mtime_ns) == (11, 22, 0o1751, 2)
    assert os.listxattr(root) == ["user.mine"]


def test_a_layer_that_is_put_onto_a_parent_takes_its_root_unless_it_brought_its_own(driver: OverlayDriver) -> None:
    grow(driver, 1)
    driver.changes(Layer(1, Kind.COMMITTED)).root.chmod(0o700)
    for number, mode in ((2, None), (3, 0o711)):
        driver.prepare(Layer(number, Kind.ACTIVE))
        if mode:
            driver.changes(Layer(number, Kind.ACTIVE)).root.chmod(mode)
        driver.commit(Layer(number, Kind.COMMITTED, (1,)))

    modes = [driver.changes(Layer(number, Kind.COMMITTED)).root.stat().st_mode & 0o777 for number in (2, 3)]

    assert modes == [0o700, 0o711]


def test_renaming_a_parents_directory_is_exdev_and_a_new_one_is_not(driver: OverlayDriver) -> None:
    grow(driver, 1)
    (driver.changes(Layer(1, Kind.COMMITTED)).root / "dir").mkdir()
    child = Layer(2, Kind.ACTIVE, (1,))
    driver.prepare(child)

    with shown(driver, child) as root:
        with pytest.raises(OSError, match="cross-device") as caught:
            (root / "dir").rename(root / "renamed")
        (root / "new").mkdir()
        (root / "new").rename(root / "newer")

    assert caught.value.errno == errno.EXDEV


def test_a_redirect_that_came_with_a_layer_leads_nowhere(driver: OverlayDriver) -> None:
    grow(driver, 2)
    (driver.changes(Layer(1, Kind.COMMITTED)).root / "secret").mkdir()
    (driver.changes(Layer(1, Kind.COMMITTED)).root / "secret/key").touch()
    trap = driver.changes(Layer(2, Kind.COMMITTED)).root / "trap"
    trap.mkdir()
    os.setxattr(trap, "trusted.overlay.redirect", b"/secret")
    child = Layer(3, Kind.ACTIVE, (2, 1))
    driver.prepare(child)

    # the kernel refuses to follow it (`redirect_dir=nofollow` in Documentation/filesystems/overlayfs.rst)
    with shown(driver, child) as root, pytest.raises(PermissionError):
        (root / "trap/key").stat()


def test_a_half_removed_layer_is_told_and_removed_for_good(driver: OverlayDriver) -> None:
    grow(driver, 2)
    (driver.home / "2").rename(driver.home / "2.gone")

    assert driver.layers() == {1, 2}
    driver.remove(2)

    assert os.listdir(driver.home) == ["1"]


@pytest.mark.parametrize("name", ["a:b,c", "d\\e f\n", "n" * 250])
def test_the_home_may_have_any_name(tmp_path: Path, name: str) -> None:
    driver = OverlayDriver(tmp_path / name / "layers")
    driver.start()
    layer = Layer(31, Kind.ACTIVE, grow(driver, 30))
    driver.prepare(layer)

    with shown(driver, layer) as root:
        (root / "written").touch()
        assert len(os.listdir(root)) == 32
    clear(driver)


# whiteouts


def _refuse_devices(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no devices here")

    patch.setattr(os, "mknod", refuse)


@pytest.mark.skipif(not kernel_reads_attributes(), reason="needs Linux 6.8, which reads removals written as attributes")
def test_removals_as_attributes_are_understood_by_the_kernel_and_by_us(
    driver: OverlayDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(driver, 3)
    middle = driver.changes(Layer(2, Kind.COMMITTED)).root
    for name in ("dir/gone", "dir/kept"):
        (driver.changes(Layer(1, Kind.COMMITTED)).root / name).parent.mkdir(exist_ok=True)
        (driver.changes(Layer(1, Kind.COMMITTED)).root / name).touch()
    (middle / "dir").mkdir()

    _refuse_devices(monkeypatch)
    with opened(middle / "dir", os.O_RDONLY) as directory:
        DIALECT.write_whiteout(directory, b"gone")
        assert DIALECT.is_whiteout(directory, b"gone", (middle / "dir/gone").lstat())
        assert not DIALECT.is_opaque(directory)

    with shown(driver, Layer(4, Kind.VIEW, (3, 2, 1))) as root:
        assert os.listdir(root / "dir") == ["kept"]
    with opened(middle / "dir", os.O_RDONLY) as directory:
        DIALECT.write_opaque(directory)
        assert DIALECT.is_opaque(directory)
    assert os.listdir(middle / "dir") == []


def test_a_removal_that_the_kernel_would_not_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse_devices(monkeypatch)
    monkeypatch.setattr(overlaydialect, "kernel_reads_attributes", lambda: False)  # as before Linux 6.8

    with opened(tmp_path, os.O_RDONLY) as directory, pytest.raises(PermissionError, match="no devices here"):
        DIALECT.write_whiteout(directory, b"gone")

    assert os.listdir(tmp_path) == []


def test_an_empty_file_and_another_device_are_no_removals(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mknod(tmp_path / "null", stat.S_IFCHR, os.makedev(1, 3))

    with opened(tmp_path, os.O_RDONLY) as directory:
        for name in (b"empty", b"null"):
            assert not DIALECT.is_whiteout(directory, name, (tmp_path / os.fsdecode(name)).lstat())


@pytest.mark.parametrize("name", ["trusted.overlay.opaque", "trusted.overlay.overlay.opaque", "user.overlay.origin"])
def test_overlays_own_attributes_are_private(name: str) -> None:
    assert DIALECT.is_private_xattr(name)
    assert not DIALECT.is_private_xattr("user.overlaying")


# volatile


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[OverlayDriver]:
    started = OverlayDriver(tmp_path / "hasty", OverlayOptions(volatile=True))
    started.start()
    grow(started, 1)
    yield started
    clear(started)


def test_a_volatile_layer_is_mounted_again_in_the_same_boot(hasty: OverlayDriver) -> None:
    layer = Layer(2, Kind.ACTIVE, (1,))
    hasty.prepare(layer)

    for name in ("first", "second"):
        with shown(hasty, layer) as root:
            (root / name).touch()

    with shown(hasty, layer) as root:
        assert {"first", "second"} <= set(os.listdir(root))
    assert "volatile" in hasty.mounts(layer)[0].options


@pytest.mark.parametrize("note", ["another boot", ""])
def test_a_volatile_layer_of_another_boot_is_neither_mounted_nor_committed(hasty: OverlayDriver, note: str) -> None:
    layer = Layer(2, Kind.ACTIVE, (1,))
    hasty.prepare(layer)
    with shown(hasty, layer) as root:
        (root / "file").touch()
    (hasty.home / "2/volatile").write_text(note)

    for refused in (lambda: hasty.mounts(layer), lambda: hasty.commit(attrs.evolve(layer, kind=Kind.COMMITTED))):
        with pytest.raises(StoreBroken, match="cannot be trusted: remove it"):
            refused()
    plain = OverlayDriver(hasty.home)  # also without the option
    with pytest.raises(StoreBroken):
        plain.mounts(layer)

    hasty.remove(2)
    assert hasty.layers() == {1}


def test_a_lost_note_means_mistrust_as_well(hasty: OverlayDriver) -> None:
    layer = Layer(2, Kind.ACTIVE, (1,))
    hasty.prepare(layer)
    with shown(hasty, layer):
        pass
    (hasty.home / "2/volatile").unlink()

    with pytest.raises(StoreBroken):
        hasty.mounts(layer)


def test_a_committed_volatile_layer_is_like_any_other(hasty: OverlayDriver) -> None:
    layer = Layer(2, Kind.ACTIVE, (1,))
    hasty.prepare(layer)
    with shown(hasty, layer) as root:
        (root / "file").write_text("x")

    hasty.commit(attrs.evolve(layer, kind=Kind.COMMITTED))

    assert not (hasty.home / "2/volatile").exists()
    with shown(OverlayDriver(hasty.home), Layer(3, Kind.VIEW, (2, 1))) as root:
        assert (root / "file").read_text() == "x"


# options


@pytest.mark.parametrize("option", ["index=on", "metacopy=on", "redirect_dir=on", "volatile", "upperdir=/x", "a,b", ""])
def test_options_that_would_break_a_layer_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=r"drivers\.overlay\.mount_options"):
        OverlayOptions(mount_options=[option])


def test_mount_options_reach_every_mount(tmp_path: Path) -> None:
    driver = OverlayDriver(tmp_path / "layers", OverlayOptions(mount_options=["nodev", "xino=on"]))
    driver.start()
    grow(driver, 2)

    for layer in (Layer(1, Kind.COMMITTED), Layer(2, Kind.COMMITTED, (1,))):
        with shown(driver, layer) as root:
            assert os.statvfs(root).f_flag & os.ST_NODEV
    clear(driver)


# health


def test_health_is_asked_once_a_boot_and_again_when_anything_changed(
    driver: OverlayDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def try_out(*_: object, **__: object) -> Found:
        asked.append(1)
        return Found(lacking=frozenset({Ability.TMPFILE}))

    monkeypatch.setattr(probes, "try_out", try_out)

    answers = [driver.health(), driver.health()]
    note = driver.home / "probes.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"asked": {}}))
    answers.append(driver.health())
    note.write_text("damaged")
    answers.append(driver.health())
    lacking = driver.lacking() - driver.cannot

    assert lacking == {Ability.TMPFILE}
    assert all(answer == answers[0] for answer in answers)
    assert len(asked) == 3
    assert driver.layers() == set()


def test_health_without_a_home_leaves_nothing_where_the_home_would_be(tmp_path: Path) -> None:
    assert OverlayDriver(tmp_path / "not/yet/there", OverlayOptions(volatile=True)).health().ok

    assert os.listdir(tmp_path) == []


def test_health_refuses_a_home_on_another_overlay(driver: OverlayDriver) -> None:
    grow(driver, 2)
    active = Layer(3, Kind.ACTIVE, (2, 1))
    driver.prepare(active)

    with shown(driver, active) as root:
        problems = OverlayDriver(root / "layers").health().problems

    assert len(problems) == 1
    assert "lies on overlay" in problems[0]


def test_health_refuses_a_file_system_without_attributes(tmp_path: Path) -> None:
    place = tmp_path / "ramfs"
    place.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", place], check=True)
    try:
        health = OverlayDriver(place / "layers").health()
    finally:
        unmount(place)

    assert not health.ok
    assert "attribute" in health.problems[0]


def test_what_a_killed_probe_left_is_removed_and_one_at_work_is_not(driver: OverlayDriver) -> None:
    (driver.home / ".probe-dead/upper").mkdir(parents=True)

    with probes._probe_directory(driver.home) as alive:  # noqa: SLF001  # what a second process would hold
        driver.start()
        left = os.listdir(driver.home)

    assert left == [alive.name]

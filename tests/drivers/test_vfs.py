"""What is particular to vfs; everything else is the suite's business."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.layer import Kind, Layer
from lamina.trees import remove_tree
from lamina_vfs.driver import VfsDriver

needs_root = pytest.mark.needs_root


@pytest.fixture
def vfs(tmp_path: Path) -> Iterator[VfsDriver]:
    driver = VfsDriver(tmp_path / "layers")
    driver.start()
    yield driver
    remove_tree(driver.home)


def active(number: int, *parents: int) -> Layer:
    return Layer(number, Kind.ACTIVE, parents)


def view(number: int, *parents: int) -> Layer:
    return Layer(number, Kind.VIEW, parents)


def test_a_view_costs_nothing_and_shows_its_parent_read_only(vfs: VfsDriver) -> None:
    vfs.prepare(active(1))
    vfs.prepare(view(2, 1))

    (mount,) = vfs.mounts(view(2, 1))

    assert vfs.layers() == {1}
    assert mount.source == os.fspath(vfs.home / "1")
    assert "ro" in mount.options


def test_a_view_of_nothing_is_an_empty_directory(vfs: VfsDriver) -> None:
    vfs.prepare(view(1))

    (mount,) = vfs.mounts(view(1))

    assert os.listdir(mount.source) == []


@needs_root
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_child_has_the_root_directory_of_its_parent(vfs: VfsDriver, umask: int) -> None:
    vfs.prepare(active(1))
    root = vfs.home / "1"
    os.chown(root, 5, 6)
    os.chmod(root, 0o3711)
    os.setxattr(root, "user.of-the-root", b"1")
    os.utime(root, ns=(1, 123456789))
    before = os.umask(umask)
    try:
        vfs.prepare(active(2, 1))
    finally:
        os.umask(before)

    status = (vfs.home / "2").stat()

    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (5, 6, 0o3711)
    assert status.st_mtime_ns == 123456789
    assert os.getxattr(vfs.home / "2", "user.of-the-root") == b"1"


def test_a_half_copy_is_never_taken_for_a_layer(vfs: VfsDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    vfs.prepare(active(1))
    (vfs.home / "1" / "file").write_text("x")

    def fail(*_: object) -> None:
        raise OSError("the lights go out")

    with monkeypatch.context() as patch:
        patch.setattr("lamina_vfs.driver.copy_tree", fail)
        with pytest.raises(OSError, match="lights"):
            vfs.prepare(active(2, 1))
    half_made = vfs.layers()
    shown = (vfs.home / "2").exists()
    vfs.prepare(active(2, 1))

    assert half_made == {1, 2}
    assert not shown
    assert (vfs.home / "2" / "file").read_text() == "x"
    assert sorted(os.listdir(vfs.home)) == ["1", "2"]


@pytest.mark.parametrize("left", ["2", "2.new", "2.old"])
def test_removing_clears_whatever_an_interruption_left(vfs: VfsDriver, left: str) -> None:
    (vfs.home / left / "sub").mkdir(parents=True)

    vfs.remove(2)
    vfs.remove(2)

    assert os.listdir(vfs.home) == []


@needs_root
def test_a_layer_whose_root_is_immutable_is_removed(vfs: VfsDriver) -> None:
    vfs.prepare(active(1))
    (vfs.home / "1" / "file").write_text("x")
    if subprocess.run(["chattr", "+i", vfs.home / "1"], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no immutable flag")

    vfs.remove(1)

    assert vfs.layers() == set()


def test_others_may_not_enter_the_home(vfs: VfsDriver) -> None:
    assert stat.S_IMODE(vfs.home.stat().st_mode) == 0o700


def test_health_tells_whether_copies_share_blocks_and_leaves_no_trace(tmp_path: Path) -> None:
    health = VfsDriver(tmp_path / "not" / "there").health()

    assert health.ok
    assert "copies" in health.notes[0]
    assert list(tmp_path.iterdir()) == []


def test_the_home_may_move(vfs: VfsDriver, tmp_path: Path) -> None:
    vfs.prepare(active(1))
    (vfs.home / "1" / "file").write_text("x")
    vfs.home.rename(tmp_path / "elsewhere")

    moved = VfsDriver(tmp_path / "elsewhere")
    moved.prepare(active(2, 1))

    assert (moved.home / "2" / "file").read_text() == "x"
    remove_tree(moved.home)

"""What a kernel with aufs does with our layers; run in the guest of the lane `aufs` (LAMINA_AUFS_KERNEL)."""

from __future__ import annotations

import errno
import io
import os
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamina.errors import DriverFailed, NoSpace
from lamina.layer import Kind, Layer
from lamina.mount import Mount, depth_of, mount_all, mountinfo, unmount
from lamina.snapshotter import Snapshotter
from lamina_aufs.driver import AufsDriver

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(
        "\taufs\n" not in Path("/proc/filesystems").read_text(),
        reason="this kernel has no aufs; see LAMINA_AUFS_KERNEL",
    ),
]


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that everybody may pass; those of pytest are their owner's."""
    place = Path(tempfile.mkdtemp(prefix="lamina-aufs-", dir="/run"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def snapshots(tmp_path: Path) -> Iterator[Snapshotter]:
    home = tmp_path / "store/aufs/layers"
    with Snapshotter(tmp_path / "store", AufsDriver(home)) as opened:
        yield opened


@contextmanager
def shown(snapshots: Snapshotter, key: str, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    snapshots.mount(key, place)
    try:
        yield place
    finally:
        snapshots.unmount(place)


def grow(
    snapshots: Snapshotter, name: str, change: Callable[[Path], object], place: Path, parent: str | None = None
) -> None:
    snapshots.prepare(f"{name} growing", parent)
    with shown(snapshots, f"{name} growing", place) as root:
        change(root)
    snapshots.commit(name, f"{name} growing")


def fs_of(snapshots: Snapshotter, number: int) -> Path:
    return snapshots.driver.home / str(number) / "fs"


def aufs_mounts() -> list[str]:
    return [os.fsdecode(point.target) for point in mountinfo() if point.type == b"aufs"]


# how it is mounted


def test_health_tells_the_version_and_leaves_no_trace(tmp_path: Path) -> None:
    health = AufsDriver(tmp_path / "layers").health()

    assert health.ok
    assert health.notes[0].startswith("aufs ")
    assert "NANOSECOND_TIMES" in health.notes[0]
    assert (list(tmp_path.iterdir()), aufs_mounts()) == ([], [])


def test_a_file_system_that_aufs_does_not_take_is_a_problem_in_one_line(snapshots: Snapshotter, tmp_path: Path) -> None:
    snapshots.prepare("active")

    with shown(snapshots, "active", tmp_path / "at") as root:
        (problem,) = AufsDriver(root / "layers").health().problems

    assert "aufs cannot be mounted" in problem
    assert "\n" not in problem


def test_a_writable_layer_is_joined_once_and_shown_by_bind_mounts(snapshots: Snapshotter, tmp_path: Path) -> None:
    grow(snapshots, "base", lambda root: (root / "file").write_text("x"), tmp_path / "at")

    first, again = snapshots.prepare("active", "base"), snapshots.mounts("active")

    assert first == again
    assert [mount.type for mount in first] == ["bind"]
    (place,) = aufs_mounts()
    assert place == first[0].source
    point = next(point for point in mountinfo() if point.type == b"aufs")
    assert {b"dio", b"acl", b"dirperm1"} <= set(point.super_options.split(b","))
    snapshots.remove("active")
    assert aufs_mounts() == []


def test_the_file_of_inode_numbers_lies_on_a_tmpfs_and_has_no_name(snapshots: Snapshotter, tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    snapshots.prepare("active")

    with shown(snapshots, "active", tmp_path / "at"):
        assert set(os.listdir("/dev/shm")) == before


@pytest.mark.parametrize("depth", [2, 60, 126, 127, 128, 500])
def test_a_stack_of_any_depth_is_shown_whole(tmp_path: Path, depth: int) -> None:
    """60 branches take one call, 126 take another; what is deeper is flattened."""
    driver = AufsDriver(tmp_path / "layers")
    driver.start()
    for number in range(1, depth + 1):
        driver.prepare(Layer(number, Kind.ACTIVE, tuple(range(number - 1, 0, -1))))
        fs = driver.home / str(number) / "fs"
        (fs / f"file{number}").touch()
        (fs / "last").write_text(str(number))
        if number % 3 == 0:
            (fs / f".wh.file{number - 1}").touch()
    parents = tuple(range(depth, 0, -1))
    expected = {f"file{number}" for number in range(1, depth + 1) if not ((number + 1) % 3 == 0 and number < depth)}
    place = tmp_path / "at"
    place.mkdir()

    for layer in (Layer(depth + 1, Kind.ACTIVE, parents), Layer(depth + 2, Kind.VIEW, parents)):
        driver.prepare(layer)
        mounts = driver.mounts(layer)
        mount_all(mounts, place)
        try:
            assert set(os.listdir(place)) == expected | {"last"}
            assert (place / "last").read_text() == str(depth)
        finally:
            unmount(place, times=depth_of(mounts))
        driver.release(layer.id)
    driver.stop()


def test_a_directory_that_was_opened_to_others_above_is_open_to_them(open_place: Path) -> None:
    """dirperm1: the topmost mode counts, not each one below."""

    def closed(root: Path) -> None:
        (root / "dir").mkdir(mode=0o700)
        (root / "dir/file").write_text("x")

    place = open_place / "at"
    with Snapshotter(open_place, AufsDriver(open_place / "aufs/layers")) as snapshots:
        grow(snapshots, "base", closed, place)
        snapshots.prepare("active", "base")
        with shown(snapshots, "active", place) as root:
            (root / "dir").chmod(0o755)
            told = subprocess.run(["cat", root / "dir/file"], user=65534, capture_output=True, text=True, check=False)
        snapshots.remove("active")

    assert told.stdout == "x", told.stderr


def test_what_is_mounted_inside_of_a_root_is_not_mounted_in_the_store(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    mount_all([Mount("tmpfs", "none")], shared)
    subprocess.run(["mount", "--make-shared", shared], check=True)
    try:
        with Snapshotter(shared, AufsDriver(shared / "aufs/layers")) as others:
            others.prepare("active")
            with shown(others, "active", shared / "at") as root:
                (root / "inside").mkdir()
                mount_all([Mount("tmpfs", "none")], root / "inside")
                try:
                    assert sum(point.target.endswith(b"/inside") for point in mountinfo()) == 1
                finally:
                    unmount(root / "inside")
            others.remove("active")
    finally:
        unmount(shared)


# names that aufs only remembers


def linked(root: Path) -> None:
    (root / "dir").mkdir()
    (root / "one").write_text("old")
    os.link(root / "one", root / "two")
    os.link(root / "one", root / "dir/three")


def linked_and_written(root: Path) -> None:
    os.link(root / "one", root / "four")
    (root / "dir/three").write_text("new")


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda root: (root / "one").write_text("new"), {"one", "two", "dir/three"}),
        (lambda root: [(root / "one").write_text("new"), (root / "one").unlink()], {"two", "dir/three"}),
        (lambda root: [(root / "one").write_text("new"), (root / "one").rename(root / "four")], {"two", "four"}),
        (lambda root: [(root / "one").rename(root / "four"), (root / "four").write_text("new")], {"two", "four"}),
        (linked_and_written, {"one", "four"}),
    ],
    ids=["written", "written and removed", "written and renamed", "renamed and written", "linked and written"],
)
def test_names_of_a_written_file_stay_together_after_the_mount(
    snapshots: Snapshotter, tmp_path: Path, change: Callable[[Path], object], kept: set[str]
) -> None:
    grow(snapshots, "base", linked, tmp_path / "at")

    grow(snapshots, "child", change, tmp_path / "at", parent="base")

    with snapshots.look("child") as root:
        assert {(root / name).read_text() for name in kept} == {"new"}
        assert len({(root / name).stat().st_ino for name in kept}) == 1
    with snapshots.look("base") as root:
        assert (root / "two").read_text() == "old"


def test_writing_names_down_takes_no_privilege_from_a_file(snapshots: Snapshotter, tmp_path: Path) -> None:
    def base(root: Path) -> None:
        linked(root)
        (root / "one").chmod(0o6755)
        os.utime(root / "one", (1, 2))
        (root / "link").symlink_to("nowhere")
        os.link(root / "link", root / "same", follow_symlinks=False)

    def change(root: Path) -> None:
        os.setxattr(root / "one", "user.lamina", b"x")
        os.chown(root / "link", 1, 2, follow_symlinks=False)

    grow(snapshots, "base", base, tmp_path / "at")
    grow(snapshots, "child", change, tmp_path / "at", parent="base")

    with snapshots.look("child") as root:
        status = (root / "two").stat()
        assert (status.st_mode & 0o7777, status.st_mtime) == (0o6755, 2)
        assert os.getxattr(root / "dir/three", "user.lamina") == b"x"
        assert ((root / "same").lstat().st_uid, os.readlink(root / "same")) == (1, "nowhere")


def test_a_program_that_lost_its_capability_can_be_diffed(snapshots: Snapshotter, tmp_path: Path) -> None:
    """aufs leaves an empty one, which nobody can read."""

    def base(root: Path) -> None:
        (root / "ping").write_text("x")
        os.setxattr(root / "ping", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))

    grow(snapshots, "base", base, tmp_path / "at")
    grow(snapshots, "child", lambda root: (root / "ping").write_text("y"), tmp_path / "at", parent="base")

    out = io.BytesIO()
    snapshots.diff("child", out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert not any("capability" in key for key in tar.getmember("ping").pax_headers)


def test_the_diff_of_a_layer_that_is_mounted_tells_of_every_name(snapshots: Snapshotter, tmp_path: Path) -> None:
    grow(snapshots, "base", linked, tmp_path / "at")
    snapshots.prepare("child", "base")

    with shown(snapshots, "child", tmp_path / "at") as root:
        (root / "one").write_text("new")
        told = {change.path for change in snapshots.changes("child")}

    assert told >= {b"one", b"two", b"dir/three"}


# what aufs keeps for itself


def test_nothing_of_aufs_itself_is_in_a_layer_or_its_diff(snapshots: Snapshotter, tmp_path: Path) -> None:
    def change(root: Path) -> None:
        (root / "one").write_text("new")
        (root / "dir/three").unlink()
        (root / "dir").rmdir()

    grow(snapshots, "base", linked, tmp_path / "at")
    grow(snapshots, "child", change, tmp_path / "at", parent="base")

    out = io.BytesIO()
    snapshots.diff("child", out)
    out.seek(0)
    names = [path.name for path in (snapshots.driver.home).rglob(".wh.*")]
    assert names == [".wh.dir"]
    with tarfile.open(fileobj=out) as tar:
        assert {name for name in tar.getnames() if name.startswith(".wh.")} == {".wh.dir"}


def test_a_directory_made_anew_twice_hides_also_what_was_between(snapshots: Snapshotter, tmp_path: Path) -> None:
    """aufs cuts a stack at the lowest of two opaque directories, so that committed layers have none."""

    def anew(name: str) -> Callable[[Path], None]:
        def change(root: Path) -> None:
            for path in (root / "dir").iterdir():
                path.unlink()
            (root / "dir").rmdir()
            (root / "dir").mkdir()
            (root / "dir" / name).touch()

        return change

    grow(snapshots, "one", linked, tmp_path / "at")
    grow(snapshots, "two", anew("two"), tmp_path / "at", parent="one")
    grow(snapshots, "three", anew("three"), tmp_path / "at", parent="two")
    snapshots.prepare("four", "three")

    with snapshots.look("three") as three, snapshots.look("four") as four:
        assert (os.listdir(three / "dir"), os.listdir(four / "dir")) == (["three"], ["three"])
    assert list(snapshots.driver.home.rglob(".wh..wh..opq")) == []


# how it fails


def test_a_layer_whose_names_find_no_room_is_not_committed_and_can_be_removed(
    snapshots: Snapshotter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fs: Path, _joined: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    grow(snapshots, "base", linked, tmp_path / "at")
    snapshots.prepare("active", "base")

    with monkeypatch.context() as patch:
        patch.setattr("lamina_aufs.joint.settle", full)
        with pytest.raises(NoSpace):
            snapshots.commit("done", "active")
        snapshots.remove("active")

    assert aufs_mounts() == []
    assert [one.name for one in snapshots.list()] == ["base"]


def test_somebody_in_our_own_mount_is_an_error_and_the_layer_stays(
    snapshots: Snapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamina_aufs.joint._PATIENCE", 0.2)
    (mount,) = snapshots.prepare("active")
    Path(mount.source, "file").write_text("kept")

    with Path(mount.source, "file").open(), pytest.raises(DriverFailed, match="busy"):
        snapshots.commit("done", "active")

    snapshots.commit("done", "active")
    with snapshots.look("done") as root:
        assert (root / "file").read_text() == "kept"


def test_names_that_mean_something_to_aufs_are_refused_by_the_kernel(snapshots: Snapshotter, tmp_path: Path) -> None:
    snapshots.prepare("active")

    with shown(snapshots, "active", tmp_path / "at") as root:
        with pytest.raises(PermissionError):
            (root / ".wh.file").touch()
        with pytest.raises(OSError, match="too long"):
            (root / ("n" * 243)).touch()
        (root / ("n" * 242)).touch()

"""What is particular to aufs, on plain directories; test_aufs_kernel.py is for kernels that have it."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path

import pytest

from lamina.archive import apply_direct
from lamina.changes import ChangesTree
from lamina.diff.walking import Recorded
from lamina.errors import BadArchive
from lamina.layer import Kind, Layer
from lamina.mount import Mount, mount_all, unmount
from lamina.syscalls import opened
from lamina_aufs.branches import MOST, STEP, aufs_mounts, to_be_flattened
from lamina_aufs.driver import AufsDriver
from lamina_aufs.flattening import flatten
from lamina_aufs.marks import spell_out
from lamina_aufs.whiteouts import AufsWhiteouts

needs_root = pytest.mark.needs_root
DIALECT = AufsWhiteouts()


def has_aufs() -> bool:
    return "\taufs" in Path("/proc/filesystems").read_text()


def tree(place: Path, **files: str) -> Path:
    place.mkdir(parents=True)
    for name, text in files.items():
        (place / name.replace("__", "/")).parent.mkdir(exist_ok=True)
        (place / name.replace("__", "/")).write_text(text)
    return place


def active(number: int, *parents: int) -> Layer:
    return Layer(number, Kind.ACTIVE, parents)


@pytest.fixture
def driver(tmp_path: Path) -> AufsDriver:
    made = AufsDriver(tmp_path / "layers")
    made.start()
    return made


@pytest.mark.skipif(has_aufs(), reason="this kernel has aufs")
def test_a_kernel_without_aufs_is_told_in_one_line(tmp_path: Path) -> None:
    health = AufsDriver(tmp_path / "layers").health()

    (problem,) = health.problems
    assert "no aufs" in problem
    assert "\n" not in problem
    assert list(tmp_path.iterdir()) == []


def test_a_removal_is_a_file_with_a_prefix_and_hides_the_name_without_it(tmp_path: Path) -> None:
    with opened(tmp_path, os.O_RDONLY) as directory:
        DIALECT.write_whiteout(directory, b"gone")
        status = os.stat(b".wh.gone", dir_fd=directory)

        assert DIALECT.is_whiteout(directory, b".wh.gone", status)
        assert DIALECT.hidden_by(b".wh.gone") == b"gone"
        assert not DIALECT.is_whiteout(directory, b"gone", status)

        DIALECT.remove_whiteout(directory, b"gone")
        assert os.listdir(directory) == []


def test_an_opaque_directory_holds_a_mark_that_is_nobody_elses(tmp_path: Path) -> None:
    with opened(tmp_path, os.O_RDONLY) as directory:
        before = DIALECT.is_opaque(directory)
        DIALECT.write_opaque(directory)
        DIALECT.write_opaque(directory)

        assert (before, DIALECT.is_opaque(directory)) == (False, True)
        assert all(map(DIALECT.is_private_name, os.listdir(os.fsencode(tmp_path))))


@pytest.mark.parametrize("name", [b".wh..wh.aufs", b".wh..wh.orph", b".wh..wh.plnk", b".wh..wh..opq"])
def test_what_aufs_keeps_for_itself_is_never_part_of_a_layer(name: bytes) -> None:
    assert DIALECT.is_private_name(name)
    assert not DIALECT.is_whiteout(-1, name, os.stat(__file__))


def test_a_diff_reads_the_dialect(tmp_path: Path) -> None:
    below = tree(tmp_path / "below", gone="1", kept="1")
    above = tree(tmp_path / "above", **{".wh.gone": "", ".wh..wh.plnk": "", "new": "2"})
    with opened(below, os.O_RDONLY) as old, opened(above, os.O_RDONLY) as new:
        names, hidden = Recorded(ChangesTree(above, DIALECT)).names(new, old, hidden=False)

    assert not hidden
    assert [(name, status is None) for name, status in names] == [(b"gone", True), (b"new", False)]


def test_a_mount_names_its_branches_from_the_top() -> None:
    (mount,) = aufs_mounts(["/u", "/l2", "/l1"], ("dio", "xino=/dev/shm/x"), writable=True)

    assert mount.type == "aufs"
    assert mount.options == ("rw", "br:/u=rw:/l2=ro+wh:/l1=ro+wh", "dio", "xino=/dev/shm/x")


def test_branches_that_do_not_fit_into_a_page_are_appended() -> None:
    branches = [f"/run/lamina-aufs-fd00-1a2b3c/{number}/{'x' * 30}" for number in range(100)]

    first, *later = aufs_mounts(branches, ("dio",), writable=False)

    assert len(",".join(first.options[1:])) < 4096
    assert all(mount.options[:2] == ("remount", "ro") for mount in later)
    named = [word.removeprefix("append:") for mount in later for word in mount.options[2:]]
    shown = first.options[1].removeprefix("br:").split(":") + named
    assert shown == [f"{branch}=ro+wh" for branch in branches]
    assert all(len(",".join(mount.options[2:])) < 4096 for mount in later)
    assert len(later) == 1  # as many at once as a remount takes


def test_no_call_names_more_than_aufs_has_room_for() -> None:
    """One more than 85, however short they are, and the kernel panics."""
    mounts = aufs_mounts([f"/{number}" for number in range(127)], ("dio", "acl"), writable=True)

    branches = [sum(option.count("=r") for option in mount.options) for mount in mounts]
    assert sum(branches) == 127
    assert max(branches) <= 64


@pytest.mark.parametrize("depth", [1, 2, MOST, MOST + 1, 200, 500, 1000])
def test_a_stack_of_any_depth_leaves_as_many_branches_as_aufs_takes(depth: int) -> None:
    number = to_be_flattened(depth)

    assert number % STEP == 0
    assert number <= depth
    assert depth - number + bool(number) <= MOST
    assert (number == 0) == (depth <= MOST)


@needs_root
def test_flattened_layers_show_what_a_union_would(tmp_path: Path) -> None:
    one = tree(tmp_path / "1", a="1", b="1", dir__old="1", swapped="a file")
    two = tree(tmp_path / "2", **{".wh.a": "", "b": "2", "swapped__inside": "2"})
    three = tree(tmp_path / "3", dir__new="3")
    os.link(three / "dir/new", three / "dir/twin")
    (three / "dir").chmod(0o711)
    with opened(three / "dir", os.O_RDONLY) as directory:
        DIALECT.write_opaque(directory)

    flatten([one, two, three], tmp_path / "flat", DIALECT)

    flat = tmp_path / "flat"
    assert sorted(os.listdir(flat)) == ["b", "dir", "swapped"]
    assert (flat / "b").read_text() == "2"
    assert sorted(os.listdir(flat / "dir")) == ["new", "twin"]
    assert (flat / "dir/new").samefile(flat / "dir/twin")
    assert (flat / "dir").stat().st_mode & 0o7777 == 0o711
    assert os.listdir(flat / "swapped") == ["inside"]
    assert (one / "a").read_text() == "1"


@needs_root
def test_a_deep_stack_stands_on_a_flattened_one_that_is_made_once(driver: AufsDriver) -> None:
    for number in range(1, 201):
        driver.prepare(active(number))
        (driver.home / str(number) / "fs" / f"file{number}").touch()
    view = Layer(201, Kind.VIEW, tuple(range(200, 0, -1)))
    driver.prepare(view)

    mounts = driver.mounts(view)
    again = driver.mounts(view)

    number = to_be_flattened(200)
    words = ",".join(option for mount in mounts for option in mount.options)
    assert mounts == again
    assert words.count("=ro+wh") == 200 - number + 1
    assert f"/{number}/flat=ro+wh" in words
    assert len(os.listdir(driver.home / str(number) / "flat")) == number
    driver.stop()


def test_a_home_with_separators_in_its_name_is_named_by_a_link_without(tmp_path: Path) -> None:
    driver = AufsDriver(tmp_path / "a:b,c=d" / "layers")
    driver.start()
    driver.prepare(active(1))
    driver.prepare(active(2, 1))

    (mount,) = driver.mounts(Layer(3, Kind.VIEW, (2, 1)))

    branches = mount.options[1].removeprefix("br:").split(":")
    upper, lower = (Path(branch.rpartition("=")[0]) for branch in branches)
    assert upper.samefile(driver.home / "2/fs")
    assert lower.samefile(driver.home / "1/fs")
    driver.stop()
    assert not upper.parents[1].exists()


def test_what_a_killed_trial_has_left_goes_at_the_next_start(driver: AufsDriver) -> None:
    tree(driver.home / ".trial-killed", lower__file="x")

    driver.start()

    assert os.listdir(driver.home) == []


def test_a_layer_that_is_busy_for_a_moment_is_removed_all_the_same(
    driver: AufsDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.prepare(active(1))
    answers = [errno.EBUSY, errno.EBUSY]
    rename = Path.rename

    def busy_at_first(self: Path, target: Path) -> Path:
        if answers:
            raise OSError(answers.pop(), "busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", busy_at_first)

    driver.remove(1)

    assert driver.layers() == set()
    assert not answers


@needs_root
def test_a_layer_that_stays_busy_is_an_error_and_stays_whole(
    driver: AufsDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.prepare(active(1))
    monkeypatch.setattr("lamina.layerdirs._PATIENCE", 0.1)
    mount_all([Mount("tmpfs", "none")], driver.home / "1")  # a mount point cannot be renamed
    try:
        with pytest.raises(OSError, match="busy"):
            driver.remove(1)
    finally:
        unmount(driver.home / "1")

    assert (driver.home / "1/fs").is_dir()
    assert driver.layers() == {1}


def test_commit_leaves_nothing_of_aufs_itself(driver: AufsDriver) -> None:
    driver.prepare(active(1))
    fs = driver.home / "1/fs"
    (fs / ".wh..wh.plnk").mkdir()
    (fs / ".wh..wh.aufs").touch()
    (fs / ".wh.removed").touch()

    os.utime(fs, ns=(1, 2))

    driver.commit(Layer(1, Kind.COMMITTED))

    assert os.listdir(fs) == [".wh.removed"]
    assert fs.stat().st_mtime_ns == 2


def test_a_name_longer_than_aufs_can_show_does_not_come_in_from_a_tar(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("n" * 242))
        tar.addfile(tarfile.TarInfo("n" * 243))
    out.seek(0)

    with pytest.raises(BadArchive, match="too long"):
        apply_direct(out, ChangesTree(tmp_path, DIALECT), base=False)

    assert os.listdir(tmp_path) == ["n" * 242]


# opaque directories, which no committed layer has


def opaque(directory: Path) -> None:
    with opened(directory, os.O_RDONLY) as here:
        DIALECT.write_opaque(here)


def paths(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def test_an_opaque_directory_is_spelled_out_as_removals_of_what_it_hides(tmp_path: Path) -> None:
    one = tree(tmp_path / "1", dir__a="1", dir__b="1", dir__kept="1", other="1")
    two = tree(tmp_path / "2", dir__c="2", **{"dir__.wh.b": ""})
    three = tree(tmp_path / "3", dir__kept="3")
    opaque(three / "dir")
    os.utime(three / "dir", ns=(1, 2))

    for _ in range(2):  # as after a crash
        spell_out(three, [two, one], DIALECT)

    assert paths(three) == ["dir", "dir/.wh.a", "dir/.wh.c", "dir/kept"]
    assert (three / "dir").stat().st_mtime_ns == 2


def test_what_lies_in_an_opaque_directory_hides_as_well(tmp_path: Path) -> None:
    below = tree(tmp_path / "below")
    (below / "dir/sub/deep").mkdir(parents=True)
    (below / "dir/sub/deep/old").touch()
    layer = tree(tmp_path / "layer")
    (layer / "dir/sub/deep").mkdir(parents=True)
    (layer / "dir/sub/deep/new").touch()
    opaque(layer / "dir")

    spell_out(layer, [below], DIALECT)

    assert paths(layer) == ["dir", "dir/sub", "dir/sub/deep", "dir/sub/deep/.wh.old", "dir/sub/deep/new"]


def test_an_opaque_directory_above_nothing_loses_its_mark(tmp_path: Path) -> None:
    below, layer = tree(tmp_path / "below", other="1"), tree(tmp_path / "layer", dir__new="2")
    opaque(layer / "dir")
    opaque(layer)

    spell_out(layer, [below], DIALECT)

    assert paths(layer) == [".wh.other", "dir", "dir/new"]


def test_a_directory_in_place_of_a_file_does_not_show_what_lay_below_the_file(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "1", x__old="1"), tree(tmp_path / "2", x="2")
    three = tree(tmp_path / "3", x__new="3")

    spell_out(three, [two, one], DIALECT)

    assert paths(three) == ["x", "x/.wh.old", "x/new"]


def test_a_directory_that_was_removed_between_is_not_hidden_once_more(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "1", dir__old="1"), tree(tmp_path / "2", **{".wh.dir": ""})
    three = tree(tmp_path / "3", dir__new="3")
    opaque(three / "dir")

    spell_out(three, [two, one], DIALECT)

    assert paths(three) == ["dir", "dir/new"]

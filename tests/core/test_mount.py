"""Mounting for real: binds, overlays of any depth and name, and what is left when it fails."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina import overlaymount
from lamina.mount import (
    Mount,
    bind,
    is_mounted,
    mount_all,
    mountinfo,
    served_by,
    temporarily_mounted,
    unmount,
)
from lamina.overlaymount import overlay_options, parse_options

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "target"
    place.mkdir()
    yield place
    unmount(place, times=9, lazy=True)


def layers(base: Path, count: int) -> list[Path]:
    """Directories with one file each, the topmost first."""
    made = []
    for number in range(count):
        layer = base / str(number) / "fs"
        layer.mkdir(parents=True)
        (layer / f"file{number}").write_text(str(number))
        made.append(layer)
    return made[::-1]


def overlay(lowers: list[Path], base: Path | None = None) -> Mount:
    if base is None:
        return Mount("overlay", "overlay", overlay_options(lowers))
    for name in ("upper", "work"):
        (base / name).mkdir(parents=True, exist_ok=True)
    return Mount("overlay", "overlay", overlay_options(lowers, base / "upper", base / "work", ("index=off",)))


@needs_root
def test_a_bind_mount_shows_the_source_and_lets_the_user_write(tmp_path: Path, target: Path) -> None:
    source = layers(tmp_path, 1)[0]

    mount_all([bind(source, writable=True)], target)
    (target / "new").write_text("x")

    assert (source / "new").read_text() == "x"


@needs_root
def test_a_read_only_bind_mount_refuses_to_write_from_the_first_moment(tmp_path: Path, target: Path) -> None:
    mount_all([bind(layers(tmp_path, 1)[0], writable=False)], target)

    with pytest.raises(OSError, match="Read-only"):
        (target / "new").write_text("x")


def program(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a program on the PATH."""
    name = "mounts-for-a-test"
    (directory / name).write_text(f"#!/bin/sh -e\n{script}\n")
    (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return name


@needs_root
def test_a_program_mounts_what_only_it_can(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = program(tmp_path, 'mount --bind "$1" "$2"; echo "$@" > "$2/told"', monkeypatch)
    source = layers(tmp_path, 1)[0]

    mount_all([served_by(name, source, writable=False)], target)

    assert (target / "told").read_text() == f"{source} {target} -o ro\n"
    unmount(target)
    assert not is_mounted(target)


def test_a_program_that_cannot_mount_is_an_error_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = program(tmp_path, "echo no luck today >&2; exit 3", monkeypatch)

    with pytest.raises(OSError, match="no luck today"):
        mount_all([served_by(name, "/source", writable=True)], tmp_path)
    with pytest.raises(OSError, match="no program 'there-is-no-such'"):
        mount_all([served_by("there-is-no-such", "/source", writable=True)], tmp_path)


@needs_root
def test_a_symbolic_link_in_the_place_of_the_target_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    trap = tmp_path / "trap"
    trap.symlink_to(outside)

    with contextlib.suppress(OSError):
        mount_all([bind(layers(tmp_path, 1)[0], writable=True)], trap)

    assert not is_mounted(outside)


@needs_root
@pytest.mark.parametrize("count", [2, overlaymount.MANY - 1, overlaymount.MANY, 128, 500])
def test_an_overlay_shows_every_one_of_its_layers(tmp_path: Path, target: Path, count: int) -> None:
    mount_all([overlay(layers(tmp_path / "l", count), tmp_path)], target)

    assert len(os.listdir(target)) == count


@needs_root
def test_more_layers_than_the_kernel_takes_are_refused_with_its_own_words(tmp_path: Path, target: Path) -> None:
    deep = tmp_path / ("long-name-so-that-one-page-is-too-small" * 4)

    with pytest.raises(OSError, match="too many lower directories") as caught:
        mount_all([overlay(layers(deep, 501))], target)

    assert overlaymount.is_too_deep(caught.value)
    assert not is_mounted(target)


@needs_root
@pytest.mark.parametrize("count", [2, 60])
@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b", "a\nb", "a b", "ünï", os.fsdecode(b"\xff\xfe"), "n" * 255])
def test_layers_may_have_any_name(tmp_path: Path, target: Path, name: str, count: int) -> None:
    mount_all([overlay(layers(tmp_path / name, count), tmp_path / name)], target)

    (target / "written").write_text("x")
    assert len(os.listdir(target)) == count + 1
    assert (tmp_path / name / "upper" / "written").exists()


@needs_root
def test_layers_may_lie_deeper_than_255_bytes(tmp_path: Path, target: Path) -> None:
    deep = tmp_path / ("d" * 200) / ("e" * 200)

    mount_all([overlay(layers(deep, 3), deep)], target)

    assert len(os.listdir(target)) == 3


@needs_root
@pytest.mark.parametrize("length", [4094, 4095, 4096, 4097])
def test_the_edge_of_the_page_is_no_edge_for_us(tmp_path: Path, target: Path, length: int) -> None:
    base = tmp_path / "p"
    lowers = layers(base, 60)
    bare = len("lowerdir=") + len(":".join(os.fspath(low.relative_to(base)) for low in lowers))
    pad = length - bare - len(",upperdir=,workdir=") - 2 * len("u/")
    half = pad // 2
    assert half <= 2 * 255 * 10
    upper = base / "/".join(["u", *["x" * 200] * (half // 201)])
    work = base / "/".join(["u", *["w" * 200] * (half // 201)])
    upper.mkdir(parents=True)
    work.mkdir(parents=True)

    mount_all([Mount("overlay", "overlay", overlay_options(lowers, upper, work))], target)

    assert len(os.listdir(target)) == 60


@needs_root
def test_layers_that_share_no_directory_and_fill_more_than_a_page_are_named_by_number(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlaymount, "has_lowerdir_plus", lambda: False)
    lowers = layers(tmp_path / ("x" * 200), 100)

    mount_all([overlay(lowers, tmp_path)], target)

    assert len(os.listdir(target)) == 100


@needs_root
def test_the_working_directory_of_the_process_stays_where_it_was(tmp_path: Path, target: Path) -> None:
    before = os.getcwd()
    seen = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(os.getcwd())

    watcher = threading.Thread(target=watch)
    watcher.start()
    mount_all([overlay(layers(tmp_path / "l", 200), tmp_path)], target)
    done.set()
    watcher.join()

    assert seen <= {before}


@needs_root
def test_when_a_later_mount_fails_the_earlier_ones_are_undone(tmp_path: Path, target: Path) -> None:
    good = bind(layers(tmp_path, 1)[0], writable=True)

    with pytest.raises(OSError, match="nowhere"):
        mount_all([good, bind(tmp_path / "nowhere", writable=True)], target)

    assert not is_mounted(target)


@needs_root
def test_a_busy_mount_is_refused_and_a_lazy_unmount_takes_it_away(tmp_path: Path, target: Path) -> None:
    mount_all([bind(layers(tmp_path, 1)[0], writable=True)], target)

    with (target / "file0").open():
        with pytest.raises(OSError, match="busy") as caught:
            unmount(target)
        unmount(target, lazy=True)

    assert caught.value.errno == errno.EBUSY
    assert not is_mounted(target)


@needs_root
@pytest.mark.parametrize("count", [2, 60])
@pytest.mark.parametrize("name", ["plain", "a:b,c\\d e\nf", "n" * 250])
def test_one_writable_layer_is_never_mounted_twice(tmp_path: Path, target: Path, name: str, count: int) -> None:
    mount = overlay(layers(tmp_path / name, count), tmp_path / name)
    second = tmp_path / "second"
    second.mkdir()
    mount_all([mount], target)

    with pytest.raises(OSError, match=r"mounted at .*target already") as caught:
        mount_all([mount], second)
    unmount(target)
    mount_all([mount], second)
    unmount(second)

    assert caught.value.errno == errno.EBUSY


@needs_root
def test_attributes_of_the_mount_hold_for_bind_and_overlay(tmp_path: Path, target: Path) -> None:
    lowers = layers(tmp_path, 2)
    options = (*overlay_options(lowers), "nosuid", "nodev", "noexec")

    for mount in (Mount("bind", os.fspath(lowers[0]), ("rbind", *options[1:])), Mount("overlay", "overlay", options)):
        mount_all([mount], target)
        flags = os.statvfs(target).f_flag
        unmount(target)

        assert flags & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC) == os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC


@needs_root
def test_unmounting_undoes_the_whole_stack(tmp_path: Path, target: Path) -> None:
    stack = [bind(layer, writable=True) for layer in layers(tmp_path, 3)]
    mount_all(stack, target)

    unmount(target, times=3)

    assert not is_mounted(target)


def test_unmounting_what_is_not_mounted_does_nothing(tmp_path: Path) -> None:
    unmount(tmp_path)
    unmount(tmp_path / "missing")


@needs_root
def test_a_temporary_mount_leaves_nothing_also_when_its_body_raises_or_holds_files(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()

    def hold() -> None:
        with temporarily_mounted([bind(layers(tmp_path, 1)[0], writable=False)], below=below) as place:
            held.append((place / "file0").open())
            raise RuntimeError

    held = []  # type: ignore[var-annotated]  # a list of open files
    with pytest.raises(RuntimeError):
        hold()
    held[0].close()

    assert list(below.iterdir()) == []
    assert not any(os.fsencode(below) in point.target for point in mountinfo())


@needs_root
def test_mountinfo_gives_back_names_with_spaces_and_newlines(tmp_path: Path) -> None:
    odd = tmp_path / "a b\n\\c"
    odd.mkdir()

    mount_all([bind(tmp_path, writable=True)], odd)
    try:
        assert os.fsencode(odd) in {point.target for point in mountinfo()}
    finally:
        unmount(odd)


names = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name and b"/" not in name)


@given(st.lists(names, min_size=1, max_size=5), names, names)
def test_options_are_read_back_as_they_were_written(lowers: list[bytes], upper: bytes, work: bytes) -> None:
    def path(name: bytes) -> Path:
        return Path("/") / os.fsdecode(name)

    written = overlay_options([path(low) for low in lowers], path(upper), path(work), ("index=off",))

    read = parse_options(written)

    assert [*read.lowers, read.upper, read.work] == [os.fsencode(path(name)) for name in (*lowers, upper, work)]
    assert read.others == ("index=off",)


@needs_root
def test_a_remount_that_fails_undoes_what_it_was_to_change_and_nothing_below(target: Path) -> None:
    mount_all([Mount("tmpfs", "below")], target)
    (target / "below").touch()
    small = Mount("tmpfs", "none", ("remount", "rw", "size=1m"))
    bad = Mount("tmpfs", "none", ("remount", "rw", "no-such-option"))

    with pytest.raises(OSError, match=r"(?i)invalid"):
        mount_all([Mount("tmpfs", "above"), small, bad], target)
    assert (target / "below").exists()

    with temporarily_mounted([Mount("tmpfs", "above"), small], below=target) as place:
        assert os.statvfs(place).f_blocks * os.statvfs(place).f_frsize == 1 << 20
    assert os.listdir(target) == ["below"]

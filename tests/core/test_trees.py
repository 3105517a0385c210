"""Measuring, flushing and removing real trees."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.mount import bind, mount_all, unmount
from lamina.trees import copy_tree, measure_tree, remove_tree, sync_tree

needs_root = pytest.mark.needs_root


def test_trees_deeper_than_a_path_may_be_long_are_copied_measured_and_removed(source: Path) -> None:
    depth = 3000
    directory = os.open(source, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=directory)
        child = os.open("deeper", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = child
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.link("bottom", "bottom2", src_dir_fd=directory, dst_dir_fd=directory)
    os.close(directory)

    target = source.parent / "target"
    copy_tree(source, target)

    assert measure_tree(target).inodes == measure_tree(source).inodes == depth + 2
    remove_tree(source)
    remove_tree(target)
    assert not target.exists()


@needs_root
def test_removing_stops_at_a_mount_and_keeps_what_is_mounted(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    (source / "mnt").mkdir()
    mount_all([bind(other, writable=True)], source / "mnt")
    try:
        with pytest.raises(OSError, match="mounted") as caught:
            remove_tree(source)
    finally:
        unmount(source / "mnt")

    assert caught.value.errno == errno.EBUSY
    assert (other / "precious").exists()


def test_removing_does_not_follow_links(source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    (source / "link").symlink_to(outside)

    remove_tree(source)

    assert (outside / "file").exists()
    assert not source.exists()


def test_removing_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    remove_tree(tmp_path / "missing")
    remove_tree(tmp_path / "missing" / "deeper")


def test_removing_opens_directories_that_forbid_it(
    source: Path, as_an_ordinary_user: Callable[[Path, Callable[[Path], None]], None]
) -> None:
    """As an ordinary user: root is never stopped by modes."""
    for number, mode in enumerate((0o000, 0o100, 0o200, 0o400, 0o500, 0o600)):
        directory = source / str(number)
        (directory / "sub").mkdir(parents=True)
        (directory / "sub" / "file").write_text("x")
        (directory / "sub").chmod(mode)
        directory.chmod(mode)

    as_an_ordinary_user(source, remove_tree)

    assert not source.exists()


@needs_root
def test_removing_clears_immutable_flags(source: Path) -> None:
    (source / "file").write_text("x")
    changed = subprocess.run(["chattr", "+i", source / "file", source], check=False, capture_output=True)
    if changed.returncode:
        pytest.skip("this file system has no immutable flag")

    remove_tree(source)

    assert not source.exists()


def test_measuring_counts_a_file_with_two_names_once(source: Path) -> None:
    (source / "a").write_bytes(b"x" * 100_000)
    alone = measure_tree(source)
    os.link(source / "a", source / "b")

    assert measure_tree(source) == alone
    assert alone.size >= 100_000


def test_flushing_a_tree_succeeds(source: Path) -> None:
    sync_tree(source)

"""System calls of our own: they do what the kernel says they do, and fail with its words."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina import syscalls
from lamina.syscalls import opened

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


@pytest.fixture
def here(tmp_path: Path) -> Iterator[int]:
    with opened(tmp_path, DIRECTORY) as descriptor:
        yield descriptor


def test_a_name_with_dots_or_an_absolute_link_stays_inside_the_root(tmp_path: Path, here: int) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("ours")
    (tmp_path / "absolute").symlink_to("/etc/passwd")

    for name in (b"../../../etc/passwd", b"absolute", b"/etc/passwd"):
        descriptor = syscalls.openat2(here, name, os.O_RDONLY, resolve=syscalls.RESOLVE_IN_ROOT)
        with os.fdopen(descriptor) as file:
            assert file.read() == "ours"


def test_beneath_refuses_what_leads_out(tmp_path: Path, here: int) -> None:
    (tmp_path / "out").symlink_to("/etc")

    for name in (b"..", b"out/passwd", b"/etc"):
        with pytest.raises(OSError, match="openat2") as caught:
            syscalls.openat2(here, name, os.O_RDONLY, resolve=syscalls.RESOLVE_BENEATH)
        assert caught.value.errno == errno.EXDEV


def test_opening_makes_a_file_with_the_mode_that_was_asked_for(tmp_path: Path, here: int) -> None:
    os.close(syscalls.openat2(here, b"new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600))

    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


def test_descriptors_do_not_reach_child_programs(here: int) -> None:
    descriptor = syscalls.openat2(here, b".", DIRECTORY)
    try:
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def test_a_rename_can_refuse_to_replace_and_can_exchange(tmp_path: Path, here: int) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")

    with pytest.raises(FileExistsError):
        syscalls.renameat2(here, b"a", here, b"b", syscalls.RENAME_NOREPLACE)
    syscalls.renameat2(here, b"a", here, b"b", syscalls.RENAME_EXCHANGE)

    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("b", "a")


def test_a_hole_is_punched_and_the_size_stays(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 65_536)

    with opened(file, os.O_RDWR) as descriptor:
        mode = syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE
        syscalls.fallocate(descriptor, mode, 0, 32_768)

    assert file.read_bytes() == bytes(32_768) + b"x" * 32_768


def test_flushing_what_is_no_file_system_says_so() -> None:
    with pytest.raises(OSError, match="syncfs") as caught:
        syscalls.syncfs(-1)

    assert caught.value.errno == errno.EBADF


def test_flushing_a_directory_returns(here: int) -> None:
    syscalls.syncfs(here)


def test_options_that_would_be_cut_off_are_refused() -> None:
    with pytest.raises(OSError, match="does not fit into one page") as caught:
        syscalls.mount(b"none", b"/nowhere", "overlay", 0, b"x" * os.sysconf("SC_PAGE_SIZE"))

    assert caught.value.errno == errno.E2BIG


def test_a_thread_that_unshares_its_directory_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    seen = []

    def move() -> None:
        syscalls.unshare(syscalls.CLONE_FS)
        os.chdir(tmp_path)
        seen.append(os.getcwd())

    before = os.getcwd()
    thread = threading.Thread(target=move)
    thread.start()
    thread.join()

    assert (seen, os.getcwd()) == ([str(tmp_path)], before)


def test_a_descriptor_is_closed_also_when_the_body_raises(tmp_path: Path) -> None:
    def use() -> None:
        with opened(tmp_path, DIRECTORY) as descriptor:
            used.append(descriptor)
            raise RuntimeError

    used: list[int] = []
    with pytest.raises(RuntimeError):
        use()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(used[0])


@pytest.mark.needs_root
def test_a_refused_mount_tells_what_the_kernel_wrote_into_its_log() -> None:
    context = syscalls.fsopen("overlay")
    try:
        for _ in range(500):
            syscalls.fsconfig_string(context, "lowerdir+", b"/")
        with pytest.raises(OSError, match="overlay: too many lower directories, limit is 500"):
            syscalls.fsconfig_string(context, "lowerdir+", b"/")
    finally:
        os.close(context)


@pytest.mark.needs_root
def test_an_option_that_no_kernel_knows_is_named_in_the_error() -> None:
    context = syscalls.fsopen("overlay")
    try:
        with pytest.raises(OSError, match="fsconfig nonsense") as caught:
            syscalls.fsconfig_flag(context, "nonsense")
    finally:
        os.close(context)

    assert caught.value.errno == errno.EINVAL


@pytest.mark.needs_root
def test_an_unknown_file_system_is_enodev() -> None:
    with pytest.raises(OSError, match="fsopen nosuchfs") as caught:
        syscalls.fsopen("nosuchfs")

    assert caught.value.errno == errno.ENODEV


@pytest.mark.needs_root
def test_attributes_are_set_and_cleared_again(tmp_path: Path) -> None:
    tree = syscalls.open_tree(os.fsencode(tmp_path))
    try:
        syscalls.mount_setattr(tree, attributes=syscalls.MOUNT_ATTR_RDONLY)
        with pytest.raises(OSError, match="Read-only"):
            os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=tree)
        syscalls.mount_setattr(tree, cleared=syscalls.MOUNT_ATTR_RDONLY)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=tree))
    finally:
        os.close(tree)

    assert (tmp_path / "file").exists()


@pytest.mark.needs_root
def test_unmounting_never_follows_a_symbolic_link(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    syscalls.mount(b"tmpfs", os.fsencode(place), "tmpfs")
    try:
        with pytest.raises(OSError, match="umount"):
            syscalls.umount2(os.fsencode(tmp_path / "link"))
        assert os.path.ismount(place)
    finally:
        syscalls.umount2(os.fsencode(place))

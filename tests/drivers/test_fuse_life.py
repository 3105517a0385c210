"""The life of fuse's servers: found again, ended, killed, replaced; what they do about what goes wrong."""

from __future__ import annotations

import errno
import mmap
import os
import re
import signal
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from unions import active, grow, many, served, started, until

from lamina.driver import Ability
from lamina.errors import ConfigError
from lamina.layer import Kind, Layer
from lamina.mount import is_mounted, mount_all, unmount
from lamina.syscalls import fallocate
from lamina_fuse import accelerator, life
from lamina_fuse.driver import FuseDriver
from lamina_fuse.index import HEADER
from lamina_fuse.options import FuseOptions

pytestmark = pytest.mark.needs_root


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[FuseDriver]:
    with started(tmp_path / "layers", FuseOptions(log_level="info")) as ours:
        yield ours


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[FuseDriver]:
    """A driver whose servers read and write all files themselves."""
    with started(tmp_path / "layers", FuseOptions(log_level="info", passthrough=False)) as ours:
        yield ours


def test_the_server_is_found_again_and_ends_with_release(driver: FuseDriver) -> None:
    layer, root = active(driver, grow(driver, many(1, 1)))
    place = driver.home / str(layer.id)
    pid = life.pid_of(place)
    assert pid is not None

    again = FuseDriver(driver.home)
    again.mounts(layer)

    assert life.pid_of(place) == pid
    assert os.getsid(pid) == pid
    again.release(layer.id)
    assert life.pid_of(place) is None
    assert not is_mounted(root)
    again.release(layer.id)


def _error_of(root: Path) -> int | None:
    """What is told of a place whose server was killed; until the kernel has noticed, it still answers."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.statvfs(root)
        except OSError as error:
            return error.errno
    return None


def test_a_killed_server_is_replaced_and_what_was_written_is_there(driver: FuseDriver) -> None:
    layer, root = active(driver, grow(driver, many(2, 3)))
    (root / "dir0/file0").write_text("written")
    (root / "dir1/file1").unlink()
    before = (root / "dir0/file0").stat().st_ino
    pid = life.pid_of(driver.home / str(layer.id))
    assert pid is not None
    os.listdir(root)  # now the kernel has to ask for the root's access time, and cannot tell anything without a server
    os.kill(pid, signal.SIGKILL)
    assert _error_of(root) in (errno.ENOTCONN, errno.ECONNABORTED)
    assert until(lambda: any("died" in note for note in driver.health().notes))  # its lock is let go a moment later

    driver.mounts(layer)

    assert (root / "dir0/file0").read_text() == "written"
    assert (root / "dir0/file0").stat().st_ino == before
    assert sorted(os.listdir(root / "dir1")) == ["file0", "file2"]


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_servers_outlive_their_launcher_and_the_next_one_gets_another(driver: FuseDriver) -> None:
    parents = grow(driver, many(1, 1), many(2, 2))
    first, root = active(driver, parents)
    pid = life.pid_of(driver.home / str(first.id))
    assert pid is not None
    launcher = _parent_of(pid)
    assert Path(f"/proc/{launcher}/comm").read_text() != Path(f"/proc/{pid}/comm").read_text() == "lamina-fuse 3\n"
    os.kill(launcher, signal.SIGKILL)

    second = Layer(9, Kind.ACTIVE, parents)
    driver.prepare(second)

    assert sorted(os.listdir(served(driver, second))) == sorted(os.listdir(root)) == ["dir0", "dir1"]
    assert life.pid_of(driver.home / str(first.id)) == pid


def test_a_layer_that_is_mounted_elsewhere_is_released_without_waiting_for_that(
    plain: FuseDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "_PATIENCE", 3600.0)  # longer than this test may take
    layer, root = active(plain, grow(plain, many(1, 1)))
    (root / "mapped").write_bytes(b"0" * 4096)
    (tmp_path / "elsewhere").mkdir()
    mount_all(plain.mounts(layer), tmp_path / "elsewhere")
    try:
        with (tmp_path / "elsewhere/mapped").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapping:
            mapping[0:1] = b"1"  # and nobody says that it is to be written back

            plain.release(layer.id)

        assert life.pid_of(plain.home / str(layer.id)) is None
        assert _error_of(tmp_path / "elsewhere") in (errno.ENOTCONN, errno.ECONNABORTED)
    finally:
        unmount(tmp_path / "elsewhere", lazy=True)
    assert (plain.changes(layer).root / "mapped").read_bytes()[:1] == b"1"


def with_garbage_for_extras(index: bytes) -> bytes:
    """An index whose checksum is right, and whose targets of links make no sense."""
    magic, _, rows, names, extras, end = HEADER.unpack_from(index)
    body: bytes = index[HEADER.size : extras + 1] + b"\xff" * (end - extras - 1)
    head: bytes = HEADER.pack(magic, zlib.crc32(body), rows, names, extras, end)
    return head + body


@pytest.mark.parametrize("accelerate", [True, False])
def test_what_a_handler_did_not_expect_is_an_io_error_and_a_traceback_in_the_log(
    tmp_path: Path, *, accelerate: bool
) -> None:
    with started(tmp_path / "layers", FuseOptions(accelerate=accelerate)) as driver:
        parents = grow(driver, many(1, 1), lambda root: (root / "link").symlink_to("dir0"))
        index = driver.home / "2/index"
        index.write_bytes(with_garbage_for_extras(index.read_bytes()))
        layer, root = active(driver, parents)
        pid = life.pid_of(driver.home / str(layer.id))

        for _ in range(3):
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                os.readlink(root / "link")

        assert (root / "dir0/file0").read_text() == "0 0"
        assert life.pid_of(driver.home / str(layer.id)) == pid
        log = (driver.home / str(layer.id) / "server.log").read_text()
        assert re.search(r"ERROR readlink\(.*\nTraceback (.*\n)*ValueError: bad marshal data", log)


def test_a_server_that_cannot_start_says_why(driver: FuseDriver) -> None:
    layer = Layer(2, Kind.ACTIVE, grow(driver, many(1, 1)))
    driver.prepare(layer)
    (driver.home / "2/work").rmdir()
    (driver.home / "2/work").touch()

    with pytest.raises(OSError, match=r"the server of layer 2 did not start: NotADirectoryError.*work"):
        driver.mounts(layer)


def test_health_names_each_server(driver: FuseDriver) -> None:
    layer, _ = active(driver, grow(driver, many(1, 1)))
    pid = life.pid_of(driver.home / str(layer.id))

    assert any(f"process {pid} serves and answers" in note for note in driver.health().notes)


def test_a_damaged_or_missing_index_is_made_again(driver: FuseDriver) -> None:
    parents = grow(driver, many(2, 3), lambda root: (root / "own").touch())
    index = driver.home / "1/index"
    index.write_bytes(index.read_bytes()[:-7] + b"garbage")
    (driver.home / "2/index").unlink()

    _, root = active(driver, parents)

    assert sorted(os.listdir(root)) == ["dir0", "dir1", "own"]
    assert len(os.listdir(root / "dir1")) == 3


def test_without_the_accelerator_the_tree_is_the_same(tmp_path: Path) -> None:
    with started(tmp_path / "layers", FuseOptions(accelerate=False)) as plain:
        _, root = active(plain, grow(plain, many(3, 200)))
        assert len(os.listdir(root / "dir1")) == 200
        (root / "dir1/file7").write_text("changed")
        os.rename(root / "dir1", root / "moved")
        assert (root / "moved/file7").read_text() == "changed"
        assert len(os.listdir(root / "moved")) == 200
        with (root / "room").open("wb") as file, pytest.raises(OSError, match="not supported"):
            fallocate(file.fileno(), 0, 0, 4096)


def test_the_accelerator_is_compiled_here(driver: FuseDriver) -> None:
    assert accelerator.library(driver.home) is not None
    assert Ability.FALLOCATE not in driver.cannot


def test_an_unknown_log_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="log_level"):
        FuseOptions(log_level="loud")

"""What the tests of trees and of the store share."""

from __future__ import annotations

import hashlib
import os
import stat
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rooms import Room

from lamina.driver import Driver
from lamina.metadata import Metadata
from lamina.snapshotter import Snapshotter
from lamina_overlay.driver import OverlayDriver
from lamina_vfs.driver import VfsDriver

DRIVERS: list[type[Driver]] = [VfsDriver, OverlayDriver]


@pytest.fixture(params=DRIVERS, ids=lambda cls: cls.name)
def room(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path, request.param)
    yield made
    made.leave()


@pytest.fixture
def snapshots(room: Room) -> Iterator[Snapshotter]:
    with room.open() as opened:
        yield opened


@pytest.fixture
def meta(tmp_path: Path) -> Iterator[Metadata]:
    opened = Metadata(tmp_path / "metadata.db")
    opened.start()
    yield opened
    opened.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "source"
    tree.mkdir()
    return tree


def _as_an_ordinary_user(tree: Path, action: Callable[[Path], None]) -> None:
    """Do it in a child process that owns `tree` and has no powers."""
    if os.geteuid() == 0:
        for place in [
            tree.parent,
            *(Path(where) / name for where, dirs, files in os.walk(tree) for name in dirs + files),
        ]:
            os.lchown(place, 12345, 12345)
        os.lchown(tree, 12345, 12345)
    here = os.open(tree.parent, os.O_RDONLY | os.O_DIRECTORY)  # the way to it may be closed to others
    child = os.fork()
    if not child:
        try:
            os.fchdir(here)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(12345, 12345, 12345)
                os.setresuid(12345, 12345, 12345)
            action(Path(tree.name))
            os._exit(0)
        except BaseException:  # noqa: BLE001  # whatever it is, the child must not go on as a second pytest
            traceback.print_exc()
            os._exit(1)
    os.close(here)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def as_an_ordinary_user() -> Callable[[Path, Callable[[Path], None]], None]:
    return _as_an_ordinary_user


def _manifest(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything that a copy has to keep, by path, read in another way than the code under test reads it."""
    found: dict[bytes, tuple[object, ...]] = {}
    groups: dict[tuple[int, int], bytes] = {}
    top = os.fsencode(root)
    for directory, names, files in os.walk(top):
        names.sort()
        for name in [b".", *sorted(names + files)] if directory == top else sorted(names + files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            first = groups.setdefault((status.st_dev, status.st_ino), path[len(top) :])
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            xattrs = {
                each: os.getxattr(path, each, follow_symlinks=False)
                for each in os.listxattr(path, follow_symlinks=False)
            }
            shape = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev)
            found[path[len(top) :]] = (*shape, status.st_size * stat.S_ISREG(status.st_mode), content, xattrs, first)
    return found


@pytest.fixture
def manifest() -> Callable[[Path], dict[bytes, tuple[object, ...]]]:
    return _manifest

"""System calls by chance, on the mount and on a plain directory: same answers and errors; the kernel's overlay agrees.

Both begin with the same tree; on the mount it comes from two lower layers. The server is killed and replaced between
calls.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lamina import syscalls
from lamina.layer import Kind, Layer
from lamina.mount import Mount, mount_all, unmount
from lamina.overlaymount import overlay_options
from lamina.trees import copy_tree
from lamina_fuse import life
from lamina_fuse.driver import FuseDriver
from lamina_fuse.options import FuseOptions

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(600)]

NAMES = ("a", "b", "d", "d/a", "d/twin", "d/e", "d/e/a", "d/e/b", "f", "f/a", "n\xe9", "gone")
PATHS = st.sampled_from(NAMES)
DIRECTORIES = st.sampled_from(("d", "d/e", "f"))
XATTRS = st.sampled_from(["user.one", "user.two", "trusted.three"])
DATA = st.sampled_from([b"", b"x", b"hello" * 1000, b"y" * 70_000])
OFFSETS = st.sampled_from([0, 1, 4096, 5000, 100_000])
MODES = st.sampled_from([0o600, 0o644, 0o755, 0o4755, 0o2755, 0o1777, 0o000])
OWNERS = st.sampled_from([-1, 0, 7, 1000])
FLAGS = st.sampled_from([0, 0, syscalls.RENAME_NOREPLACE, syscalls.RENAME_EXCHANGE])
OPEN = st.sampled_from(
    [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_CREAT]
)


def _first(root: Path) -> None:
    for name in ("d/e", "f"):
        (root / name).mkdir(parents=True)
    for name in ("a", "d/a", "d/e/a", "f/a", "gone"):
        (root / name).write_text(f"lower {name}" * 700)
    os.link(root / "a", root / "d/twin")
    (root / "link").symlink_to("d/a")
    os.setxattr(root / "d/a", "user.one", b"lower")


def _second(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d/a").write_text("above")
    os.mknod(root / "gone", stat.S_IFCHR, 0)


def _told(call: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "ok", call()
    except OSError as error:
        return "error", error.errno


def _status(status: os.stat_result) -> tuple[Any, ...]:
    if stat.S_ISDIR(status.st_mode):
        return status.st_mode, status.st_uid, status.st_gid  # sizes and links of directories are a file system's own
    return status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_size


def _tree(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    groups: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        xattrs = {
            each: os.getxattr(path, each, follow_symlinks=False) for each in os.listxattr(path, follow_symlinks=False)
        }
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        group = name if stat.S_ISDIR(status.st_mode) else groups.setdefault(status.st_ino, name)
        found[name] = (_status(status), xattrs, content, group)
    return found


def _numbers(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.lstat().st_ino for path in (root, *root.rglob("*"))}


class Machine(RuleBasedStateMachine):
    options = FuseOptions()

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="lamina-machine-"))
        self.plain = self.place / "plain"
        self.driver = FuseDriver(self.place / "layers", self.options)
        self.driver.start()
        parents: tuple[int, ...] = ()
        for number, fill in enumerate((_first, _second), start=1):
            self.driver.prepare(Layer(number, Kind.ACTIVE, parents))
            fill(self.driver.changes(Layer(number, Kind.ACTIVE, parents)).root)
            self.driver.commit(Layer(number, Kind.COMMITTED, parents))
            parents = (number, *parents)
        self.layer = Layer(3, Kind.ACTIVE, parents)
        self.driver.prepare(self.layer)
        self.served = self.driver.home / "3/served"
        self.driver.mounts(self.layer)
        copy_tree(self.served, self.plain)
        self.open: dict[int, tuple[int, int]] = {}
        self.numbers = itertools.count(1)

    def both(self, call: Callable[[Path], Any]) -> None:
        ours, theirs = _told(lambda: call(self.served)), _told(lambda: call(self.plain))
        assert ours == theirs

    @rule(path=PATHS, data=DATA)
    def write(self, path: str, data: bytes) -> None:
        self.both(lambda root: (root / path).write_bytes(data))

    @rule(path=PATHS)
    def read(self, path: str) -> None:
        self.both(lambda root: (root / path).read_bytes())

    @rule(path=PATHS)
    def look(self, path: str) -> None:
        self.both(lambda root: _status((root / path).lstat()))

    @rule(path=PATHS)
    def list(self, path: str) -> None:
        self.both(lambda root: sorted(os.listdir(root / path)))

    @rule(path=PATHS)
    def unlink(self, path: str) -> None:
        self.both(lambda root: os.unlink(root / path))

    @rule(path=PATHS, mode=MODES)
    def mkdir(self, path: str, mode: int) -> None:
        self.both(lambda root: os.mkdir(root / path, mode))

    @rule(path=PATHS)
    def rmdir(self, path: str) -> None:
        self.both(lambda root: os.rmdir(root / path))

    @rule(path=PATHS)
    def rmtree(self, path: str) -> None:
        self.both(lambda root: shutil.rmtree(root / path, ignore_errors=True))

    @rule(old=PATHS, new=PATHS, flags=FLAGS)
    def rename(self, old: str, new: str, flags: int) -> None:
        self.both(lambda root: syscalls.renameat2(-100, os.fsencode(root / old), -100, os.fsencode(root / new), flags))

    @rule(old=PATHS, new=PATHS)
    def link(self, old: str, new: str) -> None:
        self.both(lambda root: os.link(root / old, root / new, follow_symlinks=False))

    @rule(path=PATHS)
    def symlink(self, path: str) -> None:
        self.both(lambda root: os.symlink("d/e", root / path))

    @rule(path=PATHS)
    def socket(self, path: str) -> None:  # not a fifo: to open one waits for its writer
        self.both(lambda root: os.mknod(root / path, stat.S_IFSOCK | 0o644))

    @rule(path=PATHS, mode=MODES)
    def chmod(self, path: str, mode: int) -> None:
        self.both(lambda root: os.chmod(root / path, mode))

    @rule(path=PATHS, uid=OWNERS, gid=OWNERS)
    def chown(self, path: str, uid: int, gid: int) -> None:
        self.both(lambda root: os.chown(root / path, uid, gid, follow_symlinks=False))

    @rule(path=PATHS, when=st.sampled_from([0, 1, 1_234_567_891_234_567_891, -5]))
    def touch(self, path: str, when: int) -> None:
        def call(root: Path) -> tuple[int, int]:
            os.utime(root / path, ns=(when, when + 1), follow_symlinks=False)
            status = os.lstat(root / path)
            return status.st_atime_ns, status.st_mtime_ns

        self.both(call)

    @rule(path=PATHS, size=OFFSETS)
    def truncate(self, path: str, size: int) -> None:
        self.both(lambda root: os.truncate(root / path, size) if stat.S_ISREG((root / path).stat().st_mode) else None)

    @rule(path=PATHS, name=XATTRS, flags=st.sampled_from([0, os.XATTR_CREATE, os.XATTR_REPLACE]))
    def set_xattr(self, path: str, name: str, flags: int) -> None:
        self.both(lambda root: os.setxattr(root / path, name, path.encode(), flags, follow_symlinks=False))

    @rule(path=PATHS, name=XATTRS)
    def remove_xattr(self, path: str, name: str) -> None:
        self.both(lambda root: os.removexattr(root / path, name, follow_symlinks=False))

    @rule(path=PATHS)
    def list_xattrs(self, path: str) -> None:
        self.both(lambda root: sorted(os.listxattr(root / path, follow_symlinks=False)))

    # open files

    @precondition(lambda self: len(self.open) < 4)
    @rule(path=PATHS, flags=OPEN)
    def open_file(self, path: str, flags: int) -> None:
        self.opened_in_both(lambda root: os.open(root / path, flags | os.O_NONBLOCK, 0o640))

    @precondition(lambda self: self.options.accelerate and len(self.open) < 4)
    @rule(path=DIRECTORIES, mode=MODES)
    def open_unnamed(self, path: str, mode: int) -> None:
        def call(root: Path) -> int:
            return os.open(root / path, os.O_TMPFILE | os.O_RDWR, mode)

        self.opened_in_both(call)

    def opened_in_both(self, call: Callable[[Path], int]) -> None:
        ours, theirs = (_told(functools.partial(call, root)) for root in self.roots)
        if "error" in (ours[0], theirs[0]):
            assert ours == theirs
        else:
            self.open[next(self.numbers)] = ours[1], theirs[1]

    @precondition(lambda self: self.open)
    @rule(number=st.integers(0, 3), path=PATHS)
    def name_what_is_open(self, number: int, path: str) -> None:
        files = self.open[sorted(self.open)[number % len(self.open)]]

        def call(file: int, root: Path) -> None:
            os.link(f"/proc/self/fd/{file}", root / path, src_dir_fd=0)  # with one, Python calls linkat

        ours, theirs = (_told(functools.partial(call, *each)) for each in zip(files, self.roots, strict=True))
        assert ours == theirs

    @property
    def roots(self) -> tuple[Path, Path]:
        return self.served, self.plain

    def on_open(self, number: int, call: Callable[[int], Any]) -> None:
        if not self.open:
            return
        ours, theirs = self.open[sorted(self.open)[number % len(self.open)]]
        assert _told(lambda: call(ours)) == _told(lambda: call(theirs))

    @rule(number=st.integers(0, 3), data=DATA, offset=OFFSETS)
    def pwrite(self, number: int, data: bytes, offset: int) -> None:
        self.on_open(number, lambda file: os.pwrite(file, data, offset))

    @rule(number=st.integers(0, 3), offset=OFFSETS)
    def pread(self, number: int, offset: int) -> None:
        self.on_open(number, lambda file: os.pread(file, 10_000, offset))

    @rule(number=st.integers(0, 3))
    def fstat(self, number: int) -> None:
        self.on_open(number, lambda file: _status(os.fstat(file)))

    @rule(number=st.integers(0, 3), mode=MODES)
    def fchmod(self, number: int, mode: int) -> None:
        self.on_open(number, lambda file: os.fchmod(file, mode))

    @rule(number=st.integers(0, 3), size=OFFSETS)
    def ftruncate(self, number: int, size: int) -> None:
        self.on_open(number, lambda file: os.ftruncate(file, size))

    @precondition(lambda self: self.options.accelerate)
    @rule(number=st.integers(0, 3), offset=OFFSETS, punch=st.booleans())
    def allocate(self, number: int, offset: int, punch: bool) -> None:  # noqa: FBT001  # Hypothesis passes it by name
        mode = syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE if punch else 0

        def call(file: int) -> None:
            if stat.S_ISREG(os.fstat(file).st_mode):
                syscalls.fallocate(file, mode, offset, 8192)

        self.on_open(number, call)

    @rule(number=st.integers(0, 3))
    def close(self, number: int) -> None:
        if self.open:
            for file in self.open.pop(sorted(self.open)[number % len(self.open)]):
                os.close(file)

    # the server

    @rule()
    def crash(self) -> None:
        pid = life.pid_of(self.served.parent)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.close_all()
        with life._ended(self.served.parent, 20) as ended:  # noqa: SLF001  # what the driver waits with
            assert ended
        self.driver.mounts(self.layer)

    def close_all(self) -> None:
        for pair in self.open.values():
            for file in pair:
                with contextlib.suppress(OSError):  # of a dead server; the descriptor is closed all the same
                    os.close(file)
        self.open.clear()

    @invariant()
    def the_top_is_the_same(self) -> None:
        assert sorted(os.listdir(self.served)) == sorted(os.listdir(self.plain))

    def teardown(self) -> None:
        try:
            self.close_all()
            wanted = _tree(self.plain)
            assert _tree(self.served) == wanted
            assert not (self.driver.home / "3/server.log").read_text()
            numbers = _numbers(self.served)
            self.driver.release(3)
            self.driver.mounts(self.layer)
            assert _tree(self.served) == wanted
            assert _numbers(self.served) == numbers
            self.driver.release(3)
            self.compare_with_the_kernel(wanted)
        finally:
            for layer_id in (3, 2, 1):
                self.driver.remove(layer_id)
            shutil.rmtree(self.place)

    def compare_with_the_kernel(self, wanted: dict[str, Any]) -> None:
        home, place = self.driver.home, self.place / "kernel"
        place.mkdir()
        options = overlay_options([home / "2/fs", home / "1/fs"], home / "3/fs", home / "3/work")
        mount_all([Mount("overlay", "overlay", options)], place)
        try:
            found = _tree(place)
        finally:
            unmount(place)
        assert _without_links(found) == _without_links(wanted)


def _without_links(tree: dict[str, Any]) -> dict[str, Any]:
    """overlay counts the links of a lower file that are hidden, and takes hard links apart without its index."""
    return {
        name: (status if stat.S_ISDIR(status[0]) else (*status[:3], status[4]), xattrs, content)
        for name, (status, xattrs, content, _) in tree.items()
    }


class ServedByTheServer(Machine):
    """The accelerator answers, and Python; nothing is passed through to the kernel."""

    options = FuseOptions(passthrough=False)


class ServedByPython(Machine):
    """No accelerator: what it adds is not tried."""

    options = FuseOptions(accelerate=False)


def _settings(examples: int) -> settings:
    return settings(
        max_examples=int(os.environ.get("LAMINA_FUSE_EXAMPLES", examples)),
        stateful_step_count=40,
        deadline=None,
        report_multiple_bugs=False,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


Machine.TestCase.settings = _settings(8)
ServedByTheServer.TestCase.settings = ServedByPython.TestCase.settings = _settings(4)
TestSystemCalls = Machine.TestCase
TestSystemCallsWithoutPassthrough = ServedByTheServer.TestCase
TestSystemCallsWithoutTheAccelerator = ServedByPython.TestCase

"""What is particular to fuse: its thrift, beside the kernel's overlay, many at once."""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from unions import active, grow, many, served, started, until

from lamina.layer import Kind, Layer
from lamina.mount import Mount, mount_all, unmount
from lamina.overlaymount import overlay_options
from lamina_fuse import life
from lamina_fuse.driver import FuseDriver
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


def _kernel() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


passes_through = pytest.mark.skipif(_kernel() < (6, 9), reason="the kernel passes files of FUSE through since 6.9")


def counts(driver: FuseDriver, layer: Layer) -> dict[str, int]:
    """How many requests of each kind the server has answered so far."""
    place = driver.home / str(layer.id)
    log = place / "server.log"
    os.statvfs(place / "served")  # it hears signals once it has answered
    before = log.read_text().count("requests: ")
    pid = life.pid_of(place)
    assert pid is not None
    os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + 20
    while (text := log.read_text()).count("requests: ") == before:
        assert time.monotonic() < deadline, "the server does not tell"
        os.listxattr(place / "served")  # a request, which makes it look
    found = json.loads(re.findall(r"requests: (\{.*\})", text)[-1])
    return {kind: number for kind, number in found.items() if kind not in ("listxattr", "forget", "statfs")}


def spent(driver: FuseDriver, layer: Layer, work: Callable[[], object]) -> dict[str, int]:
    before = counts(driver, layer)
    work()
    after = counts(driver, layer)
    return {kind: number - before.get(kind, 0) for kind, number in after.items() if number != before.get(kind, 0)}


# thrift: requests are counted, since times depend on the machine


def test_a_warm_walk_asks_for_nothing_but_access_times_of_directories(driver: FuseDriver) -> None:
    layer, root = active(driver, grow(driver, many(20, 30)))

    def walk() -> None:
        for directory, _, names in os.walk(root):
            for name in names:
                os.lstat(os.path.join(directory, name))

    cold, warm = spent(driver, layer, walk), spent(driver, layer, walk)

    assert cold.get("readdir", 0) <= 21 * 3
    assert cold.get("lookup", 0) <= 21
    assert cold.get("getattr", 0) <= 21
    assert warm.keys() <= {"getattr"}  # reading a directory makes the kernel doubt its access time
    assert warm.get("getattr", 0) <= 21


def test_a_name_that_is_missing_is_asked_for_once(driver: FuseDriver) -> None:
    layer, root = active(driver, grow(driver, many(1, 1)))

    def miss() -> None:
        for _ in range(50):
            assert not (root / "dir0/missing").exists()

    assert spent(driver, layer, miss)["lookup"] <= 2
    assert spent(driver, layer, miss) == {}


def test_reading_again_comes_from_the_page_cache(driver: FuseDriver) -> None:
    layer, root = active(driver, grow(driver, lambda root: (root / "big").write_bytes(b"x" * (4 << 20))))

    def read() -> None:
        assert len((root / "big").read_bytes()) == 4 << 20

    cold, warm = spent(driver, layer, read), spent(driver, layer, read)

    assert cold["read"] >= 4
    assert warm in ({"open": 1, "release": 1}, {"open": 1, "release": 1, "getattr": 1})  # the access time is doubted


def test_what_was_read_stays_in_the_page_cache_when_the_file_is_touched(plain: FuseDriver) -> None:
    layer, root = active(plain, grow(plain, many(1, 1)))
    (root / "new").write_bytes(b"x" * (4 << 20))
    assert len((root / "new").read_bytes()) == 4 << 20

    def read_again() -> None:
        os.utime(root / "new", (1, 1))
        assert len((root / "new").read_bytes()) == 4 << 20

    assert until(lambda: "read" not in spent(plain, layer, read_again))  # somebody else may drop caches


def make_fifty(root: Path) -> None:
    for number in range(50):
        (root / f"dir0/new{number}").write_bytes(b"x")


def test_a_new_file_takes_few_requests(plain: FuseDriver) -> None:
    layer, root = active(plain, grow(plain, many(1, 1)))

    asked = spent(plain, layer, lambda: make_fifty(root))

    assert asked["create"] == asked["write"] == asked["release"] == 50
    assert (
        sum(asked.values()) <= 50 * 7
    )  # with one for the directory, whose attributes the kernel doubts after each change


@passes_through
def test_the_kernel_writes_and_reads_new_files_by_itself(driver: FuseDriver) -> None:
    layer, root = active(driver, grow(driver, many(1, 1)))

    def work() -> None:
        make_fifty(root)
        for number in range(50):
            assert (root / f"dir0/new{number}").read_bytes() == b"x"

    asked = spent(driver, layer, work)

    assert asked["create"] == asked["open"] == 50
    assert not asked.keys() & {"read", "write"}


@passes_through
def test_the_kernel_reads_a_view_by_itself(driver: FuseDriver) -> None:
    parents = grow(driver, many(2, 3), lambda root: (root / "big").write_bytes(b"x" * (4 << 20)))
    layer = Layer(9, Kind.VIEW, parents)
    driver.prepare(layer)
    root = served(driver, layer)

    asked = spent(driver, layer, lambda: [(root / "big").read_bytes(), (root / "dir0/file1").read_bytes()])

    assert asked["open"] == 2
    assert "read" not in asked


def test_who_reads_before_the_copy_up_sees_what_is_written_after_it(driver: FuseDriver) -> None:
    _, root = active(driver, grow(driver, many(1, 2)))
    with (
        (root / "dir0/file1").open("rb", buffering=0) as reader,
        (root / "dir0/file1").open("r+b", buffering=0) as writer,
    ):
        writer.write(b"X")
        assert reader.read() == b"X 1"
        with (root / "dir0/file1").open("rb") as late:
            assert late.read() == b"X 1"
    assert (root / "dir0/file1").read_bytes() == b"X 1"


def test_attributes_that_were_told_before_follow_what_happens(driver: FuseDriver) -> None:
    _, root = active(driver, grow(driver, many(1, 4)))
    os.listdir(root / "dir0")
    for number in range(4):
        (root / f"dir0/file{number}").read_bytes()  # from now on the kernel doubts the access time, and asks
    before = [(root / f"dir0/file{number}").stat() for number in range(4)]
    directory = (root / "dir0").stat()
    with (root / "dir0/file0").open("rb") as gone:
        (root / "dir0/file0").unlink()
        assert os.fstat(gone.fileno()).st_nlink == 0
    (root / "dir0/file1").chmod(0o604)
    os.link(root / "dir0/file2", root / "twin")
    (root / "twin").write_text("longer than before")

    for _ in range(2):
        os.listdir(root / "dir0")
        assert (root / "dir0").stat().st_mtime_ns > directory.st_mtime_ns
        assert stat.S_IMODE((root / "dir0/file1").stat().st_mode) == 0o604
        assert (root / "dir0/file1").stat().st_ino == before[1].st_ino
        assert (root / "dir0/file2").stat().st_nlink == 2
        assert (root / "dir0/file2").stat().st_size == 18
        assert (root / "dir0/file3").stat().st_mtime_ns == before[3].st_mtime_ns


def test_a_mapping_that_was_written_to_shows_in_the_times(driver: FuseDriver) -> None:
    _, root = active(driver, grow(driver, many(1, 1)))
    (root / "mapped").write_bytes(b"0" * 4096)
    os.utime(root / "mapped", (1, 1))
    assert (root / "mapped").stat().st_mtime == 1
    with (root / "mapped").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapping:
        mapping[0:1] = b"1"

    assert (root / "mapped").read_bytes()[:1] == b"1"
    assert until(lambda: (root / "mapped").stat().st_mtime > 1)


def test_removing_a_lower_tree_takes_one_request_a_name(driver: FuseDriver) -> None:
    layer, root = active(driver, grow(driver, many(5, 50)))

    asked = spent(driver, layer, lambda: subprocess.run(["rm", "-rf", *root.glob("dir*")], check=True))

    assert asked["unlink"] == 250
    assert asked["rmdir"] == 5
    assert sum(asked.values()) <= 2 * 255 + 5 * 8 + 20  # likewise


def resident(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.timeout(300)
def test_the_server_of_a_hundred_thousand_files_stays_below_a_hundred_megabytes_however_often_it_is_walked(
    driver: FuseDriver,
) -> None:
    def fill(root: Path) -> None:
        for number in range(200):
            (root / f"dir{number}").mkdir()
            for each in range(500):
                os.mknod(root / f"dir{number}/a file with a rather long name {each}")

    layer, root = active(driver, grow(driver, fill))

    assert sum(len(names) for _, _, names in os.walk(root)) == 100_000
    subprocess.run(["find", root, "-size", "+1"], check=True, stdout=subprocess.DEVNULL)

    pid = life.pid_of(driver.home / str(layer.id))
    assert pid is not None
    most = resident(pid)
    assert most < 100_000_000

    # the kernel then drops names that it need not keep
    subprocess.run(["mount", "-i", "-o", "remount", root], check=True)
    subprocess.run(["find", root, "-size", "+1"], check=True, stdout=subprocess.DEVNULL)

    assert resident(pid) < most * 1.1


def remembered(driver: FuseDriver, layer: Layer) -> int:
    counts(driver, layer)
    return int(re.findall(r"remembered: (\d+)", (driver.home / str(layer.id) / "server.log").read_text())[-1])


def test_what_the_kernel_forgets_is_forgotten(driver: FuseDriver) -> None:
    layer, root = active(driver, grow(driver, many(30, 100)))
    (root / "dir0/new").write_text("new")
    subprocess.run(["find", root, "-size", "+1"], check=True, stdout=subprocess.DEVNULL)
    assert remembered(driver, layer) > 3000

    subprocess.run(["mount", "-i", "-o", "remount", root], check=True)  # the kernel then drops names it need not keep

    assert until(lambda: remembered(driver, layer) < 50)
    assert (root / "dir0/new").read_text() == "new"
    assert len(os.listdir(root / "dir1")) == 100


def test_few_files_of_lower_layers_stay_open(driver: FuseDriver) -> None:
    layer, root = active(driver, grow(driver, many(6, 100)))
    for path in root.glob("dir*/file*"):
        path.read_bytes()

    assert len(os.listdir(f"/proc/{life.pid_of(driver.home / str(layer.id))}/fd")) < 300
    kept = {number: (root / f"dir0/file{number}").open("rb") for number in range(100)}
    for path in root.glob("dir*/file*"):
        path.read_bytes()
    assert [file.read() for file in kept.values()] == [f"0 {number}".encode() for number in kept]
    for file in kept.values():
        file.close()


# beside the kernel's overlay


@contextmanager
def by_the_kernel(driver: FuseDriver, layer: Layer) -> Iterator[Path]:
    """The same directories, joined by the kernel's overlay."""
    driver.release(layer.id)
    place = driver.home.parent / "kernel"
    place.mkdir()
    lowers = [driver.home / str(number) / "fs" for number in layer.parents]
    upper = driver.home / str(layer.id)
    mount_all([Mount("overlay", "overlay", overlay_options(lowers, upper / "fs", upper / "work"))], place)
    try:
        yield place
    finally:
        unmount(place)
        place.rmdir()


def seen(root: Path) -> dict[str, tuple[object, ...]]:
    """Every entry: type, mode, owner, content or target, attributes, and which names are one file."""
    found: dict[str, tuple[object, ...]] = {}
    names: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        one = names.setdefault(status.st_ino, name) if status.st_nlink > 1 and not path.is_dir() else name
        xattrs = tuple((each, os.getxattr(path, each, follow_symlinks=False)) for each in sorted(_listed(path)))
        found[name] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid, content, one, xattrs)
    return found


def _listed(path: Path) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


def _first(root: Path) -> None:
    many(3, 4)(root)
    os.link(root / "dir0/file0", root / "twin")
    (root / "link").symlink_to("dir0/file1")
    os.setxattr(root / "dir1", "user.mine", b"x")
    os.chown(root / "dir2/file2", 12, 34)
    os.mkfifo(root / "fifo")


def _second(root: Path) -> None:
    (root / "dir1").mkdir()
    os.setxattr(root / "dir1", "trusted.overlay.opaque", b"y")
    (root / "dir1/only").write_text("only")
    (root / "dir2").mkdir()
    os.mknod(root / "dir2/file0", stat.S_IFCHR, 0)


def test_the_kernel_sees_the_same_tree_after_all_kinds_of_changes(driver: FuseDriver) -> None:
    layer, root = active(driver, grow(driver, _first, _second))
    (root / "twin").write_text("both")
    os.rename(root / "dir2", root / "moved")
    (root / "dir2").mkdir()
    (root / "dir2/new").write_text("new")
    shutil.rmtree(root / "dir1")
    (root / "dir1").write_text("a file now")
    os.rename(root / "dir0/file3", root / "dir0/file2")
    os.setxattr(root / "dir0", "user.set", b"v")
    os.chown(root / "link", 5, 6, follow_symlinks=False)
    (root / "dir0/file1").chmod(0o4711)
    ours = seen(root)

    with by_the_kernel(driver, layer) as place:
        assert seen(place) == ours


def _remove(root: Path) -> None:
    (root / "dir0/file0").unlink()


def _replace(root: Path) -> None:
    os.rename(root / "dir0/file1", root / "dir0/file0")


@pytest.mark.parametrize("loses_a_name", [_remove, _replace])
def test_a_lower_file_that_lost_a_name_is_copied_up_under_its_others(
    driver: FuseDriver, loses_a_name: Callable[[Path], None]
) -> None:
    layer, root = active(driver, grow(driver, _first))
    assert (root / "twin").stat().st_nlink == 2
    loses_a_name(root)

    (root / "twin").write_text("written")

    assert (root / "twin").stat().st_nlink == 1
    assert (driver.changes(layer).root / "twin").read_text() == "written"
    ours = seen(root)
    with by_the_kernel(driver, layer) as place:
        assert seen(place) == ours


def test_a_copy_up_that_fails_half_way_leaves_no_name_behind(driver: FuseDriver) -> None:
    def fill(root: Path) -> None:
        many(3, 1)(root)
        for number in (1, 2):
            (root / f"dir{number}/file0").unlink()
            os.link(root / "dir0/file0", root / f"dir{number}/file0")

    layer, root = active(driver, grow(driver, fill))
    (root / "dir2/new").touch()
    closed = driver.changes(layer).root / "dir2"
    subprocess.run(["chattr", "+i", closed], check=True)
    try:
        with pytest.raises(PermissionError):
            (root / "dir0/file0").write_text("written")
    finally:
        subprocess.run(["chattr", "-i", closed], check=True)
    driver.release(layer.id)
    driver.mounts(layer)

    assert [(root / f"dir{number}/file0").read_text() for number in range(3)] == ["0 0"] * 3
    (root / "dir0/file0").write_text("written")

    assert [(root / f"dir{number}/file0").read_text() for number in range(3)] == ["written"] * 3
    assert len({(root / f"dir{number}/file0").stat().st_ino for number in range(3)}) == 1
    assert (root / "dir0/file0").stat().st_nlink == 3


def test_marks_of_fuse_overlayfs_are_understood(driver: FuseDriver) -> None:
    def marks(root: Path) -> None:
        for name in ("dir0", "dir1", "dir2"):
            (root / name).mkdir()
        os.setxattr(root / "dir0", "user.fuseoverlayfs.opaque", b"y")
        os.close(os.open(root / "dir1/.wh.file0", os.O_CREAT | os.O_WRONLY, 0o700))
        (root / "dir1/.wh.file0").chmod(0o700)
        os.close(os.open(root / "dir2/.wh..wh..opq", os.O_CREAT | os.O_WRONLY, 0o700))
        (root / "dir2/.wh..wh..opq").chmod(0o700)
        (root / ".wh.kept").write_text("an ordinary file")

    _, root = active(driver, grow(driver, many(3, 2), marks))

    assert os.listdir(root / "dir0") == []
    assert os.listdir(root / "dir1") == ["file1"]
    assert os.listdir(root / "dir2") == []
    assert (root / ".wh.kept").exists()


def test_an_overlay_inside_keeps_its_attributes_and_does_not_see_ours(driver: FuseDriver) -> None:
    layer, root = active(driver, grow(driver, many(1, 1)))
    os.setxattr(root / "dir0", "trusted.overlay.opaque", b"y")
    (root / "dir0/file0").write_text("copied up")

    assert os.listxattr(root / "dir0") == ["trusted.overlay.opaque"]
    assert os.listxattr(root / "dir0/file0") == []
    assert os.listdir(root / "dir0") == ["file0"]
    stored = driver.changes(layer).root / "dir0"
    assert "trusted.overlay.overlay.opaque" in os.listxattr(stored)


def test_nobody_can_make_a_whiteout_by_hand(driver: FuseDriver) -> None:
    _, root = active(driver, grow(driver, many(1, 1)))

    with pytest.raises(PermissionError):
        os.mknod(root / "device", stat.S_IFCHR | 0o600, 0)


# many at once


def test_eight_processes_may_hammer_one_directory(driver: FuseDriver) -> None:
    layer, root = active(driver, grow(driver, many(1, 40)))
    script = (
        "import os, sys\n"
        "root, me = sys.argv[1:]\n"
        "for turn in range(120):\n"
        "    name = f'{root}/{me}-{turn % 7}'\n"
        "    open(name, 'w').write(f'{me} {turn}')\n"
        "    os.rename(name, name + 'x')\n"
        "    assert open(name + 'x').read() == f'{me} {turn}'\n"
        "    names = os.listdir(root)\n"
        "    assert len(names) == len(set(names))\n"
        "    assert sum(each.startswith('file') for each in names) == 40\n"
        "    if turn % 3: os.unlink(name + 'x')\n"
    )
    workers = [subprocess.Popen(["/usr/bin/python3", "-c", script, root / "dir0", str(me)]) for me in range(8)]

    assert [worker.wait(timeout=120) for worker in workers] == [0] * 8
    ours = seen(root)
    assert "Traceback" not in (driver.home / str(layer.id) / "server.log").read_text()
    with by_the_kernel(driver, layer) as place:
        assert seen(place) == ours

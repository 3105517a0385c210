"""What is particular to devmapper: its pool, full, busy, foreign, enlarged; the suite does the rest.

Most of it needs a kernel with thin provisioning: the uml lane runs this file in its guest.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from lamina.conformance.harness import Room, grow, unlink, write
from lamina.conformance.smalldisk import cut_the_power, ext4, mounted_image
from lamina.errors import ConfigError, NoSpace, StoreBroken
from lamina.layer import Kind, Layer
from lamina.mount import mount_all, unmount
from lamina.syscalls import opened
from lamina_devmapper.driver import DevmapperDriver
from lamina_devmapper.inodes import Inodes, differing
from lamina_devmapper.options import DevmapperOptions
from lamina_devmapper.pool import Pool
from lamina_devmapper.records import Intent
from lamina_devmapper.status import PoolStatus, parse_status

thin = pytest.mark.skipif(
    not os.path.exists("/dev/mapper/control"), reason="this kernel has no device mapper; the uml lane runs this"
)
TIMEOUT = Path("/sys/module/dm_thin_pool/parameters/no_space_timeout")
SMALL: dict[str, Any] = {
    "base_size": 256 << 20,
    "loop_data_size": 64 << 20,
    "loop_metadata_size": 4 << 20,
    "min_free_percent": 0,
}


def driver_at(home: Path, **options: Any) -> DevmapperDriver:
    return DevmapperDriver(home, DevmapperOptions(**(SMALL | options)))


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[DevmapperDriver]:
    made = driver_at(tmp_path / "layers")
    made.start()
    yield made
    for layer_id in sorted(made.layers(), reverse=True):
        made.remove(layer_id)
    made.stop()


@contextmanager
def shown(driver: DevmapperDriver, layer: Layer, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    mount_all(driver.mounts(layer), place)
    try:
        yield place
    finally:
        unmount(place)
        driver.release(layer.id)


def active(number: int, *parents: int) -> Layer:
    return Layer(number, Kind.ACTIVE, parents)


def committed(driver: DevmapperDriver, layer: Layer, place: Path, **files: bytes) -> Layer:
    driver.prepare(layer)
    with shown(driver, layer, place) as root:
        for name, content in files.items():
            (root / name).write_bytes(content)
    frozen = attrs.evolve(layer, kind=Kind.COMMITTED)
    driver.commit(frozen)
    return frozen


def fill(place: Path) -> None:
    """Write, and flush, until the pool refuses."""
    with (place / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        for _ in range(200):
            file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())


def test_a_pools_status_is_read_as_the_kernel_writes_it() -> None:
    told = parse_status("7 154/1024 900/1000 - out_of_data_space discard_passdown error_if_no_space needs_check 1024")

    assert told == PoolStatus(7, (154, 1024), (900, 1000), "out_of_data_space", needs_check=True)
    assert round(told.free_percent["data"]) == 10


def test_a_pool_that_the_kernel_gave_up_is_told() -> None:
    with pytest.raises(StoreBroken, match="thin_check"):
        parse_status("Fail")


@pytest.mark.parametrize(
    "wrong",
    [
        {"data_device": Path("/dev/null")},
        {"block_size": 1000},
        {"min_free_percent": 100},
        {"base_size": 1},
        {"size": 1},
    ],
)
def test_options_that_could_never_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="devmapper"):
        DevmapperOptions(**wrong)


@pytest.mark.skipif(os.path.exists("/dev/mapper/control"), reason="this kernel has device mapper")
def test_a_kernel_without_device_mapper_is_told_in_one_line(tmp_path: Path) -> None:
    health = DevmapperDriver(tmp_path / "layers").health()

    assert health.problems == (
        "the kernel has no device mapper; load it (modprobe dm_mod), or boot a kernel that has it",
    )
    assert list(tmp_path.iterdir()) == []


@thin
@pytest.mark.parametrize("when_full", ["error", "queue"])
def test_a_full_pool_loses_nothing_committed_and_works_again_when_enlarged(tmp_path: Path, when_full: str) -> None:
    if when_full == "queue":
        TIMEOUT.write_text("2")
    home, place = tmp_path / "layers", tmp_path / "place"
    driver = driver_at(home, when_full=when_full)
    driver.start()
    content = os.urandom(4 << 20)
    base = committed(driver, active(1), place, file=content)
    driver.prepare(active(2, 1))
    with shown(driver, active(2, 1), place) as root:
        fill(root)
        assert driver._pool.status().free_percent["data"] == 0  # noqa: SLF001  # it is full indeed

    with shown(driver, base, place) as root:
        assert (root / "file").read_bytes() == content
    driver.stop()
    larger = driver_at(home, when_full=when_full, loop_data_size=256 << 20)
    larger.start()
    larger.remove(2)
    child = committed(larger, active(3, 1), place, more=os.urandom(70 << 20))

    with shown(larger, child, place) as root:
        assert (root / "file").read_bytes() == content
        assert (root / "more").stat().st_size == 70 << 20
    for layer_id in (3, 1):
        larger.remove(layer_id)
    larger.stop()


@thin
def test_a_writer_killed_while_it_waits_for_room_takes_nothing_with_it(tmp_path: Path) -> None:
    TIMEOUT.write_text("2")  # seconds: until then nobody can be killed who waits
    home, place = tmp_path / "layers", tmp_path / "place"
    driver = driver_at(home, when_full="queue")
    driver.start()
    base = committed(driver, active(1), place, file=b"text")
    driver.prepare(active(2, 1))
    with shown(driver, active(2, 1), place) as root:
        writer = subprocess.Popen(["dd", "if=/dev/urandom", f"of={root}/ballast", "bs=1M", "conv=fsync"])
        _until(lambda: driver._pool.status().mode == "out_of_data_space")  # noqa: SLF001
        writer.kill()
        writer.wait(60)
    driver.stop()

    larger = driver_at(home, loop_data_size=256 << 20)
    larger.start()
    larger.remove(2)

    child = committed(larger, active(3, 1), place, more=os.urandom(70 << 20))
    assert _read(larger, base, place, "file") == b"text"
    assert len(_read(larger, child, place, "more")) == 70 << 20
    for layer_id in (3, 1):
        larger.remove(layer_id)
    larger.stop()


@thin
def test_a_pool_whose_metadata_is_full_keeps_what_was_committed_and_works_again_when_enlarged(tmp_path: Path) -> None:
    home, place = tmp_path / "layers", tmp_path / "place"
    driver = driver_at(home, loop_metadata_size=2 << 20)
    driver.start()
    base = committed(driver, active(1), place, file=b"text")
    with pytest.raises(OSError, match=r"No space|not supported"):
        _crowd(driver._pool)  # noqa: SLF001
    with pytest.raises(NoSpace, match=r"100% of its metadata.*enlarge it"):
        driver.prepare(active(2, 1))
    assert driver.layers() == {1}
    assert _read(driver, base, place, "file") == b"text"
    driver.stop()

    larger = driver_at(home, loop_metadata_size=16 << 20)
    larger.start()
    child = committed(larger, active(3, 1), place, more=b"more")

    assert _read(larger, base, place, "file") == b"text"
    assert _read(larger, child, place, "more") == b"more"
    for layer_id in (3, 1):
        larger.remove(layer_id)
    larger.stop()


def _crowd(pool: Pool) -> None:
    """As many volumes as a crowd of layers would need."""
    for number in range(1000, 3000):
        pool.mapper.message(pool.record.name, f"create_thin {number}")


def _read(driver: DevmapperDriver, layer: Layer, place: Path, name: str) -> bytes:
    with shown(driver, layer, place) as root:
        return (root / name).read_bytes()


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)  # there is nothing to wait on


@thin
def test_a_nearly_full_pool_takes_no_new_layer_and_says_what_to_do(driver: DevmapperDriver, tmp_path: Path) -> None:
    committed(driver, active(1), tmp_path / "place", file=os.urandom(20 << 20))
    careful = driver_at(driver.home, min_free_percent=80)

    with pytest.raises(NoSpace, match="less than 80% is free of its data: remove layers or enlarge the pool"):
        careful.prepare(active(2, 1))

    assert driver.layers() == {1}
    driver.prepare(active(2, 1))


@thin
def test_a_pool_with_nearly_full_metadata_takes_no_new_layer_either(tmp_path: Path) -> None:
    driver = driver_at(tmp_path / "layers", loop_metadata_size=2 << 20)
    driver.start()
    pool = driver._pool  # noqa: SLF001
    for number in range(1000, 1020):
        pool.mapper.message(pool.record.name, f"create_thin {number}")
    free = int(pool.status().free_percent["metadata"])
    careful = driver_at(driver.home, loop_metadata_size=2 << 20, min_free_percent=free + 1)

    with pytest.raises(NoSpace, match=f"less than {free + 1}% is free of its metadata: remove layers or enlarge"):
        careful.prepare(active(1))

    assert driver.layers() == set()
    driver.prepare(active(1))
    driver.remove(1)
    driver.stop()


@thin
def test_layers_on_xfs_are_seen_together_compared_and_removed(tmp_path: Path) -> None:
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("there is no mkfs.xfs")
    options = DevmapperOptions(**(SMALL | {"filesystem": "xfs", "base_size": 300 << 20, "loop_data_size": 512 << 20}))
    room = Room(tmp_path, DevmapperDriver, options)

    with room.open() as snapshots:
        grow(room, snapshots, "base", write("file", "text"), write("gone", "x"))
        grow(room, snapshots, "child", write("file", "more text"), unlink("gone"), parent="base")
        with snapshots.look("base") as below, snapshots.look("child") as above:
            seen = (below / "file").read_text(), (above / "file").read_text(), os.listdir(above)
        told = {(change.kind.name, change.path) for change in snapshots.changes("child")}
        for name in ("child", "base"):
            snapshots.remove(name)
        assert snapshots.driver.layers() == set()

    assert seen == ("text", "more text", ["file"])
    assert told == {("MODIFIED", b""), ("MODIFIED", b"file"), ("DELETED", b"gone")}


@thin
def test_a_layer_that_is_in_use_goes_with_its_last_user(driver: DevmapperDriver) -> None:
    driver.prepare(active(1))
    (mount,) = driver.mounts(active(1))
    user = os.open(mount.source, os.O_RDONLY)
    driver._pool.mapper.remove(driver._pool.name_of(1), deferred=True)  # noqa: SLF001  # as a release would

    driver.remove(1)
    while_open = driver.layers()
    os.close(user)
    driver.prepare(active(2))

    assert while_open == {1}
    assert driver.layers() == {2}


@thin
def test_a_creation_cut_short_is_undone_and_its_number_used_again(driver: DevmapperDriver) -> None:
    pool = driver._pool  # noqa: SLF001  # what a power cut would leave
    driver.prepare(active(1))
    last = pool.records.intent
    pool.records.write_intent(Intent(last.number + 1, "create", 2, last.thin + 1))
    pool.mapper.message(pool.record.name, f"create_snap {last.thin + 1} 0")

    again = driver_at(driver.home)
    again.start()

    with pytest.raises(OSError, match="No data") as refused:
        pool.mapper.message(pool.record.name, f"delete {last.thin + 1}")
    assert refused.value.errno == errno.ENODATA
    assert again.layers() == {1}
    again.prepare(active(2))


@thin
def test_a_pool_that_somebody_else_has_changed_is_refused(driver: DevmapperDriver) -> None:
    pool = driver._pool  # noqa: SLF001
    now = pool.status().transaction
    pool.mapper.message(pool.record.name, f"set_transaction_id {now} {now + 5}")

    with pytest.raises(StoreBroken, match="somebody else has changed the pool"):
        driver_at(driver.home).start()

    pool.mapper.message(pool.record.name, f"set_transaction_id {now + 5} {now}")


@thin
def test_another_pool_is_known_by_its_base(driver: DevmapperDriver) -> None:
    records = driver._pool.records  # noqa: SLF001
    own = driver._pool.record  # noqa: SLF001
    records.write_pool(attrs.evolve(own, base_uuid="6b8b4567-327b-23c6-643c-986966334873"))

    with pytest.raises(StoreBroken, match="this is another pool"):
        driver_at(driver.home).start()

    records.write_pool(own)


@thin
@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_a_new_layer_may_be_larger_than_its_base(tmp_path: Path, filesystem: str) -> None:
    if shutil.which(f"mkfs.{filesystem}") is None:
        pytest.skip(f"there is no mkfs.{filesystem}")
    sizes = {"base_size": 512 << 20, "loop_data_size": 512 << 20}
    driver = driver_at(tmp_path / "layers", filesystem=filesystem, size=1 << 30, **sizes)
    driver.start()

    driver.prepare(active(1))

    with shown(driver, active(1), tmp_path / "place") as root:
        told = os.statvfs(root)
        assert told.f_blocks * told.f_frsize > 900 << 20
        assert os.listdir(root) == []
    driver.remove(1)
    driver.stop()


@thin
def test_a_size_that_the_parent_exceeds_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    driver = driver_at(tmp_path / "layers")
    driver.start()
    committed(driver, active(1), tmp_path / "place", file=b"text")
    smaller = driver_at(tmp_path / "layers", size=64 << 20)

    assert any("size is less than" in problem for problem in smaller.health().problems)
    with pytest.raises(ConfigError, match="it cannot shrink"):
        smaller.prepare(active(2, 1))

    assert driver.layers() == {1}
    driver.remove(1)
    driver.stop()


@thin
def test_what_a_removed_layer_held_is_given_back_to_the_disk(driver: DevmapperDriver, tmp_path: Path) -> None:
    data = driver.home / "data"
    committed(driver, active(1), tmp_path / "place", file=os.urandom(16 << 20))
    before = data.stat().st_blocks

    driver.remove(1)

    assert data.stat().st_blocks < before - (14 << 20) // 512


# what the driver knows of changes


@pytest.mark.needs_root
def test_the_inodes_of_a_copy_differ_where_it_was_changed(tmp_path: Path) -> None:
    image, copy, place = tmp_path / "image", tmp_path / "copy", tmp_path / "place"
    place.mkdir()
    with ext4(place, image, 64):
        for number in range(300):
            (place / f"file{number}").write_text("text")
    cut_the_power(image, copy)
    with mounted_image(place, copy):
        (place / "file1").write_text("TEXT")
        (place / "file2").chmod(0o600)
        numbers = {(place / name).stat().st_ino for name in ("file1", "file2", "file3")}
        (place / "file3").rename(place / "moved")
        (place / "file4").read_text()  # its time of access is nobody's business
        root = place.stat().st_ino

    with opened(image, os.O_RDONLY) as one, opened(copy, os.O_RDONLY) as other:
        tables = Inodes.of(one), Inodes.of(other)
        assert tables[0] is not None
        assert tables[1] is not None
        assert set(differing(tables[0], tables[1])) == {root, *numbers}


def test_what_is_no_ext4_has_no_inodes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(8192))

    with opened(tmp_path / "file", os.O_RDONLY) as file:
        assert Inodes.of(file) is None


@thin
def test_a_diff_names_what_has_changed_and_hardly_more(driver: DevmapperDriver, tmp_path: Path) -> None:
    files = {f"file{number}": b"text" for number in range(100)}
    base = committed(driver, active(1), tmp_path / "place", **files)
    child = active(2, base.id)
    driver.prepare(child)
    with shown(driver, child, tmp_path / "place") as root:
        before = (root / "file1").stat()
        (root / "file1").write_bytes(b"TEXT")
        os.utime(root / "file1", ns=(before.st_atime_ns, before.st_mtime_ns))  # nobody can set the change time back
        (root / "file2").unlink()
        (root / "file3").rename(root / "moved")
        assert _told(driver, child) == {b"", b"file1", b"file2", b"file3", b"moved"}  # also while it is mounted
    frozen = attrs.evolve(child, kind=Kind.COMMITTED)
    driver.commit(frozen)

    assert _told(driver, frozen) == {b"", b"file1", b"file2", b"file3", b"moved"}
    assert _told(driver, Layer(3, Kind.VIEW, (2, 1))) == set()


def _told(driver: DevmapperDriver, layer: Layer) -> set[bytes]:
    changes = driver.diff(layer)
    assert changes is not None
    return {change.path for change in changes}


@thin
def test_who_dies_while_looking_at_a_layer_is_not_in_the_way_of_its_removal(
    driver: DevmapperDriver, tmp_path: Path
) -> None:
    committed(driver, active(1), tmp_path / "place", file=b"text")
    pool = driver._pool  # noqa: SLF001  # what a killed diff would leave
    record = pool.records.layer(1)
    assert record is not None
    killed = pool.look(record)
    killed.__enter__()

    driver.remove(1)

    assert driver.layers() == set()
    assert [name for name in pool.mapper.names() if name.startswith(f"{pool.record.name}-")] == []


@thin
def test_usage_is_what_a_layer_maps_beyond_its_parent(driver: DevmapperDriver, tmp_path: Path) -> None:
    base = committed(driver, active(1), tmp_path / "place", file=os.urandom(8 << 20))
    child = committed(driver, active(2, 1), tmp_path / "place", more=os.urandom(2 << 20))

    assert 8 << 20 <= driver.usage(base).size < 14 << 20
    assert 2 << 20 <= driver.usage(child).size < 8 << 20
    assert driver.usage(child).inodes == 1

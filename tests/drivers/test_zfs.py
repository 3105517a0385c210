"""What is particular to zfs, on a zfs-fuse of our own; everything else is the suite's business."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from zfsdaemon import ZfsHouse, zfs_house

from lamina.errors import ConfigError
from lamina_zfs.options import ZfsOptions

needs_root = pytest.mark.needs_root

_PREFACE = """
import os, sys
from pathlib import Path
from lamina.layer import Kind, Layer
from lamina.mount import is_mounted
from lamina_zfs.commands import children, zfs
from lamina_zfs.driver import ZfsDriver
from lamina_zfs.options import ZfsOptions

def active(number, *parents):
    return Layer(number, Kind.ACTIVE, parents)

def committed(driver, number, *parents):
    driver.prepare(active(number, *parents))
    Path(driver.mounts(active(number, *parents))[0].source, f"file{number}").write_text(str(number))
    driver.release(number)
    driver.commit(Layer(number, Kind.COMMITTED, parents))

home, dataset = Path(sys.argv[1]), sys.argv[2]
driver = ZfsDriver(home, ZfsOptions(dataset))
driver.start()
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZfsHouse]:
    with zfs_house(tmp_path_factory.mktemp("zfs"), megabytes=512) as made:
        yield made


def inside(house: ZfsHouse, place: Path, code: str) -> None:
    """Run the code where the daemon's mounts are to be seen, with a driver on a dataset of its own."""
    argv = [sys.executable, "-c", _PREFACE + code, str(place / "layers"), f"{house.pool}/{place.name}"]

    told = subprocess.run(house.inside(argv), capture_output=True, text=True, check=False, timeout=60)

    assert told.returncode == 0, told.stderr


@needs_root
@pytest.mark.parametrize("order", [(1, 2, 3), (1, 3, 2), (2, 1, 3), (3, 1, 2), (2, 3, 1)])
def test_layers_may_be_removed_in_any_order(house: ZfsHouse, tmp_path: Path, order: tuple[int, ...]) -> None:
    inside(
        house,
        tmp_path,
        f"""
committed(driver, 1)
committed(driver, 2, 1)
committed(driver, 3, 1)
for number in {order[:2]}:
    driver.remove(number)
last = active({order[2]})
tree = Path(driver.mounts(last)[0].source)
assert (tree / "file{order[2]}").read_text() == "{order[2]}"
assert last.id == 1 or (tree / "file1").read_text() == "1"
driver.remove(last.id)
assert children(dataset) == []
assert driver.layers() == set()
""",
    )


@needs_root
def test_a_dataset_of_another_store_is_refused(house: ZfsHouse, tmp_path: Path) -> None:
    inside(
        house,
        tmp_path,
        """
from lamina.errors import Unhealthy
driver.prepare(active(1))
try:
    ZfsDriver(home.with_name("other"), ZfsOptions(dataset)).start()
except Unhealthy as error:
    assert "another store" in str(error)
else:
    raise AssertionError("not refused")
driver.remove(1)
ZfsDriver(home.with_name("other"), ZfsOptions(dataset)).start()
""",
    )


@needs_root
def test_a_layer_whose_directory_was_lost_is_found_after_a_reboot(house: ZfsHouse, tmp_path: Path) -> None:
    inside(
        house,
        tmp_path,
        """
driver.layers()
driver.prepare(active(1))
(home / "1/tree").rmdir()
(home / "1/mountpoint").unlink()
(home / "1").rmdir()
store, _ = driver._noted()
driver._note(store, "another boot")
assert driver.layers() == {1}
driver.remove(1)
assert children(dataset) == []
""",
    )


@needs_root
def test_a_snapshot_that_an_interrupted_commit_has_left_is_taken_anew(house: ZfsHouse, tmp_path: Path) -> None:
    inside(
        house,
        tmp_path,
        """
driver.prepare(active(1))
zfs("snapshot", f"{dataset}/1@1")
Path(driver.mounts(active(1))[0].source, "later").touch()
driver.release(1)
driver.commit(Layer(1, Kind.COMMITTED))
driver.prepare(active(2, 1))
assert os.listdir(driver.mounts(active(2, 1))[0].source) == ["later"]
driver.stop()
assert not is_mounted(home / "2/tree")
driver.remove(2)
driver.remove(1)
""",
    )


@needs_root
def test_many_layers_are_mounted_at_once_and_all_are_served(house: ZfsHouse, tmp_path: Path) -> None:
    inside(
        house,
        tmp_path,
        """
from concurrent.futures import ThreadPoolExecutor

def come_and_go(number):
    for _ in range(9):
        driver.mounts(active(number))
        driver.release(number)

for number in range(1, 17):
    driver.prepare(active(number))
with ThreadPoolExecutor(16) as threads:
    list(threads.map(come_and_go, range(1, 17)))
for number in range(1, 17):
    driver.remove(number)
""",
    )


@needs_root
def test_what_zfs_fuse_lacks_is_found_out_and_leaves_nothing(house: ZfsHouse, tmp_path: Path) -> None:
    inside(
        house,
        tmp_path,
        """
lacking = {ability.name for ability in driver.lacking()}
assert {"NANOSECOND_TIMES", "LATE_TIMES", "LARGE_XATTRS", "ACLS", "SETID_WRITES", "TMPFILE"} <= lacking, lacking
assert driver.health().ok
assert not any("probe" in name for name in children(dataset.partition("/")[0]))
""",
    )


@needs_root
def test_zfs_fuse_cannot_tell_differences_and_a_layer_that_stays_in_place_is_told_once(
    house: ZfsHouse, tmp_path: Path
) -> None:
    inside(
        house,
        tmp_path,
        """
committed(driver, 1)
told = []
from lamina_zfs import commands
run = commands.run
commands.run = lambda *words, **how: told.append(words[1]) or run(*words, **how)
driver.prepare(active(2, 1))
for number, layer in ((1, Layer(1, Kind.COMMITTED)), (2, active(2, 1))):
    driver.mounts(layer)
assert driver.diff(active(2, 1)) is None
assert driver.diff(Layer(1, Kind.COMMITTED)) is None
driver.release(1)
driver.release(2)
assert told[0] == "clone"
assert "set" not in told, told
driver.remove(2)
driver.remove(1)
""",
    )


@needs_root
def test_a_layer_takes_the_same_few_runs_of_zfs_however_many_there_are(house: ZfsHouse, tmp_path: Path) -> None:
    inside(
        house,
        tmp_path,
        """
from lamina_zfs import commands
run, told = commands.run, []
commands.run = lambda *words, **how: told.append(words[1]) or run(*words, **how)
driver.layers()

def life_of(number):
    told.clear()
    committed(driver, number, *reversed(range(1, number)))
    driver.layers()
    return list(told)

lives = [life_of(number) for number in range(1, 13)]
assert lives[-1] == lives[1] == ["clone", "unmount", "snapshot"], lives
told.clear()
for number in range(12, 0, -1):
    driver.remove(number)
assert told == ["destroy"] * 12, told
""",
    )


@needs_root
def test_a_host_without_the_daemon_is_told_so(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from lamina_zfs.driver import ZfsDriver
(problem,) = ZfsDriver(Path(sys.argv[1])).health().problems
assert "zpool create" in problem
"""
    alone = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount -t tmpfs t /run && exec "$@"', "sh"]
    told = subprocess.run([*alone, sys.executable, "-c", code, os.fspath(tmp_path)], capture_output=True, check=False)

    assert told.returncode == 0, told.stderr.decode()


@pytest.mark.parametrize("dataset", ["", "/tank", "tank/", "tank@1", "-f", "a b"])
def test_what_is_no_dataset_is_refused(dataset: str) -> None:
    with pytest.raises(ConfigError, match="not the name of a dataset"):
        ZfsOptions(dataset)

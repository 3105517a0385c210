"""A store with the demo's image, on each driver that this machine can run, and real runtimes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from desk import Desk

HOUSE = Path(__file__).parents[2]
DRIVERS = ("overlay", "vfs")  # more of them as they come: whatever the host itself can mount
RUNTIMES = ("crun", "runc")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's image of three layers, demo/busybox:latest."""
    path = tmp_path_factory.mktemp("archive") / "busybox.tar"
    subprocess.run([sys.executable, HOUSE / "demo/image.py", path], check=True)
    return path


@pytest.fixture(scope="session")
def stores(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A store of a driver that has the image, made once: a copy of a store is a store."""
    made: dict[str, Path] = {}

    def store(driver: str) -> Path:
        if driver not in made:
            place = tmp_path_factory.mktemp(f"store-{driver}")
            desk = Desk(place, environment(driver, place))
            desk.does("load", "-q", "-i", archive)
            made[driver] = place / "store"
        return made[driver]

    return store


def environment(driver: str, place: Path) -> dict[str, str]:
    """A store and a config of its own, and nothing of the caller's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}
    (place / "config.toml").touch()
    ours = {"LAMINA_ROOT": f"{place}/store", "LAMINA_CONFIG": f"{place}/config.toml"}
    return clean | ours | {"LAMINA_DRIVER": driver}


@pytest.fixture
def new_desk(tmp_path: Path, stores: Callable[[str], Path]) -> Iterator[Callable[[str, str], Desk]]:
    """A maker of desks with a driver and a runtime; their containers are removed, and nothing stays mounted."""
    made: list[Desk] = []

    def new(driver: str, runtime: str) -> Desk:
        place = tmp_path / f"desk-{len(made)}"
        (place / "work").mkdir(parents=True)
        (place / "config.toml").write_text(f'[containers]\nruntime = "{runtime}"\n')
        subprocess.run(["cp", "-a", stores(driver), place / "store"], check=True)
        made.append(Desk(place / "work", environment(driver, place)))
        return made[-1]

    yield new

    for desk in made:
        rooms = Path(desk.environ["LAMINA_ROOT"], "containers")
        if rooms.exists() and (ids := os.listdir(rooms)):  # those that were ever started
            desk.does("rm", "-f", *ids)
    assert mounted_below(tmp_path) == []


@pytest.fixture
def desk(new_desk: Callable[[str, str], Desk]) -> Desk:
    """On overlay, with crun."""
    return new_desk("overlay", "crun")


@pytest.fixture(params=DRIVERS)
def any_desk(request: pytest.FixtureRequest, new_desk: Callable[[str, str], Desk]) -> Desk:
    """On each driver."""
    return new_desk(request.param, "crun")


@pytest.fixture(params=RUNTIMES)
def each_runtime(request: pytest.FixtureRequest, new_desk: Callable[[str, str], Desk]) -> Desk:
    """With each runtime."""
    return new_desk("overlay", request.param)


def mounted_below(path: Path) -> list[str]:
    """What is mounted there."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [target for line in lines if (target := line.split()[4]).startswith(f"{path}/")]


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Something becomes true, soon."""

    def wait(true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not true():
            assert time.monotonic() < deadline, "it did not become true"
            time.sleep(0.05)

    return wait

"""Lanes: containerd and our service, for each driver that this host can have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from grounds import Ground, ground
from lane import Client, Lane
from lanes import LANES
from registries import publish, registry

HOUSE = Path(__file__).parents[2]
DRIVERS: Final = LANES["host"]
# Each step on zfs is a run of zfs, tens of milliseconds: one scenario, from the pull to the collection, has to do.
SLOW: Final = frozenset({"zfs"})
QUICK: Final = tuple(driver for driver in DRIVERS if driver not in SLOW)


_SETS: Final[Mapping[str, Sequence[str]]] = {"all": DRIVERS, "quick": QUICK}


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark."""
    config.addinivalue_line("markers", "on(drivers): the driver, or the set of them, that a test of containerd runs on")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test runs on the driver or the set of drivers that its nearest mark `on` names; without one, on the quick."""
    if "driver" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("on")
        name = "quick" if mark is None else mark.args[0]
        metafunc.parametrize("driver", _SETS.get(name, [name]), indirect=True, scope="session")


@pytest.fixture(scope="session")
def driver(request: pytest.FixtureRequest) -> str:
    """Which driver the test runs on."""
    return str(request.param)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's image of three layers."""
    path = tmp_path_factory.mktemp("archive") / "busybox.tar"
    subprocess.run([sys.executable, HOUSE / "demo/image.py", path], check=True)
    return path


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[str]:
    """The same image in a registry on loopback; its name there."""
    with registry(tmp_path_factory.mktemp("registry")) as running:
        name = f"{running.host}/demo/busybox:latest"
        publish(archive, name)
        yield name


@pytest.fixture(scope="session")
def standing(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """What the driver stands on, once for all tests."""
    with ground(driver, tmp_path_factory.mktemp("ground")) as found:
        yield found


@contextmanager
def _serving(place: Path, standing: Ground) -> Iterator[Lane]:
    lane = Lane(place, standing)
    try:
        lane.serve()
        yield lane
    finally:
        lane.end()


@pytest.fixture
def served(standing: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    """Our service alone, on a store of its own."""
    with _serving(tmp_path_factory.mktemp("c"), standing) as lane:
        yield lane


@pytest.fixture
def ask(served: Lane) -> Iterator[Client]:
    """Whoever calls it."""
    with served.client() as client:
        yield client


@pytest.fixture
def lane(served: Lane) -> Lane:
    """With containerd."""
    served.contain()
    return served


@pytest.fixture(scope="session")
def common(standing: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    """A service for tests that do not mind others' snapshots beside their own."""
    with _serving(tmp_path_factory.mktemp("common"), standing) as lane:
        yield lane


@pytest.fixture
def prefix() -> str:
    """What the names of one test's snapshots begin with."""
    return f"{os.urandom(4).hex()}-"

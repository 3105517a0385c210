"""Lanes: containerd and our service, for each driver that this host can have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from lane import Lane

HOUSE = Path(__file__).parents[2]
IMAGE: Final = "docker.io/demo/busybox:latest"
# A driver that needs more than a directory (a pool, a file system of its own) joins with what it needs.
DRIVERS: Final = ("overlay", "vfs")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's image of three layers."""
    path = tmp_path_factory.mktemp("archive") / "busybox.tar"
    subprocess.run([sys.executable, HOUSE / "demo/image.py", path], check=True)
    return path


@pytest.fixture(params=DRIVERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    """Our service alone."""
    lane = Lane(tmp_path_factory.mktemp("c"), request.param)
    try:
        lane.serve()
        yield lane
    finally:
        lane.end()


@pytest.fixture
def lane(served: Lane) -> Lane:
    """With containerd."""
    served.contain()
    return served

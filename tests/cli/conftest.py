"""Desks for the tests of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from desk import Desk

HOUSE = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's image of three layers, demo/busybox:latest."""
    path = tmp_path_factory.mktemp("archive") / "busybox.tar"
    subprocess.run([sys.executable, HOUSE / "demo/image.py", path], check=True)
    return path


@pytest.fixture
def new_desk(tmp_path: Path) -> Iterator[Callable[[], Desk]]:
    """A maker of desks; what their commands left mounted is unmounted, and named."""
    made: list[Desk] = []

    def new() -> Desk:
        place = tmp_path / f"desk-{len(made)}"
        (place / "work").mkdir(parents=True)
        (place / "config.toml").touch()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}
        ours = {
            "LAMINA_DRIVER": "vfs",
            "LAMINA_ROOT": str(place / "store"),
            "LAMINA_CONFIG": str(place / "config.toml"),
        }
        made.append(Desk(place / "work", clean | ours))
        return made[-1]

    yield new

    for target in _mounted_below(tmp_path):
        subprocess.run(["umount", "--lazy", target], check=True)


@pytest.fixture
def desk(new_desk: Callable[[], Desk]) -> Desk:
    """An empty store."""
    return new_desk()


@pytest.fixture
def busy_desk(desk: Desk, archive: Path) -> Desk:
    """A store with the image demo/busybox and a container `box` on it."""
    desk.does("load", "-q", "-i", archive)
    desk.does("create", "-q", "--name", "box", "demo/busybox")
    return desk


def _mounted_below(path: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return sorted((target for line in lines if (target := line.split()[4]).startswith(f"{path}/")), reverse=True)

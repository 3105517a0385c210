"""Registries on loopback, and a docker daemon: what docker itself does and prints is the measure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk
from dockers import RunningDocker, docker_daemon
from registries import RunningRegistry, htpasswd, publish, registry

HOUSE = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    """Stands for docker.io, and has busybox."""
    place = tmp_path_factory.mktemp("hub")
    archive = place / "busybox.tar"
    subprocess.run([sys.executable, HOUSE / "demo/image.py", archive], check=True)
    with registry(place / "registry") as running:
        publish(archive, f"{running.host}/library/busybox:latest")
        yield running


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory, hub: RunningRegistry) -> Iterator[RunningDocker]:
    """Docker itself."""
    with docker_daemon(tmp_path_factory.mktemp("d"), hub) as running:
        yield running


@pytest.fixture
def docker(daemon: RunningDocker, tmp_path: Path) -> Iterator[Desk]:
    """Docker's own command line, with no image and no container."""
    yield daemon.desk(tmp_path / "docker")
    daemon.clear()


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[RunningRegistry]:
    """An empty registry that lets in who is logged in."""
    with registry(tmp_path / "registry", auth=htpasswd(tmp_path / "auth")) as running:
        yield running


@pytest.fixture
def driver() -> str:
    """On which driver lamina keeps its layers, where a test does not say."""
    return "overlay"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where the driver can keep layers."""
    return tmp_path


@pytest.fixture
def lamina(driver: str, disk: Path, tmp_path: Path, hub: RunningRegistry) -> Iterator[Desk]:
    """Lamina's command line with an empty store; what is left running is removed."""
    (tmp_path / "work").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(f'[registries.hosts."docker.io"]\nmirrors = ["{hub.host}"]\n')
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}
    ours = {"LAMINA_DRIVER": driver, "LAMINA_ROOT": str(disk / "store"), "LAMINA_CONFIG": str(config)}
    desk = Desk(tmp_path / "work", clean | ours | {"DOCKER_CONFIG": str(tmp_path / "logins")})
    yield desk
    if left := desk.does("ps", "-aq").split():
        desk.does("rm", "-f", *left)

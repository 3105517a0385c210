"""Every driver that a test on the host can have runs a container."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk
from lanes import LANES
from loops import btrfs_on_a_loop
from zfsdaemon import zfs_house

pytestmark = pytest.mark.needs_root


@contextlib.contextmanager
def desk_with(driver: str, place: Path) -> Iterator[Desk]:
    """An empty store of the driver, where it can keep layers."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}
    ours = clean | {"LAMINA_DRIVER": driver, "LAMINA_ROOT": f"{place}/store", "LAMINA_CONFIG": f"{place}/config.toml"}
    config = place / "config.toml"
    config.touch()
    if driver == "btrfs":
        with btrfs_on_a_loop(place) as root:
            yield Desk(place, ours | {"LAMINA_ROOT": f"{root}/store"})
    elif driver == "zfs":
        with zfs_house(place, megabytes=512) as house:
            config.write_text(f'[drivers.zfs]\ndataset = "{house.pool}/layers"\n')
            yield Desk(place, ours, tuple(house.inside([])))
    else:
        yield Desk(place, ours)


@pytest.mark.parametrize("driver", LANES["host"])
def test_a_container_runs_is_changed_committed_and_runs_again(driver: str, tmp_path: Path, archive: Path) -> None:
    with desk_with(driver, tmp_path) as desk:
        desk.does("load", "-q", "-i", archive)

        assert desk.does("run", "--rm", "demo/busybox", "cat", "/etc/motd") == "hello from the second layer\n"
        desk.does("run", "-d", "--name", "box", "demo/busybox", "sleep", "1000")
        try:
            desk.does("exec", "box", "sh", "-c", "echo changed > /etc/motd; rm /usr/share/poem")
            assert {"C /etc/motd", "D /usr/share/poem"} <= set(desk.does("diff", "box").splitlines())
            desk.does("commit", "-p", "box", "changed:1")
            assert desk.does("run", "--rm", "changed:1", "sh", "-c", "cat /etc/motd; ls /usr/share") == "changed\n"
        finally:
            desk.does("rm", "-f", "box")
        assert desk.does("rmi", "changed:1").startswith("Untagged: ")

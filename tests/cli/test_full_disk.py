"""A full disk under the command line: what is there is told, and can be removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from desk import Desk

from lamina.conformance.smalldisk import btrfs, ext4, fill

DISKS = {"ext4": ext4, "btrfs": btrfs}


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", DISKS)
def test_an_image_can_be_listed_and_removed_when_the_disk_is_full(
    kind: str, desk: Desk, archive: Path, tmp_path: Path
) -> None:
    """Each command is a process of its own, for which opening the databases alone takes some room."""
    place = tmp_path / "disk"
    place.mkdir()
    with DISKS[kind](place, tmp_path / "image", 96):
        desk.environ["LAMINA_ROOT"] = str(place / "store")
        desk.does("load", "-q", "-i", archive)
        fill(place)
        os.sync()

        examined = desk.run("doctor").stdout.decode()
        assert "problem  0B of " in examined or "lamina prune" in examined
        assert "I/O error" not in examined
        assert "demo/busybox" in desk.does("images")
        desk.does("rmi", "demo/busybox")

        assert "demo/busybox" not in desk.does("images")

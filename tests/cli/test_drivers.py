"""`drivers` and `doctor` tell what works here, why not, and what to do."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import attrs
import pytest
from desk import Desk


def documents(told: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in told.splitlines()]


def test_every_driver_of_ours_is_listed(desk: Desk) -> None:
    assert {"overlay", "vfs"} <= set(desk.does("drivers", "-q").split())


def test_the_one_that_is_used_has_a_star(desk: Desk) -> None:
    assert any(line.startswith("vfs *") for line in desk.does("--driver", "vfs", "drivers").splitlines())


def test_a_driver_that_cannot_be_loaded_does_not_hide_the_others(desk: Desk, tmp_path: Path) -> None:
    with_broken = _with_plugin(desk, tmp_path, "raise ImportError('libodd is missing; install it')")

    rows = {row["name"]: row for row in documents(with_broken.does("drivers", "--format", "json"))}

    assert rows["vfs"]["usable"] is True
    assert rows["odd"]["usable"] is False
    assert "libodd is missing" in str(rows["odd"]["problems"])


def test_doctor_says_of_each_driver_and_of_the_store_how_it_is(desk: Desk) -> None:
    told = desk.does("doctor")

    assert "driver vfs: usable" in told
    assert f"store {desk.path.parent / 'store'}: fine" in told


def test_doctor_leaves_no_store_behind_where_none_was(desk: Desk) -> None:
    desk.does("doctor")

    assert not (desk.path.parent / "store").exists()


def test_doctor_ends_with_8_if_no_driver_can_be_used(desk: Desk, tmp_path: Path) -> None:
    with_broken = _with_plugin(desk, tmp_path, "raise ImportError('libodd is missing; install it')")

    told = with_broken.run("--driver", "odd", "doctor")

    assert told.returncode == 8
    assert b"libodd is missing" in told.stdout


@pytest.mark.needs_root
def test_doctor_names_work_that_was_cut_short(desk: Desk) -> None:
    desk.does("--driver", "vfs", "snapshot", "prepare", "work")
    with sqlite3.connect(desk.path.parent / "store/vfs/metadata.db") as connection:
        connection.execute("UPDATE snapshots SET step = 'preparing'")
    connection.close()

    told = desk.does("--driver", "vfs", "doctor")

    assert "preparing 'work' was cut short" in told


@pytest.mark.needs_root
def test_doctor_ends_with_8_if_the_database_is_damaged(desk: Desk) -> None:
    desk.does("--driver", "vfs", "snapshot", "prepare", "work")
    database = desk.path.parent / "store/vfs/metadata.db"
    for name in ("metadata.db-wal", "metadata.db-shm"):
        database.with_name(name).unlink(missing_ok=True)
    database.write_bytes(b"this is no database, but it is long enough to be looked at" * 100)

    told = desk.run("--driver", "vfs", "doctor")

    assert told.returncode == 8
    assert b"metadata.db" in told.stdout


@pytest.mark.needs_root
def test_doctor_says_what_is_mounted(desk: Desk) -> None:
    (desk.path / "tree").mkdir()
    desk.does("--driver", "vfs", "snapshot", "prepare", "work")
    desk.does("--driver", "vfs", "snapshot", "mount", "work", "tree")

    told = desk.does("--driver", "vfs", "doctor")

    assert f"mounted at {os.path.realpath(desk.path / 'tree')}" in told


def test_a_driver_that_nobody_installed_is_named_with_those_that_are(desk: Desk) -> None:
    code, line = desk.fails("--driver", "zebra", "df")

    assert code == 7
    assert "'zebra'" in line
    assert "vfs" in line


def _with_plugin(desk: Desk, place: Path, body: str) -> Desk:
    """A driver plugin `odd` whose module runs `body`."""
    info = place / "lamina_odd-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lamina-odd\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[lamina.drivers]\nodd = lamina_odd\n")
    (place / "lamina_odd.py").write_text(f"{body}\n")
    return attrs.evolve(desk, environ=desk.environ | {"PYTHONPATH": str(place)})

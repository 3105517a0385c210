"""Listings are quick, and work also where no driver does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from desk import Desk


def imported_by(desk: Desk, *argv: str) -> set[str]:
    """The modules in memory when a command is done."""
    script = (
        "import sys; from lamina.cli.main import run; code = run(sys.argv[1:]); print(*sys.modules); sys.exit(code)"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, *argv],
        cwd=desk.path,
        env=desk.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(told.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("argv", [["images"], ["ps", "-a"]])
def test_a_listing_asks_no_driver(desk: Desk, argv: list[str]) -> None:
    imported = imported_by(desk, *argv)

    assert imported & {"lamina.snapshotter", "lamina.driver", "lamina.plugins", "importlib.metadata"} == set()


@pytest.mark.parametrize("argv", [["images"], ["ps", "-a"]])
def test_a_listing_of_a_store_that_was_never_used_makes_nothing(desk: Desk, argv: list[str]) -> None:
    desk.does(*argv)

    assert not Path(desk.environ["LAMINA_ROOT"]).exists()


def test_images_are_listed_also_where_no_driver_can_be_used(busy_desk: Desk) -> None:
    assert "demo/busybox" in busy_desk.does("--driver", "nosuch", "images")
    assert "box" in busy_desk.does("--driver", "nosuch", "ps", "-a")

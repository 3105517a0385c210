"""Listings are quick, and work also where no driver does."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from desk import Desk

from lamina.errors import DriverNotFound, Unhealthy

UNUSABLE = "nosuch,nor-this"  # of a list, the first that can be used here is taken


@pytest.mark.parametrize("argv", [["images"], ["ps", "-a"]])
def test_a_listing_asks_no_driver(desk: Desk, argv: list[str]) -> None:
    imported = desk.imports(*argv)

    assert imported & {"lamina.snapshotter", "lamina.driver", "lamina.plugins", "importlib.metadata"} == set()


@pytest.mark.parametrize("argv", [["images"], ["ps", "-a"]])
def test_a_listing_of_a_store_that_was_never_used_makes_nothing(desk: Desk, argv: list[str]) -> None:
    desk.does(*argv)

    assert not Path(desk.environ["LAMINA_ROOT"]).exists()


def test_images_are_listed_also_where_no_driver_can_be_used(busy_desk: Desk) -> None:
    code, why = busy_desk.fails("--driver", UNUSABLE, "df")

    assert code == Unhealthy.exit_code, why
    assert "demo/busybox" in busy_desk.does("--driver", UNUSABLE, "images")
    assert "box" in busy_desk.does("--driver", UNUSABLE, "ps", "-a")


@pytest.mark.parametrize("argv", [["images"], ["ps", "-a"], ["df"], ["snapshot", "ls"], ["prune", "-f"]])
@pytest.mark.parametrize("way", ["option", "environment", "file"])
def test_a_driver_that_nobody_has_is_an_error_wherever_it_is_named(desk: Desk, argv: list[str], way: str) -> None:
    file = desk.path / "named.toml"
    file.write_text('driver = "overlya"\n')
    words = {"option": ["--driver", "overlya"], "file": ["--config", str(file)], "environment": []}[way]
    named = attrs.evolve(desk, environ={**desk.environ, "LAMINA_DRIVER": "overlya" if way == "environment" else ""})

    code, why = named.fails(*words, *argv)

    assert code == DriverNotFound.exit_code
    assert why.startswith("no plugin offers 'overlya'; installed: ")
    assert not Path(desk.environ["LAMINA_ROOT"]).exists()

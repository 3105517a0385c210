"""The house keeps its plan: floors, drivers on their own, and every driver a whole member of it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

HOUSE = Path(__file__).parents[2]
DRIVERS = sorted(path.name for path in (HOUSE / "drivers").iterdir() if path.is_dir())


def project() -> dict[str, Any]:
    return tomllib.loads((HOUSE / "pyproject.toml").read_text())


def test_every_import_contract_is_kept() -> None:
    told = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=HOUSE,
        capture_output=True,
        text=True,
        check=False,
    )

    assert told.returncode == 0, told.stdout + told.stderr


def test_drivers_are_kept_from_every_floor_above_the_contract() -> None:
    floors, _, apart, _ = project()["tool"]["importlinter"]["contracts"]
    above = floors["layers"][: floors["layers"].index("driver")]

    assert (
        sorted(f"lamina.{name.strip()}" for floor in above for name in floor.split("|")) == apart["forbidden_modules"]
    )


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_driver_is_packaged_named_and_checked(driver: str) -> None:
    root, package = f"drivers/{driver}", f"lamina_{driver}"
    tools = project()["tool"]

    assert f"{root}/{package}" in tools["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert root in tools["hatch"]["build"]["dev-mode-dirs"]
    assert root in tools["ruff"]["src"]
    assert root in tools["mypy"]["mypy_path"]
    assert package in tools["importlinter"]["root_packages"]
    assert all(package in names for names in _driver_lists(tools["importlinter"]["contracts"]))
    assert (HOUSE / root / package / "py.typed").exists()


def _driver_lists(contracts: list[dict[str, Any]]) -> list[list[str]]:
    lists = [
        contract.get(key, []) for contract in contracts for key in ("modules", "source_modules", "forbidden_modules")
    ]
    return [names for names in lists if any(name.startswith("lamina_") for name in names)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_driver_is_offered_under_its_own_name(driver: str) -> None:
    offered = {entry.name: entry for entry in entry_points(group="lamina.drivers")}

    assert offered[driver].load().lamina_driver().name == driver


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_driver_has_a_readme_with_what_it_needs_where_it_writes_and_what_it_cannot(driver: str) -> None:
    readme = (HOUSE / "drivers" / driver / "README.md").read_text()

    for heading in ("## Needs", "## Layout on disk", "## Limits"):
        assert heading in readme

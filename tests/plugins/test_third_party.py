"""A driver of somebody else: installed from its own wheel beside lamina's, it passes the suite."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

HOUSE = Path(__file__).parents[2]
EXAMPLE = HOUSE / "docs" / "examples" / "lamina-reflink"
MODULE = EXAMPLE / "lamina_reflink.py"


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with both wheels and what they declare to need, made without a network.

    What they need is linked from the environment of this test, and nothing else is: a dependency that is not declared
    would be missing.
    """
    place = tmp_path_factory.mktemp("third-party")
    venv, wheels, borrowed = place / "venv", place / "wheels", place / "borrowed"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    for project in (HOUSE, EXAMPLE):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels], cwd=project, check=True
        )
    install: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        venv,
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run([*install, "--disable-pip-version-check", *wheels.iterdir()], check=True)
    borrow(borrowed)
    site = sysconfig.get_path("purelib", vars={"base": os.fspath(venv)})
    (Path(site) / "borrowed.pth").write_text(f"{borrowed}\n")
    return venv


def borrow(place: Path) -> None:
    """Link all that `lamina[conformance]` declares to need, and what that needs in turn."""
    place.mkdir()
    for distribution in closure("lamina", "conformance") - {"lamina"}:
        files = importlib.metadata.files(distribution) or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (place / top).exists():  # one distribution may go by two spellings of its name
                (place / top).symlink_to(str(importlib.metadata.distribution(distribution).locate_file(top)))


def closure(name: str, extra: str = "") -> set[str]:
    found = {name}
    for line in importlib.metadata.requires(name) or []:
        need = Requirement(line)
        if need.name not in found and (need.marker is None or need.marker.evaluate({"extra": extra})):
            found |= closure(need.name)
    return found


def told(venv: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LAMINA_"))}
    return subprocess.run(
        [venv / "bin" / argv[0], *argv[1:]], cwd=venv, env=environ, capture_output=True, text=True, check=False
    )


def test_the_wheels_are_what_is_used(venv: Path) -> None:
    found = told(venv, "python", "-c", "import lamina, lamina_reflink; print(lamina.__file__, lamina_reflink.__file__)")

    assert found.returncode == 0, found.stderr
    assert all(Path(file).is_relative_to(venv) for file in found.stdout.split())


def test_the_driver_is_listed_with_its_distribution(venv: Path) -> None:
    found = told(venv, "lamina", "drivers", "--format", "json")

    rows = [json.loads(line) for line in found.stdout.splitlines()]
    (row,) = [row for row in rows if "reflink" in row.values()]
    assert "lamina-reflink 0.1.0" in row.values()


@pytest.mark.timeout(1200)
def test_the_driver_conforms(venv: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = told(venv, "lamina", "conformance", "reflink", "--must-run")

    with capfd.disabled():
        _, head, summary = found.stdout.partition("conformance of the driver")
        print(f"\n{head}{summary}" if head else found.stdout)  # noqa: T201  # the table is the point of it
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_example_fits_on_a_page() -> None:
    assert len(MODULE.read_text().splitlines()) < 60


def excerpts() -> Iterator[str]:
    page = (HOUSE / "docs" / "write-a-driver.md").read_text()
    for part in page.split("<!-- not run: an excerpt of the example -->\n```python\n")[1:]:
        yield part.partition("```")[0]


def test_the_page_shows_the_example_as_it_is() -> None:
    module = MODULE.read_text()
    shown = list(excerpts())

    assert len(shown) >= 5
    assert [each for each in shown if each not in module] == []


def test_whoever_types_the_page_has_the_whole_example() -> None:
    typed = {line for each in excerpts() for line in each.splitlines()}

    assert [line for line in MODULE.read_text().splitlines() if line not in typed] == []

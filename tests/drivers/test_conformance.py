"""Every driver that this machine's kernel can carry passes the suite, by the command that a third party would use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest
from lanes import LANES, Outcome, cut_for, outcome_of, record
from loops import btrfs_on_a_loop
from zfsdaemon import zfs_house

Argv = list[str]


@contextmanager
def _anywhere(argv: Argv, _place: Path) -> Iterator[Argv]:
    yield argv


@contextmanager
def _on_btrfs(argv: Argv, _place: Path) -> Iterator[Argv]:
    # a short name: the suite makes very long ones below it, and SQLite takes 512 bytes. In memory, since on btrfs every
    # change of the database is flushed; what was removed is given back
    with (
        TemporaryDirectory(prefix="lamina-", dir="/dev/shm") as short,
        btrfs_on_a_loop(Path(short), megabytes=4096, options="discard") as root,
    ):
        yield [*argv, "--driver-root", str(root)]


@contextmanager
def _beside_zfs(argv: Argv, place: Path) -> Iterator[Argv]:
    with zfs_house(place) as house:
        yield house.inside([*argv, "--driver-option", f"dataset={house.pool}/layers"])


# what a driver needs to be there, and the words that run the suite in it
SETTINGS: dict[str, Callable[[Argv, Path], AbstractContextManager[Argv]]] = {"btrfs": _on_btrfs, "zfs": _beside_zfs}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("driver", LANES["host"])
def test_the_driver_conforms(
    driver: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    record(request.node, Outcome(driver, "host"))
    report = Path(os.environ.get("LAMINA_REPORTS", tmp_path)) / f"conformance-{driver}.xml"
    argv = [sys.executable, "-m", "lamina.cli.main", "conformance", driver, "--must-run"]
    cut = cut_for("host", driver)
    argv += ["--junitxml", str(report), *cut.words]

    with SETTINGS.get(driver, _anywhere)(argv, tmp_path) as words:
        told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    with capfd.disabled():
        _, found, summary = told.stdout.partition(f"conformance of the driver {driver!r}")
        print(f"\n{found}{summary}" if found else told.stdout)  # noqa: T201  # the table is the point of it
    if report.exists():
        outcome = outcome_of(driver, "host", report)
        record(request.node, attrs.evolve(outcome, why="; ".join(filter(None, (cut.told, outcome.why)))))
    assert told.returncode == 0, told.stdout + told.stderr
    assert report.exists()

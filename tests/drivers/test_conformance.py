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
from lanes import LANES, Outcome, outcome_of, record
from loops import btrfs_on_a_loop
from zfsdaemon import zfs_house

Argv = list[str]
# of the suite, what zfs ends within some minutes; LAMINA_LONG=1 asks for all
ZFS_CHAPTERS = ("driver", "life", "rules", "content", "abilities", "limits")


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
    # every step is a run of zfs, tens of milliseconds, and every call a way through FUSE
    brief = ["--crash-stride", "60", "--examples", "3"]
    if not os.environ.get("LAMINA_LONG"):
        brief += ["-k", "not huge_directory", *(f"lamina.conformance.test_{name}" for name in ZFS_CHAPTERS)]
    with zfs_house(place) as house:
        yield house.inside([*argv, "--driver-option", f"dataset={house.pool}/layers", *brief])


# what a driver needs to be there, and the words that run the suite in it
SETTINGS: dict[str, Callable[[Argv, Path], AbstractContextManager[Argv]]] = {"btrfs": _on_btrfs, "zfs": _beside_zfs}

# What a run leaves out of the suite of a driver, in pytest's words and in ours; LAMINA_LONG=1 asks for all of it.
CUTS: dict[str, tuple[Argv, str]] = {
    "fuse": (["--crash-stride", "7", "--examples", "8"], "dies at every 7th step, 8 random histories of 15"),
}


@pytest.mark.timeout(4 * 3600 if os.environ.get("LAMINA_LONG") else 1200)
@pytest.mark.parametrize("driver", LANES["host"])
def test_the_driver_conforms(
    driver: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    record(request.node, Outcome(driver, "host"))
    report = Path(os.environ.get("LAMINA_REPORTS", tmp_path)) / f"conformance-{driver}.xml"
    argv = [sys.executable, "-m", "lamina.cli.main", "conformance", driver, "--must-run"]
    cut, told_of_it = ([], "") if os.environ.get("LAMINA_LONG") else CUTS.get(driver, ([], ""))
    argv += ["--junitxml", str(report), *cut]

    with SETTINGS.get(driver, _anywhere)(argv, tmp_path) as words:
        told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    with capfd.disabled():
        _, found, summary = told.stdout.partition(f"conformance of the driver {driver!r}")
        print(f"\n{found}{summary}" if found else told.stdout)  # noqa: T201  # the table is the point of it
    if report.exists():
        outcome = outcome_of(driver, "host", report)
        record(request.node, attrs.evolve(outcome, why="; ".join(filter(None, (told_of_it, outcome.why)))))
    assert told.returncode == 0, told.stdout + told.stderr
    assert report.exists()

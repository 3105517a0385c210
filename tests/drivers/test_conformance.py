"""Every driver of this repository passes the suite, by the command that a third party would use."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from loops import btrfs_on_a_loop

# drivers that need a disk of their own kind to have their stores on
DISKS = {"btrfs": btrfs_on_a_loop}
DRIVERS = sorted(path.parent.name for path in Path(__file__).parents[2].glob("drivers/*/README.md"))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("driver", DRIVERS)
def test_the_driver_conforms(driver: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = Path(os.environ.get("LAMINA_REPORTS", tmp_path)) / f"conformance-{driver}.xml"
    argv = [sys.executable, "-m", "lamina.cli.main", "conformance", driver, "--must-run", "--junitxml", str(report)]

    with _stores(driver, tmp_path) as root:
        argv += ["--driver-root", str(root)]
        told = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)

    with capfd.disabled():
        _, found, summary = told.stdout.partition(f"conformance of the driver {driver!r}")
        print(f"\n{found}{summary}" if found else told.stdout)  # noqa: T201  # the table is the point of it
    assert told.returncode == 0, told.stdout + told.stderr
    assert report.exists()


def _stores(driver: str, place: Path) -> AbstractContextManager[Path]:
    return DISKS[driver](place, megabytes=4096) if driver in DISKS else nullcontext(place)

"""Every driver that this machine's kernel can carry passes the suite, by the command that a third party would use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lanes import LANES, Outcome, outcome_of, record


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("driver", LANES["host"])
def test_the_driver_conforms(
    driver: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    record(request.node, Outcome(driver, "host"))
    report = Path(os.environ.get("LAMINA_REPORTS", tmp_path)) / f"conformance-{driver}.xml"
    argv = [sys.executable, "-m", "lamina.cli.main", "conformance", driver, "--must-run", "--junitxml", str(report)]

    told = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)

    with capfd.disabled():
        _, found, summary = told.stdout.partition(f"conformance of the driver {driver!r}")
        print(f"\n{found}{summary}" if found else told.stdout)  # noqa: T201  # the table is the point of it
    if report.exists():
        record(request.node, outcome_of(driver, "host", report))
    assert told.returncode == 0, told.stdout + told.stderr
    assert report.exists()

"""The table at the end: every driver has a lane, and what became of each is told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from lanes import LANES, Ledger, outcome_of
from uml import TIME_RAN_OUT, Guest

HOUSE = Path(__file__).parents[2]
REPORT = """<testsuites><testsuite>
<testcase name="kept"/>
<testcase name="broken"><failure message="m">the whole story</failure></testcase>
<testcase name="not even begun"><error message="m">no fixture</error></testcase>
<testcase name="excused"><skipped message="Skipped: lacks REBASE"/></testcase>
</testsuite></testsuites>"""


def test_every_driver_of_this_repository_has_a_lane() -> None:
    drivers = {path.name for path in (HOUSE / "drivers").iterdir() if path.is_dir()}

    assert drivers == {driver for lane in LANES.values() for driver in lane}


def test_a_report_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)

    outcome = outcome_of("vfs", "host", tmp_path / "report.xml", tmp_path / "report.xml")

    assert (outcome.passed, outcome.failed, outcome.skipped) == (2, 4, 2)
    assert outcome.failures[0] == "broken\nthe whole story"
    assert outcome.why.startswith("broken; not even begun")


def _report(outcome: Literal["passed", "failed"], why: str = "") -> pytest.TestReport:
    told = (
        f'{{"driver": "vfs", "lane": "host", "passed": 3, "failed": 0, "skipped": 0, "why": "{why}", "failures": []}}'
    )
    return pytest.TestReport(
        "node",
        ("file", 1, "test"),
        {},
        outcome,
        "E  it broke\n",
        "call",
        user_properties=[("lane", told)],
    )


def test_a_lane_whose_test_fails_is_never_told_as_good() -> None:
    ledger = Ledger()

    ledger.enter(_report("passed"))
    ledger.enter(_report("failed"))

    assert [(one.passed, one.failed) for one in ledger.outcomes] == [(3, 0), (3, 1)]
    assert ledger.outcomes[1].why == "E  it broke"


def test_a_kernel_that_hangs_or_dies_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    hanging, dying = tmp_path / "hanging", tmp_path / "dying"
    for kernel, words in ((hanging, "exec sleep 1000"), (dying, "echo Kernel panic, because")):
        kernel.write_text(f"#!/bin/sh\n{words}\n")
        kernel.chmod(0o755)
    guests = [Guest(str(hanging), "true", seconds=1), Guest(str(dying), "true", seconds=60)]
    for guest in guests:
        guest.start()

    ends = [guest.wait() for guest in guests]
    for guest in guests:
        guest.close()

    assert ends[0].status == TIME_RAN_OUT
    assert ends[1].status == 125
    assert not any(guest.out.exists() for guest in guests)

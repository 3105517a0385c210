"""Drivers on kernels other than this machine's, in User-Mode Linux: the whole suite."""

from __future__ import annotations

import shutil

import attrs
import pytest
from guests import KERNELS, SECONDS, reports_of
from lanes import LANES, Outcome, cut_for, outcome_of, record
from uml import TIME_RAN_OUT, Guest

CASES = [
    pytest.param(lane, driver, marks=pytest.mark.guest(lane), id=f"{driver}-{lane}")
    for lane in KERNELS
    for driver in LANES[lane]
]


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize(("lane", "driver"), CASES)
def test_the_driver_conforms_on_that_kernel(
    lane: str, driver: str, guests: dict[str, Guest], request: pytest.FixtureRequest
) -> None:
    kernel = KERNELS[lane]
    record(request.node, Outcome(driver, lane, skipped=1, why=f"{kernel.variable} is not set"))
    if kernel.program is None:
        pytest.skip(f"{kernel.variable} names no kernel")
    record(request.node, Outcome(driver, lane, failed=1, why=f"there is no {kernel.program}"))
    assert shutil.which(kernel.program), f"{kernel.program} is not there; install user-mode-linux"

    ended = guests[lane].wait()

    reports = [guests[lane].out / name for name in reports_of(driver)]
    late = f"not done after {SECONDS} s" if ended.status == TIME_RAN_OUT else f"ended with {ended.status}"
    record(request.node, Outcome(driver, lane, failed=1, why=f"no report; the guest {late}"))
    for report in reports:
        assert report.exists(), f"the guest wrote no {report.name} ({late}):\n{ended.output[-20_000:]}"
    outcome = outcome_of(driver, lane, *reports)
    record(request.node, attrs.evolve(outcome, why="; ".join(filter(None, (cut_for(lane, driver).told, outcome.why)))))
    assert not outcome.failures, "\n\n".join(outcome.failures)
    assert outcome.passed

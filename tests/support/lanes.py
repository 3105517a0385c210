"""Where the drivers are tested: a lane is a kernel and a user; each tells what became of each of its drivers.

`make test` ends with one table of them. A lane that cannot run where it should fails; one that is told to be skipped
says why.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import attrs
import pytest

LANES: Final[Mapping[str, tuple[str, ...]]] = {
    "host": ("btrfs", "fuse", "overlay", "vfs", "zfs"),  # root on this machine's own kernel
    "uml": ("devmapper", "overlay", "btrfs"),  # root on the kernel of Debian's User-Mode Linux
    "aufs": ("aufs",),  # root on a kernel that has aufs: LAMINA_AUFS_KERNEL
    "user": ("vfs",),  # an ordinary user
    "userns": ("fuse", "overlay", "vfs"),  # the same, as root of a user namespace of its own
}
_PROPERTY: Final = "lane"


@attrs.frozen
class Cut:
    """What is done less of in a driver's suite: words for pytest, and how the table tells it."""

    words: tuple[str, ...] = ()
    told: str = ""

    def __add__(self, other: Cut) -> Cut:
        return Cut((*self.words, *other.words), "; ".join(filter(None, (self.told, other.told))))


# On a slow kernel, and beside zfs, whose every step is a run of a program, fewer random histories are played, and the
# crash tests die at fewer of the steps: the host does more of both for the same tests.
_ON_UML: Final = Cut(("--examples", "2", "--crash-stride", "61"), "2 random histories, dies at every 61st step")
_TRIMMED: Final[Mapping[tuple[str, str], Cut]] = {
    **{("uml", driver): _ON_UML for driver in LANES["uml"]},
    ("aufs", "aufs"): _ON_UML,
    ("host", "zfs"): Cut(("--examples", "3", "--crash-stride", "60"), "3 random histories, dies at every 60th step"),
}
_ZFS_CHAPTERS: Final = ("driver", "life", "rules", "content", "abilities", "limits")
# What only LAMINA_LONG=1 asks for, since a run of everything must stay below half an hour.
_SPARED: Final[Mapping[tuple[str, str], Cut]] = {
    ("host", "fuse"): Cut(("--examples", "8", "--crash-stride", "7"), "8 random histories, dies at every 7th step"),
    ("host", "btrfs"): Cut(("--crash-stride", "3"), "dies at every third step"),
    ("host", "vfs"): Cut(("--crash-stride", "3"), "dies at every third step"),
    ("host", "zfs"): Cut(
        ("-k", "not huge_directory", *(f"lamina.conformance.test_{chapter}" for chapter in _ZFS_CHAPTERS)),
        f"of the suite {', '.join(_ZFS_CHAPTERS)}",
    ),
}


def cut_for(lane: str, driver: str) -> Cut:
    """What this run leaves out of a driver's suite in a lane."""
    spared = Cut() if os.environ.get("LAMINA_LONG") else _SPARED.get((lane, driver), Cut())
    return _TRIMMED.get((lane, driver), Cut()) + spared


@attrs.frozen
class Outcome:
    """What became of one driver in one lane."""

    driver: str
    lane: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    why: str = ""
    failures: tuple[str, ...] = ()  # each whole: the test's name and all it said


@attrs.define
class Ledger:
    """All outcomes of this session."""

    outcomes: list[Outcome] = attrs.field(factory=list)

    def enter(self, report: pytest.TestReport) -> None:
        """Note what a test told about its lane; one that never came so far has failed or was skipped as a whole."""
        for name, value in report.user_properties:
            if name == _PROPERTY and (report.when == "call" or not report.passed):
                outcome = Outcome(**json.loads(str(value)))
                if report.failed and not outcome.failed:
                    outcome = attrs.evolve(outcome, failed=1, why=outcome.why or _first_line(report))
                self.outcomes.append(outcome)

    def tell(self, terminal: pytest.TerminalReporter) -> None:
        """Write the table."""
        if not self.outcomes:
            return
        order = {lane: number for number, lane in enumerate(LANES)}
        rows = sorted(self.outcomes, key=lambda one: (order.get(one.lane, len(order)), one.driver))
        terminal.section("drivers and lanes")
        terminal.write_line(f"{'driver':10} {'lane':7} {'passed':>6} {'failed':>6} {'skipped':>7}  why")
        for row in rows:
            line = f"{row.driver:10} {row.lane:7} {row.passed:6} {row.failed:6} {row.skipped:7}  {row.why}"
            terminal.write_line(line.rstrip(), red=bool(row.failed), green=bool(row.passed and not row.failed))


def _first_line(report: pytest.TestReport) -> str:
    return next((line for line in report.longreprtext.splitlines() if line.strip()), "")[:120]


def record(item: pytest.Item, outcome: Outcome) -> None:
    """The table will have this outcome, in place of what was recorded for the test before."""
    others = [each for each in item.user_properties if each[0] != _PROPERTY]
    item.user_properties[:] = [*others, (_PROPERTY, json.dumps(attrs.asdict(attrs.evolve(outcome, failures=()))))]


def outcome_of(driver: str, lane: str, *reports: Path) -> Outcome:
    """What the reports of a driver's tests (JUnit's XML) say."""
    passed, skipped, failures = 0, Counter[str](), []
    for case in [case for report in reports for case in ET.parse(report).iter("testcase")]:  # noqa: S314  # our own
        bad = [*case.iter("failure"), *case.iter("error")]
        excuses = list(case.iter("skipped"))
        if bad:
            failures.append(f"{case.get('name')}\n" + "\n".join(each.text or str(each.get("message")) for each in bad))
        elif excuses:
            skipped[excuses[0].get("message", "").removeprefix("Skipped: ")] += 1
        else:
            passed += 1
    why = _why(failures, skipped)
    return Outcome(driver, lane, passed, len(failures), skipped.total(), why, tuple(failures))


def _why(failures: Iterable[str], skipped: Counter[str]) -> str:
    broken = [failure.partition("\n")[0] for failure in failures][:3]
    excused = [f"{count} {reason[:60]}" for reason, count in skipped.most_common(3)]
    return "; ".join(broken or excused)

"""The table at the end: which promises the driver keeps, which are excused and why."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

import attrs
import pytest

from lamina.driver import Ability, Driver, Health


@attrs.define
class _Score:
    """What happened to the tests of one subject."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: Counter[str] = attrs.field(factory=Counter)


@attrs.define
class Record:
    """All outcomes of one run."""

    driver: type[Driver]
    health: Health
    scores: dict[str, _Score] = attrs.field(factory=lambda: defaultdict(_Score))
    failures: list[str] = attrs.field(factory=list)
    lacking: dict[Ability, str] = attrs.field(factory=dict)
    deaths: int = 0  # how many times a child was killed in a crash test


_key = pytest.StashKey[Record]()
_records: list[Record] = []  # a report has no way back to its config


def begin(config: pytest.Config, driver: type[Driver], health: Health) -> None:
    """Start a fresh record for this run."""
    config.stash[_key] = Record(driver, health, lacking=dict.fromkeys(driver.cannot, "not checked in this run"))
    _records[:] = [config.stash[_key]]


def note(report: pytest.TestReport) -> None:
    """Count the outcome of one test, and what it found out about a lacking ability."""
    if not _records:
        return
    record = _records[-1]
    score = record.scores[report.nodeid.partition("::")[0]]
    if report.failed:
        score.failed += 1
        record.failures.append(report.nodeid.rpartition("/")[2])
    elif report.skipped:
        score.skipped += 1
        score.reasons[_reason(report)] += 1
    elif report.when == "call":
        score.passed += 1
    for name, value in report.user_properties if report.when == "call" else ():
        if name == "crash points":
            record.deaths += int(str(value))
        elif name.startswith("lacks "):
            record.lacking[Ability[name.removeprefix("lacks ")]] = str(value)


def _reason(report: pytest.TestReport) -> str:
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return told.removeprefix("Skipped: ")


def tell(terminal: pytest.TerminalReporter) -> None:
    """Write the table, what is lacking, and one sentence that sums it up."""
    record = terminal.config.stash.get(_key, None)
    if record is None or not record.scores:
        return
    terminal.section(f"conformance of the driver {record.driver.name!r}")
    _tell_scores(terminal, record)
    _tell_lacking(terminal, record)
    for line in record.health.notes:
        terminal.write_line(f"noted about this host: {line}")
    if record.deaths:
        stride = terminal.config.getoption("crash_stride")
        steps = "every step" if stride == 1 else f"one step in {stride}"
        terminal.write_line(f"killed {record.deaths} times, at {steps} of every verb, and opened again")
    _tell_verdict(terminal, record)


def _tell_scores(terminal: pytest.TerminalReporter, record: Record) -> None:
    titles = {path: _title(path) for path in record.scores}
    width = max(len(title) for title in titles.values())
    terminal.write_line(f"{'subject':{width}}  passed  failed  skipped")
    for path, score in record.scores.items():
        failed = {"red": True} if score.failed else {}
        line = f"{titles[path]:{width}}  {score.passed:6}  {score.failed:6}  {score.skipped:7}"
        terminal.write_line(line, **failed)
        for reason, count in sorted(score.reasons.items()):
            terminal.write_line(f"{'':{width}}  {count} skipped: {reason}")


def _title(path: str) -> str:
    """The first words of the test module's docstring, up to the colon."""
    module = sys.modules.get(f"lamina.conformance.{Path(path).stem}")
    text = (module.__doc__ if module else None) or Path(path).stem
    return text.partition("\n")[0].partition(":")[0].rstrip(".")


def _tell_lacking(terminal: pytest.TerminalReporter, record: Record) -> None:
    if not record.lacking:
        terminal.write_line("the driver names nothing as lacking")
        return
    terminal.write_line("")
    terminal.write_line("what the driver names as lacking (its `cannot`):")
    for ability in sorted(record.lacking, key=lambda ability: ability.name):
        terminal.write_line(f"  {ability.name}: {ability.value}; {record.lacking[ability]}")


def _tell_verdict(terminal: pytest.TerminalReporter, record: Record) -> None:
    passed = sum(score.passed for score in record.scores.values())
    skipped = sum(score.skipped for score in record.scores.values())
    name = record.driver.name
    terminal.write_line("")
    if not record.health.ok:
        terminal.write_line(f"{name} was not tested: {'; '.join(record.health.problems)}", yellow=True)
    elif record.failures:
        terminal.write_line(f"{name} does not conform; {len(record.failures)} promises broken, first of all:", red=True)
        for failure in record.failures[:10]:
            terminal.write_line(f"  {failure}", red=True)
    else:
        excused = f", {skipped} excused for the reasons above" if skipped else ""
        terminal.write_line(f"{name} conforms: {passed} promises kept{excused}", green=True)

"""The drivers beside each other: every one that this machine has does the same works; a table, and a chart."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from lamina.config import load_config, make_driver
from lamina.errors import LaminaError
from lamina_bench import report
from lamina_bench.chart import chart
from lamina_bench.cleaning import room
from lamina_bench.driverworks import COPY_UP, CREATE, DIFF, FILES, MOUNT, REMOVE, SPACE, WORKS, Plan
from lamina_bench.grounds import GROUNDS, Ground, missing_for
from lamina_bench.main import tell
from lamina_bench.tables import seconds, table

Medians = Mapping[str, Mapping[str, float]]  # by driver and work


def main() -> None:
    """The program."""
    if os.geteuid() != 0:
        sys.exit("the drivers mount, so they need root")
    parser = argparse.ArgumentParser("benchmarks/drivers.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=Plan().rounds, help="how often everything is measured")
    parser.add_argument("--only", default=",".join(GROUNDS), help=f"some of {','.join(GROUNDS)}")
    parser.add_argument("--chart", type=Path, help="write the chart to this file, as SVG")
    parser.add_argument("--work", type=Path, help="where the stores lie (default: TMPDIR)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lamina-bench.", dir=asked.work) as place:
        tell(report.machine(Path(place)))
        found = dict(measured(Path(place), asked.only.split(","), Plan(rounds=max(1, asked.rounds))))
    if not found:
        sys.exit("no driver could be measured")
    tell("\n" + as_table(found))
    if asked.chart is not None:
        asked.chart.write_text(as_chart(found, Plan()), encoding="utf-8")


def measured(place: Path, drivers: list[str], plan: Plan) -> Iterator[tuple[str, Mapping[str, float]]]:
    """The medians of each driver that can be used; why another one cannot is told."""
    for driver in drivers:
        if missing := missing_for(driver):
            tell(f"NOTE: without {driver}: {', '.join(missing)} not installed")
            continue
        with room(place / driver) as here, GROUNDS[driver](here) as ground:
            if why := _refusal(driver, ground):
                tell(f"NOTE: without {driver}: {why}")
                continue
            costs = measure(driver, ground, plan)
            yield driver, {work: statistics.median(values) for work, values in costs.items()}


def measure(driver: str, ground: Ground, plan: Plan) -> Mapping[str, list[float]]:
    """What a driver needs on its ground, round by round, in a process of its own."""
    plan = attrs.evolve(plan, options=dict(ground.options))
    told = subprocess.run(
        [*ground.words, sys.executable, "-m", "lamina_bench.driverworks", str(ground.root), driver],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        input=json.dumps(attrs.asdict(plan)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    costs: Mapping[str, list[float]] = json.loads(told.stdout)
    return costs


def _refusal(driver: str, ground: Ground) -> str:
    """Why the driver cannot be used; where it has to be asked elsewhere it is simply tried."""
    if ground.words:
        return ""
    config = load_config(None, {"LAMINA_CONFIG": "/dev/null"}, driver=driver, root=ground.root / "store")
    try:
        return "; ".join(make_driver(config, driver).health().problems)
    except LaminaError as error:
        return str(error)


_HEADS: Final[Mapping[str, str]] = {
    CREATE: "create a layer",
    MOUNT: "mount it",
    COPY_UP: "write one byte of a large file",
    FILES: "write many small files",
    DIFF: "list the 21 changed files",
    REMOVE: "remove the layer",
    SPACE: "space of the 21 changed files",
}


def _word(work: str, value: float) -> str:
    if work in (SPACE, _HEADS[SPACE]):
        return f"{value / 1024:.0f} KiB" if value < 1 << 20 else f"{value / (1 << 20):.1f} MiB"
    return seconds(value)


def as_table(found: Medians) -> str:
    """In Markdown."""
    rows = [(driver, *(_word(work, costs[work]) for work in WORKS)) for driver, costs in found.items()]
    return table(("driver", *WORKS), rows)


def as_chart(found: Medians, plan: Plan) -> str:
    """One panel for each work."""
    panels = {_HEADS[work]: {driver: costs[work] for driver, costs in found.items()} for work in WORKS}
    base = f"a base of {plan.below} small files and one of {plan.large >> 20} MiB"
    return chart(f"lamina's drivers on {base}; shorter is better", panels, _word)

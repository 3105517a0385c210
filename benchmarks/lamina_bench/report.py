"""The report: what ran where, how durable each is, and who needs how much of what the other needs."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from lamina_bench.engines.engine import Engine
from lamina_bench.engines.lamina import Lamina
from lamina_bench.image import Image
from lamina_bench.inprocess import Life
from lamina_bench.measuring import run
from lamina_bench.results import Comparison, Results
from lamina_bench.tables import comparisons, ratio, table
from lamina_bench.works import COMMIT, COMMIT_TINY


def machine(place: Path) -> str:
    """Where the numbers come from, without a name or a date."""
    kind = run(["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(place)]).strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    cores = len(os.sched_getaffinity(0))
    kernel = platform.release().partition("-")[0]
    return f"{cores} cores, {memory} GiB, {kind}, Linux {kernel}, Python {platform.python_version()}"


def image(large: Image) -> str:
    """What the large image is."""
    facts = large.facts
    return (
        f"the image: {facts['layers']} layers, {facts['entries']} entries of which {facts['removals']} removals, "
        f"{facts['packed'] >> 20} MiB packed, {facts['unpacked'] >> 20} MiB unpacked"
    )


def lives(measured: Iterable[Life]) -> str:
    """Microseconds, the only absolute numbers (no other tool does this in process), and the kernel's share of them."""
    head = ("driver", "layers below", "step", "median µs", "p90 µs", "p99 µs", "÷ system calls alone")
    rows = [(life.driver, str(life.depth), *cells) for life in measured for cells in _steps(life)]
    return f"\nA layer's life in process\n\n{table(head, rows)}\n"


def _steps(life: Life) -> Iterator[tuple[str, ...]]:
    for step, percents in life.lamina.items():
        bare = ratio(percents["p50"] / life.kernel[step]["p50"]) if life.kernel else ""
        yield (step, *(f"{value:.0f}" for value in percents.values()), bare)


def everything(results: Results, engines: Collection[Engine]) -> str:
    """All comparisons of one kind of store, durability, and whether a commit depends on the image's size."""
    durable = table(("engine", "on the disk when `load` returns"), ((one.name, one.durability) for one in engines))
    found = list(_compared(results, engines))
    parts = ["What is durable", durable, "Ratios: below 1 lamina needs less", comparisons(found)]
    if sizes := list(_sizes(results)):
        parts += ["Commit of 10 changed files: the large image ÷ the tiny one", table(("engine", "time", "CPU"), sizes)]
    return "\n\n".join(["", *parts])


def _compared(results: Results, engines: Collection[Engine]) -> Iterator[Comparison]:
    for work in results.works():
        for ours in engines:
            if not isinstance(ours, Lamina):
                continue
            others = [one for one in engines if one.stores == ours.stores and not isinstance(one, Lamina)]
            found = (results.compare(work, ours.name, other.name) for other in others)
            yield from (one for one in found if one is not None)


def _sizes(results: Results) -> Iterator[tuple[str, str, str]]:
    for engine in results.engines(COMMIT):
        wall, cpu = results.ratios(engine, COMMIT, COMMIT_TINY)
        yield engine, f"{wall:.2f}", f"{cpu:.2f}"

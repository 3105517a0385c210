"""In-process microseconds of a layer's life: `python -m lamina_bench.micro ROOT DRIVER DEPTH TIMES`, JSON on stdout."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

from lamina.config import load_config
from lamina.snapshotter import Snapshotter, open_snapshotter

STEPS = ("prepare", "mount", "unmount", "remove")
TOGETHER = "all four"
PERCENTS = (50, 90, 99)

Microseconds = dict[str, list[float]]


def main(root: Path, driver: str, depth: int, times: int) -> None:
    """A chain of committed layers, then the life of a child on top of it, many times."""
    config = load_config(None, {"LAMINA_CONFIG": "/dev/null"}, driver=driver, root=root / "store")
    target = root / "target"
    target.mkdir()
    with open_snapshotter(config) as snapshots:
        parent = grow(snapshots, depth, target)
        live(snapshots, parent, target, 5)  # what is done once a process is not a layer's price
        print(json.dumps(summary(live(snapshots, parent, target, times))))


def grow(snapshots: Snapshotter, depth: int, target: Path) -> str:
    """A chain of layers with a file each; the name of the topmost."""
    parent = None
    for number in range(depth):
        snapshots.prepare("growing", parent)
        snapshots.mount("growing", target)
        (target / f"file-{number}").write_text("text")
        snapshots.unmount(target)
        parent = f"layer-{number}"
        snapshots.commit(parent, "growing")
    return str(parent)


def live(snapshots: Snapshotter, parent: str, target: Path, times: int) -> Microseconds:
    """Prepare, mount, unmount, remove; what each took."""
    took: Microseconds = defaultdict(list)
    for _ in range(times):
        marks = [time.perf_counter_ns()]
        snapshots.prepare("box", parent)
        marks.append(time.perf_counter_ns())
        snapshots.mount("box", target)
        marks.append(time.perf_counter_ns())
        snapshots.unmount(target)
        marks.append(time.perf_counter_ns())
        snapshots.remove("box")
        marks.append(time.perf_counter_ns())
        for step, start, end in zip(STEPS, marks, marks[1:], strict=False):
            took[step].append((end - start) / 1000)
        took[TOGETHER].append((marks[-1] - marks[0]) / 1000)
    return took


def summary(took: Microseconds) -> dict[str, dict[str, float]]:
    """Percentiles of each."""
    return {
        step: {f"p{percent}": _percentile(values, percent) for percent in PERCENTS} for step, values in took.items()
    }


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

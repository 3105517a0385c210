"""In-process microseconds of a layer's life: `python -m lamina_bench.micro ROOT DRIVER DEPTH TIMES`, JSON on stdout."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from lamina.config import load_config
from lamina.mount import Mount, mount_one, unmount
from lamina.overlaymount import overlay_options
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
        measured = {"lamina": summary(live(snapshots, parent, target, times))}
    if driver == "overlay":
        measured["kernel"] = summary(live_barely(root / "bare", depth, target, times))
    print(json.dumps(measured))


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
    return clocked(
        times,
        lambda: snapshots.prepare("box", parent),
        lambda: snapshots.mount("box", target),
        lambda: snapshots.unmount(target),
        lambda: snapshots.remove("box"),
    )


def live_barely(place: Path, depth: int, target: Path, times: int) -> Microseconds:
    """The same by nothing but the system calls that nobody can do without: no name, no record, no lock, no check."""
    lowers = [place / f"layer-{number}" for number in range(depth)]
    for lower in lowers:
        lower.mkdir(parents=True)
    upper, work = place / "upper", place / "work"
    how = Mount("overlay", "overlay", overlay_options(lowers, upper, work))
    return clocked(
        times,
        lambda: _each(Path.mkdir, upper, work),
        lambda: mount_one(how, target),
        lambda: unmount(target),
        lambda: _each(Path.rmdir, work / "work", work, upper),
    )


def _each(action: Callable[[Path], object], *paths: Path) -> None:
    for path in paths:
        action(path)


def clocked(times: int, *steps: Callable[[], object]) -> Microseconds:
    """What each of the four steps took, again and again."""
    took: Microseconds = defaultdict(list)
    for _ in range(times):
        marks = [time.perf_counter_ns()]
        for step in steps:
            step()
            marks.append(time.perf_counter_ns())
        for name, start, end in zip(STEPS, marks, marks[1:], strict=False):
            took[name].append((end - start) / 1000)
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

"""A driver's own diff beside the walk over both trees: `benchmarks/native_diff.py DRIVER ROOT [ROUNDS]`.

20,000 files, 20 changes, the same two layers in turn; prints medians and their ratio.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lamina import diff
from lamina.changes import Change
from lamina.config import load_config
from lamina.mount import temporarily_mounted
from lamina.snapshotter import Snapshotter, open_snapshotter

FILES, CHANGES, ROUNDS = 20_000, 20, 9


def main(driver: str, root: str, rounds: int = ROUNDS) -> None:
    """Measure, and tell."""
    with tempfile.TemporaryDirectory(dir=root) as place:
        config = load_config(None, {}, driver=driver, root=Path(place) / "store")
        with open_snapshotter(config) as snapshots:
            _grow(snapshots, Path(place), "base", None, _fill)
            _grow(snapshots, Path(place), "child", "base", _change)
            native = _median(lambda: list(snapshots.changes("child")), rounds)
            walked = _median(lambda: _walk(snapshots), rounds)
            assert _told(list(snapshots.changes("child"))) == _told(_walk(snapshots))
            snapshots.remove("child")
            snapshots.remove("base")
    print(f"{driver}: {FILES} files, {CHANGES} changes, median of {rounds}")
    print(f"  native {native * 1e3:8.1f} ms\n  walk   {walked * 1e3:8.1f} ms\n  ratio  {walked / native:8.1f}")


def _grow(snapshots: Snapshotter, place: Path, name: str, parent: str | None, edit: Callable[[Path], None]) -> None:
    with temporarily_mounted(snapshots.prepare(f"{name} growing", parent), below=place) as tree:
        edit(tree)
    snapshots.commit(name, f"{name} growing")


def _fill(tree: Path) -> None:
    for directory in range(FILES // 100):
        (tree / f"d{directory}").mkdir()
        for file in range(100):
            (tree / f"d{directory}/f{file}").write_text(f"hello {file}")


def _change(tree: Path) -> None:
    for number in range(CHANGES // 4):
        (tree / f"d{number}/f1").write_text("changed")
        (tree / f"d{number}/f2").unlink()
        (tree / f"d{number}/new").write_text("new")
        (tree / f"d{number}/f3").chmod(0o600)


def _walk(snapshots: Snapshotter) -> list[Change]:
    with snapshots.look("base") as old, snapshots.look("child") as new:
        one, other = os.open(old, os.O_RDONLY), os.open(new, os.O_RDONLY)
        try:
            return list(diff.compare(one, other))
        finally:
            os.close(one)
            os.close(other)


def _told(changes: list[Change]) -> list[tuple[str, bytes]]:
    return [(change.kind.value, change.path) for change in changes]


def _median(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else ROUNDS)

"""One driver at work: `python -m lamina_bench.driverworks ROOT DRIVER`, its plan on stdin, seconds on stdout, in JSON.

A process of its own, since a driver may have to be used in a mount namespace of its own. What a process does only once
(imports, opening the store) is not measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from lamina.config import load_config
from lamina.snapshotter import Snapshotter, open_snapshotter

CREATE, MOUNT, COPY_UP, FILES = "create", "mount", "copy-up", "small files"
DIFF, REMOVE, SPACE = "diff", "remove", "space"
WORKS: Final = (CREATE, MOUNT, COPY_UP, FILES, DIFF, REMOVE, SPACE)
_DIRECTORY: Final = 100  # files in one directory
_SMALL: Final = 2048  # bytes of a small file
_EDITED: Final = tuple(f"files/0/{number}" for number in range(20))


@attrs.frozen
class Plan:
    """How much is done."""

    rounds: int = 5
    large: int = 64 << 20  # bytes of the large file
    below: int = 5000  # small files in the base
    fresh: int = 2000  # small files that are written
    options: dict[str, Any] = attrs.field(factory=dict)


Costs = dict[str, list[float]]  # seconds; for SPACE bytes, as the driver accounts for them


class Works:
    """A store with one base, and what is done on top of it."""

    def __init__(self, snapshots: Snapshotter, place: Path, plan: Plan) -> None:
        self._snapshots = snapshots
        self._place = place
        self._plan = plan
        self.costs: Costs = {work: [] for work in WORKS}

    def run(self) -> Costs:
        """The costs of all rounds. The first round is for warming up, and is not among them."""
        self._make_base()
        for number in range(self._plan.rounds + 1):
            self._change_a_little()
            self._write_many_files()
            if not number:
                for measured in self.costs.values():
                    measured.clear()
        self._snapshots.remove("base")
        return self.costs

    def _make_base(self) -> None:
        self._snapshots.prepare("growing")
        self._snapshots.mount("growing", self._place)
        with (self._place / "large").open("wb") as file:
            for _ in range(self._plan.large >> 20):
                file.write(os.urandom(1 << 20))
        _write_files(self._place / "files", self._plan.below)
        self._snapshots.unmount(self._place)
        self._snapshots.commit("base", "growing")

    def _change_a_little(self) -> None:
        """A byte of the large file, and some small files."""
        with self._timed(CREATE):
            self._snapshots.prepare("box", "base")
        with self._timed(MOUNT):
            self._snapshots.mount("box", self._place)
        with self._timed(COPY_UP), (self._place / "large").open("r+b", buffering=0) as file:
            file.write(b"x")
        for name in _EDITED:
            (self._place / name).write_text("changed")
        self._snapshots.unmount(self._place)
        self._snapshots.commit("changed", "box")
        self.costs[SPACE].append(self._snapshots.usage("changed").size)
        with self._timed(DIFF):
            found = {os.fsdecode(change.path) for change in self._snapshots.changes("changed")}
        assert found == {"large", "files", "files/0", *_EDITED}, found
        with self._timed(REMOVE):
            self._snapshots.remove("changed")

    def _write_many_files(self) -> None:
        self._snapshots.prepare("box", "base")
        self._snapshots.mount("box", self._place)
        with self._timed(FILES):
            _write_files(self._place / "new", self._plan.fresh)
        self._snapshots.unmount(self._place)
        self._snapshots.remove("box")

    @contextlib.contextmanager
    def _timed(self, work: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.costs[work].append(time.perf_counter() - start)


def _write_files(place: Path, count: int) -> None:
    for number in range(count):
        directory = place / str(number // _DIRECTORY)
        if number % _DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / str(number % _DIRECTORY)).write_bytes(b"small" * (_SMALL // 5))


def main(root: Path, driver: str, plan: Plan) -> None:
    """Measure, and tell."""
    config = load_config(None, {"LAMINA_CONFIG": "/dev/null"}, driver=driver, root=root / "store")
    config = attrs.evolve(config, options={driver: plan.options})
    target = root / "target"
    target.mkdir()
    with open_snapshotter(config) as snapshots:
        print(json.dumps(Works(snapshots, target, plan).run()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Plan(**json.load(sys.stdin)))

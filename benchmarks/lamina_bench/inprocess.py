"""Measure a layer's life without the start of a process around it; see micro.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import attrs

from lamina_bench.measuring import run

DEPTHS = {"overlay": (1, 3, 128, 500), "vfs": (1,)}  # vfs copies: only a small tree tells what the verbs cost
TIMES = 300


@attrs.frozen
class Life:
    """Microseconds of the steps of a layer's life: percentiles, of lamina and of the bare system calls."""

    driver: str
    depth: int
    lamina: dict[str, dict[str, float]]
    kernel: dict[str, dict[str, float]] | None = None


def measure_life(place: Path, driver: str, depth: int) -> Life:
    """In a fresh process and a fresh store."""
    argv = (sys.executable, "-m", "lamina_bench.micro", str(place), driver, str(depth), str(TIMES))
    told = run(argv, {"PYTHONPATH": str(Path(__file__).parents[1])})
    return Life(driver, depth, **json.loads(told))

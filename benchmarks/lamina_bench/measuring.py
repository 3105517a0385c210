"""What a command costs: time on the clock, time of the processors, memory at its peak."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

_SPAWNED = Path(__file__).with_name("spawned.py")


class CommandFailed(Exception):
    """A command that should have worked did not; the message has its last words."""


@attrs.frozen
class Cost:
    """Seconds on the clock, seconds of all processors, and the largest process in bytes; children are counted."""

    wall: float
    cpu: float
    memory: int

    def plus(self, other: Cost) -> Cost:
        """Both, one after the other."""
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.memory, other.memory))


def measure(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Cost:
    """Run it to its end; CommandFailed unless it succeeds. Its output goes nowhere."""
    return measure_both(argv, environ)[0]


def measure_both(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> tuple[Cost, float]:
    """The same, and the seconds until the first byte of its output (or the end of it)."""
    with tempfile.TemporaryDirectory(prefix="lamina-bench.") as here:
        report, errors = Path(here, "report"), Path(here, "errors")
        with errors.open("wb") as stderr:
            subprocess.run(
                [sys.executable, "-I", "-S", str(_SPAWNED), str(report), *argv],
                env={**os.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                check=True,
            )
        status, wall, cpu, memory, first = report.read_text().split()
        if int(status):
            words = errors.read_text(errors="replace").strip()[-600:]
            raise CommandFailed(f"{' '.join(argv)} ended with {status}: {words}")
    return Cost(float(wall), float(cpu), int(memory) * 1024), float(first)


def run(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """Run a command that is not measured; what it printed. CommandFailed with its last words."""
    told = subprocess.run(
        argv,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if told.returncode:
        raise CommandFailed(f"{' '.join(argv)} ended with {told.returncode}: {told.stderr.strip()[-600:]}")
    return told.stdout


def flush() -> float:
    """Everything that was written is on disk; how long that took."""
    started = time.perf_counter()
    os.sync()
    return time.perf_counter() - started

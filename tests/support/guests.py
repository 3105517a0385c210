"""The lanes that run in guests: which kernel each boots, and what it is told to do there."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs
from lanes import LANES, is_spared
from uml import Guest

HOUSE: Final = Path(__file__).parents[2]


@attrs.frozen
class Kernel:
    """A lane's kernel: the variable that names it, and what is taken where it is not set."""

    variable: str
    default: str | None

    @property
    def program(self) -> str | None:
        """What is to be booted; None if the lane is not asked for."""
        return os.environ.get(self.variable) or self.default


KERNELS: Final[Mapping[str, Kernel]] = {
    "uml": Kernel("LAMINA_UML_KERNEL", "linux.uml"),
    "aufs": Kernel("LAMINA_AUFS_KERNEL", None),
}
# A guest's system calls take ten times as long as the host's, so that the guests play fewer random histories and die
# at fewer of the steps than the host does.
TRIMMED: Final = ("--examples", "2", "--crash-stride", "61")
OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "devmapper": ("--driver-option", "base_size=512MiB"),  # the base is made anew for each test
}
# Of the suite, what is known to end in time; LAMINA_WHOLE_GUESTS=1 asks for all of it.
CHAPTERS: Final = tuple(f"lamina.conformance.test_{name}" for name in ("driver", "rules", "life"))
SECONDS: Final = 1200  # for one guest with all its drivers


def guest_of(lane: str) -> Guest | None:
    """A guest that will test the lane's drivers, not yet started; None if there is no kernel for it."""
    program = KERNELS[lane].program
    drivers = tuple(driver for driver in LANES[lane] if not is_spared(driver, lane))
    if program is None or not drivers or shutil.which(program) is None:
        return None
    return Guest(program, _script(drivers), seconds=SECONDS)


def chapters() -> tuple[str, ...]:
    """The parts of the suite that guests run; none means all."""
    return () if os.environ.get("LAMINA_WHOLE_GUESTS") else CHAPTERS


def _script(drivers: tuple[str, ...]) -> str:
    """Run the suite for each driver, and what is particular to it, with a report of each."""
    lines = ["failed=0"]
    for driver in drivers:
        flags = ("--must-run", *TRIMMED, *OPTIONS.get(driver, ()), *chapters())
        suite = ["lamina.cli.main", "conformance", driver, *flags]
        runs = {f"{driver}.xml": ("$ROOM", [*suite, "--driver-root", "."])}
        if (particular := HOUSE / f"tests/drivers/test_{driver}.py").exists():
            runs[f"{driver}-particular.xml"] = (shlex.quote(str(HOUSE)), ["pytest", str(particular)])
        for report, (place, words) in runs.items():
            command = shlex.join([sys.executable, "-m", *words, "-p", "no:cacheprovider"])
            lines += [f"cd {place}", f"{command} --junitxml $ROOM/{report} || failed=1"]
            lines += [f"cp $ROOM/{report} $OUT/{report}.new; sync; mv $OUT/{report}.new $OUT/{report}; sync"]
    return "\n".join([*lines, "exit $failed"])

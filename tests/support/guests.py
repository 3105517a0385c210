"""The lanes that run in guests: which kernel each boots, and what it is told to do there."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import Final

import attrs
from lanes import LANES
from uml import Guest


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
TRIMMED: Final = ("--examples", "2", "--crash-stride", "17")
SECONDS: Final = 900  # for one guest with all its drivers


def guest_of(lane: str) -> Guest | None:
    """A guest that will test the lane's drivers, not yet started; None if there is no kernel for it."""
    program = KERNELS[lane].program
    if program is None or shutil.which(program) is None:
        return None
    return Guest(program, _script(LANES[lane]), seconds=SECONDS)


def _script(drivers: tuple[str, ...]) -> str:
    """Run the suite for each driver, each with a report of its own."""
    lines = ["failed=0"]
    for driver in drivers:
        words = [sys.executable, "-m", "lamina.cli.main", "conformance", driver, "--must-run", *TRIMMED]
        lines += [
            f"mkdir $ROOM/{driver}",
            f"{shlex.join(words)} -p no:cacheprovider --driver-root $ROOM/{driver} --junitxml $ROOM/{driver}.xml",
            "[ $? = 0 ] || failed=1",
            f"cp $ROOM/{driver}.xml $OUT/{driver}.new && sync && mv $OUT/{driver}.new $OUT/{driver}.xml; sync",
        ]
    return "\n".join([*lines, "exit $failed"])

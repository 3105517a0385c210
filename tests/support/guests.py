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
from lanes import LANES
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
    "devmapper": ("--driver-option", "base_size=256MiB"),  # the base is made anew for each test
}
# What is asked of a driver in every run, in pytest's words; LAMINA_LONG=1 asks for all, which takes more than a quarter
# of an hour. A driver that no other lane has is asked for what takes seconds; the host's lane asks the others for all.
_SECONDS_EACH: Final = (
    "not 128 and not 500 and not huge and not test_model and not test_threads and not (test_diff and not native)"
    " and not (test_killed_at_every_step_of and not commit-the-child)"
)
_THE_KERNELS_PART: Final = "test_driver or test_life or test_layers or test_limits or test_live"
PARTS: Final[Mapping[str, str]] = {"overlay": _THE_KERNELS_PART, "btrfs": _THE_KERNELS_PART}
OWN_TESTS: Final[Mapping[str, tuple[str, ...]]] = {
    "aufs": ("tests/drivers/test_aufs.py", "tests/drivers/test_aufs_kernel.py"),
}
TOLD: Final = "" if os.environ.get("LAMINA_LONG") else "a part of the suite; LAMINA_LONG=1 asks for all"
SECONDS: Final = 3600 if os.environ.get("LAMINA_LONG") else 900  # for one guest with all its drivers

_ON_BTRFS: Final = """\
truncate -s 2G $ROOM/btrfs.img && mkfs.btrfs -q $ROOM/btrfs.img
mkdir -p $ROOM/btrfs && mount -o loop $ROOM/btrfs.img $ROOM/btrfs"""
# What has to be there for a driver's stores, and where they are made; all others lie on the guest's disk.
PLACES: Final[Mapping[str, tuple[str, str]]] = {"btrfs": (_ON_BTRFS, "$ROOM/btrfs")}


def guest_of(lane: str) -> Guest | None:
    """A guest that will test the lane's drivers, not yet started; None if there is no kernel for it."""
    program = KERNELS[lane].program
    if program is None or shutil.which(program) is None:
        return None
    return Guest(program, script_for(LANES[lane]), seconds=SECONDS)


def script_for(drivers: tuple[str, ...]) -> str:
    """Run the suite for each driver, and what is particular to it, with a report of each."""
    lines = ["failed=0"]
    for driver in drivers:
        prelude, place = PLACES.get(driver, (":", "$ROOM"))
        suite = ["lamina.cli.main", "conformance", driver, "--must-run", *TRIMMED, *OPTIONS.get(driver, ())]
        own = ["pytest", *OWN_TESTS.get(driver, (f"tests/drivers/test_{driver}.py",))]
        first, second = reports_of(driver)
        lines += [prelude, *_run(place, [*suite, *_part_for(driver), "--driver-root", "."], first)]
        lines += _run(shlex.quote(str(HOUSE)), own, second)
    return "\n".join([*lines, "exit $failed"])


def reports_of(driver: str) -> tuple[str, str]:
    """What the guest writes to `$OUT`: one report of the suite, and one of the driver's own tests."""
    return f"{driver}.xml", f"{driver}-particular.xml"


def _part_for(driver: str) -> tuple[str, ...]:
    return () if os.environ.get("LAMINA_LONG") else ("-k", PARTS.get(driver, _SECONDS_EACH))


def _run(place: str, words: list[str], report: str) -> list[str]:
    command = shlex.join([sys.executable, "-m", *words, "-p", "no:cacheprovider"])
    return [
        f"cd {place}",
        f"{command} --junitxml $ROOM/{report} || failed=1",
        f"cp $ROOM/{report} $OUT/{report}.new; sync; mv $OUT/{report}.new $OUT/{report}; sync",
    ]

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
from lanes import LANES, cut_for
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
OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "devmapper": ("--driver-option", "base_size=256MiB"),  # the base is made anew for each test
}
OWN_TESTS: Final[Mapping[str, tuple[str, ...]]] = {
    "aufs": ("tests/drivers/test_aufs.py", "tests/drivers/test_aufs_kernel.py"),
}
# for one guest with all its drivers; it works beside the other lanes, on a busy machine
SECONDS: Final = 1500

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
    return Guest(program, script_for(lane), seconds=SECONDS)


def script_for(lane: str) -> str:
    """Run the suite for each driver, and what is particular to it, with a report of each."""
    lines = ["failed=0"]
    for driver in LANES[lane]:
        prelude, place = PLACES.get(driver, (":", "$ROOM"))
        cut = cut_for(lane, driver)
        suite = ["lamina.cli.main", "conformance", driver, "--must-run", *cut.words, *OPTIONS.get(driver, ())]
        own = ["pytest", *OWN_TESTS.get(driver, (f"tests/drivers/test_{driver}.py",))]
        first, second = reports_of(driver)
        lines += [prelude, *_run(place, [*suite, "--driver-root", "."], first)]
        lines += _run(shlex.quote(str(HOUSE)), own, second)
    return "\n".join([*lines, "exit $failed"])


def reports_of(driver: str) -> tuple[str, str]:
    """What the guest writes to `$OUT`: one report of the suite, and one of the driver's own tests."""
    return f"{driver}.xml", f"{driver}-particular.xml"


def _run(place: str, words: list[str], report: str) -> list[str]:
    command = shlex.join([sys.executable, "-m", *words, "-p", "no:cacheprovider"])
    return [
        f"cd {place}",
        f"{command} --junitxml $ROOM/{report} || failed=1",
        f"cp $ROOM/{report} $OUT/{report}.new; sync; mv $OUT/{report}.new $OUT/{report}; sync",
    ]

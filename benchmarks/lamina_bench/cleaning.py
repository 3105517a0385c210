"""Leave nothing behind: unmount what tools have left mounted below a directory, and remove it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path


def clear(place: Path) -> None:
    """Nothing is mounted below `place`, and it is gone. Never follows a mount."""
    for target in reversed(mounted_below(place)):
        subprocess.run(["umount", "--lazy", target], check=True)
    if place.exists():
        # tools leave immutable or foreign things only below mounts, so what is left is ours
        subprocess.run(["rm", "-rf", "--one-file-system", str(place)], check=True)


def mounted_below(place: Path) -> list[str]:
    """Mount points at or below `place`, in the order in which they were mounted."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    targets = (line.split()[4].encode().decode("unicode_escape") for line in lines)
    return [target for target in targets if target == str(place) or target.startswith(f"{place}/")]


@contextlib.contextmanager
def room(place: Path) -> Iterator[Path]:
    """A fresh directory for the length of a `with`."""
    clear(place)
    place.mkdir(parents=True)
    place.chmod(0o711)
    try:
        yield place
    finally:
        clear(place)


def lacking(*programs: str) -> tuple[str, ...]:
    """Those of the programs that are not installed."""
    return tuple(program for program in programs if shutil.which(program) is None)

"""What a test leaves behind on the host: mounts, loop devices, processes. Read from /proc and /sys."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path


def mounts_below(place: Path) -> list[str]:
    """The mount points below `place`, the deepest first."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    points = [_unescape(line.split(" ")[4]) for line in lines]
    return sorted((point for point in points if _below(point, place)), key=len, reverse=True)


def loops_below(place: Path) -> list[str]:
    """The loop devices whose file lies below `place`."""
    found = []
    for loop in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if _below(loop.read_text().strip(), place):
                found.append(f"/dev/{loop.parent.parent.name}")
    return found


def processes_below(place: Path) -> list[str]:
    """Other processes that stand in `place`, hold a file of it open, or have its name on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        with suppress(OSError):  # processes come and go while we look
            words = (process / "cmdline").read_bytes().split(b"\0")
            names = [os.readlink(process / "cwd"), *(os.readlink(link) for link in (process / "fd").iterdir())]
            if not _started_us(process):
                names += map(os.fsdecode, words)
            if any(_below(name, place) for name in names):
                found.append(f"{process.name} {b' '.join(words).decode(errors='replace')}")
    return found


def _started_us(process: Path) -> bool:
    # whoever started pytest may well have the place on its command line
    ancestors, pid = set(), os.getpid()
    while pid > 1:
        ancestors.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return int(process.name) in ancestors


def _below(path: str, place: Path) -> bool:
    return path == str(place) or path.startswith(f"{place}/")


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)

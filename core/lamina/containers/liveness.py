"""Whether a process is still the one that was noted: pid, start time and boot. Light."""

from __future__ import annotations

from lamina.boot import boot_id

_START_TIME = 19  # fields behind the program's name in proc_pid_stat(5)


def is_alive(pid: int, ticks: int, boot: str) -> bool:
    """Whether it still runs; a zombie does not."""
    return boot == boot_id() and ticks_of(pid) == ticks


def ticks_of(pid: int) -> int | None:
    """When the process with this number started, in clock ticks since the boot; None if none runs."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[_START_TIME])

"""Run a command and write what it cost: `spawned.py REPORT COMMAND…`; also when the first byte of its output came.

A process of its own because it has to be small: the peak memory of a child counts from what its parent was when it was
spawned, and that must not be the benchmarks themselves. Standard library only, started with -I -S.
"""

from __future__ import annotations

import os
import sys
import threading
import time


def main(report: str, argv: list[str]) -> None:
    """Run it, wait for it and for all that it waited for, and write down the cost."""
    read, write = os.pipe()  # not inherited, but for the one end that becomes its stdout
    started = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)])
    os.close(write)
    os.read(read, 1)
    first = time.perf_counter() - started
    threading.Thread(target=drain, args=(read,), daemon=True).start()  # somebody may keep the pipe when it has ended
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    numbers = (os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, first)
    with open(report, "w", encoding="ascii") as out:
        out.write(" ".join(str(number) for number in numbers))


def drain(descriptor: int) -> None:
    """Whoever writes never waits for us."""
    while os.read(descriptor, 1 << 16):
        pass


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

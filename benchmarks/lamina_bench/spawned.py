"""Run a command and write what it cost: `spawned.py REPORT COMMAND…`.

A process of its own because it has to be small: the peak memory of a child counts from what its parent was when it was
spawned, and that must not be the benchmarks themselves. Standard library only, started with -I -S.
"""

from __future__ import annotations

import os
import sys
import time


def main(report: str, argv: list[str]) -> None:
    """Run it, wait for it and for all that it waited for, and write down the cost."""
    started = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, os.environ)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    numbers = (os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
    with open(report, "w", encoding="ascii") as out:
        out.write(" ".join(str(number) for number in numbers))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""A server that works on behalf of the commands that are measured: started, watched, stopped by its process id."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from lamina_bench.measuring import CommandFailed, Cost

_TICK = os.sysconf("SC_CLK_TCK")
_PATIENCE = 20.0


@attrs.frozen
class Daemon:
    """A running server."""

    pid: int

    @contextlib.contextmanager
    def watched(self) -> Iterator[Callable[[], Cost]]:
        """Within the block, calling the value tells what the server has cost since its beginning."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # its peak of memory counts from now
        before = self._cpu()
        yield lambda: Cost(0.0, self._cpu() - before, self._peak())

    def _cpu(self) -> float:
        """Its own time and that of the children it has waited for (it may run unpigz)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / _TICK

    def _peak(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024


@contextlib.contextmanager
def running(argv: Sequence[str], log: Path, answers: Callable[[], object]) -> Iterator[Daemon]:
    """The server runs within the block; `answers` raises CommandFailed until it can be used."""
    with log.open("wb") as out, subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out) as server:
        try:
            _wait(server, answers, log)
            yield Daemon(server.pid)
        finally:
            server.terminate()
            try:
                server.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait(server: subprocess.Popen[bytes], answers: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        try:
            answers()
        except CommandFailed:
            time.sleep(0.05)  # there is nothing to wait on: the socket is not there yet
        else:
            return
    raise CommandFailed(f"{server.args!r} does not answer: {log.read_text(errors='replace')[-600:]}")

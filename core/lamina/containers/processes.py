"""Processes of containers, by a name that is not given twice: pid, start time and boot."""

from __future__ import annotations

import os
import select
import signal

import attrs

from lamina.boot import boot_id
from lamina.containers.liveness import is_alive, ticks_of


@attrs.frozen
class Process:
    """A process that was alive when it was looked at."""

    pid: int
    ticks: int  # its start, in clock ticks since the boot
    boot: str

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return is_alive(self.pid, self.ticks, self.boot)

    def kill(self, number: int) -> bool:
        """Send a signal, to it and nobody else; False if it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Return True once it is gone, False if it is not after so many seconds."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive:
                return True
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(None if timeout is None else max(0, timeout) * 1000))
        finally:
            os.close(descriptor)


def process(pid: int) -> Process | None:
    """Whoever has this number now; None if nobody has."""
    ticks = ticks_of(pid)
    return None if ticks is None else Process(pid, ticks, boot_id())

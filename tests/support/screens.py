"""A person's side of a terminal on which lamina runs: real pseudo-terminals."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from desk import PROGRAM, Desk


@attrs.frozen
class Screen:
    """The person's side of a terminal on which lamina runs."""

    side: int
    process: subprocess.Popen[bytes]

    def type(self, text: bytes) -> None:
        os.write(self.side, text)

    def until(self, wanted: bytes) -> bytes:
        """What is shown, up to these words."""
        shown, deadline = b"", time.monotonic() + 20
        while wanted not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([self.side], [], [], 1)[0]:
                try:
                    shown += os.read(self.side, 4096)
                except OSError:  # the other side is closed
                    break
        assert wanted in shown, shown
        return shown

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def screen(desk: Desk, *words: str) -> Iterator[Screen]:
    """A terminal of 30 rows and 90 columns with a command on it."""
    ours, theirs = pty.openpty()
    shown = Screen(ours, _start(desk, words, theirs, ours))
    os.close(theirs)
    try:
        yield shown
    finally:
        shown.process.kill()
        shown.process.wait()
        os.close(ours)


def _start(desk: Desk, words: tuple[str, ...], theirs: int, ours: int) -> subprocess.Popen[bytes]:
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    # a session of its own with this terminal, as a login has, so that a change of size is told by a signal
    login = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
    return subprocess.Popen(
        [PROGRAM[0], "-c", login, *PROGRAM, *words],
        cwd=desk.path,
        env=desk.environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )

"""Containers with a terminal: real pseudo-terminals on our side, as a person has one."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import pytest
from desk import PROGRAM, Desk

from lamina.containers.terminals import Keys, parse_keys
from lamina.errors import BadRequest

Eventually = Callable[[Callable[[], bool]], None]


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


@pytest.mark.needs_root
def test_a_shell_has_a_terminal_of_our_size_that_follows_ours(each_runtime: Desk) -> None:
    with screen(each_runtime, "run", "-it", "--rm", "demo/busybox", "sh") as shown:
        shown.until(b"# ")
        shown.type(b"tty; stty size\n")
        assert b"/dev/pts/0" in shown.until(b"30 90")

        shown.resize(40, 100)
        shown.type(b"sleep 0.3; stty size; exit 6\n")
        shown.until(b"40 100")

        assert shown.process.wait(20) == 6


@pytest.mark.needs_root
def test_the_interrupt_key_goes_to_the_container(desk: Desk) -> None:
    with screen(desk, "run", "-it", "--rm", "demo/busybox", "sh") as shown:
        shown.until(b"# ")
        shown.type(b"sleep 100\n")
        shown.until(b"sleep 100")
        time.sleep(0.3)  # nothing tells that the shell has begun to wait for it
        shown.type(b"\x03")
        shown.type(b"echo code $?; exit\n")

        shown.until(b"code 130")


@pytest.mark.needs_root
def test_the_detach_keys_leave_it_running_and_attach_comes_back(desk: Desk) -> None:
    with screen(desk, "run", "-it", "--name", "box", "demo/busybox", "sh") as shown:
        shown.until(b"# ")
        shown.type(b"x=kept\n\x10\x11")
        assert shown.process.wait(20) == 0
    assert "Up" in desk.does("ps")

    with screen(desk, "attach", "box") as shown:
        shown.type(b"echo $x; exit 4\n")
        shown.until(b"kept\r\n")
        assert shown.process.wait(20) == 4


@pytest.mark.needs_root
def test_another_command_has_a_terminal_too(desk: Desk) -> None:
    desk.does("run", "-d", "--name", "box", "demo/busybox", "sleep", "100")

    with screen(desk, "exec", "-it", "box", "sh") as shown:
        shown.until(b"# ")
        shown.type(b"stty size; exit 8\n")
        shown.until(b"30 90")
        assert shown.process.wait(20) == 8


@pytest.mark.needs_root
def test_a_terminal_that_is_none_is_refused(desk: Desk) -> None:
    assert desk.fails("run", "-it", "--rm", "demo/busybox", "true")[0] == 125


@pytest.mark.parametrize(("text", "keys"), [("ctrl-p,ctrl-q", b"\x10\x11"), ("a,ctrl-@", b"a\0"), ("", b"")])
def test_keys_are_read_as_docker_writes_them(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-ab", "ctrl-!"])
def test_keys_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_keys(text)


def test_keys_are_found_however_they_arrive_and_half_of_them_is_not_swallowed() -> None:
    keys = Keys(b"\x10\x11")

    assert keys.take(b"a\x10") == (b"a", False)
    assert keys.take(b"b") == (b"\x10b", False)
    assert keys.take(b"c\x10") == (b"c", False)
    assert keys.take(b"\x11dropped") == (b"", True)

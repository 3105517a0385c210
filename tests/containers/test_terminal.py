"""Containers with a terminal: real pseudo-terminals on our side, as a person has one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from desk import Desk
from screens import screen

from lamina.containers.terminals import Keys, parse_keys
from lamina.errors import BadRequest

Eventually = Callable[[Callable[[], bool]], None]


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
        shown.type(b"sh -c 'echo be''gun; sleep 100'\n")
        shown.until(b"begun")
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

"""Our terminal while a container has it: raw, with its size handed on; and the keys that take it back."""

from __future__ import annotations

import contextlib
import os
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from lamina.errors import BadRequest

USUAL_KEYS: Final = "ctrl-p,ctrl-q"
_CONTROL: Final = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Every key goes through as it is typed; afterwards the terminal is as it was."""
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def hand_on_size(descriptor: int, room: Path) -> None:
    """The container's terminal is as large as ours; nothing happens if it is gone, or we have none."""
    with contextlib.suppress(OSError):
        size = os.get_terminal_size(descriptor)
        control = os.open(room / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(control, b"1 %d %d\n" % (size.lines, size.columns))
        finally:
            os.close(control)


def parse_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as bytes; empty text is no keys at all. BadRequest if it means nothing."""
    keys = bytearray()
    for word in filter(None, text.split(",")):
        letter = word.removeprefix("ctrl-")
        if len(letter) != 1:
            raise BadRequest(f"detach keys {text!r}: say letters, or ctrl- and a letter, with commas between")
        if letter == word:
            keys += letter.encode()
        elif letter.isascii() and letter.isalpha():
            keys.append(ord(letter.lower()) - ord("a") + 1)
        elif letter in _CONTROL:
            keys.append(_CONTROL[letter])
        else:
            raise BadRequest(f"detach keys {text!r}: there is no key ctrl-{letter}")
    return bytes(keys)


@attrs.define
class Keys:
    """Looks for the detach keys in what is typed, also when they come one by one."""

    wanted: bytes
    typed: bytes = b""

    def take(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be passed on, and whether the keys were typed; what came behind them is dropped."""
        if not self.wanted:
            return data, False
        data, self.typed = self.typed + data, b""
        found = data.find(self.wanted)
        if found >= 0:
            return data[:found], True
        for length in range(min(len(self.wanted) - 1, len(data)), 0, -1):
            if data.endswith(self.wanted[:length]):  # perhaps their beginning: wait for the rest
                self.typed = data[-length:]
                return data[:-length], False
        return data, False

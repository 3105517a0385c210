"""Our standard streams joined to those of a container, through the socket of its monitor."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

from lamina.containers.terminals import Keys, hand_on_size, raw
from lamina.errors import NotFound
from lamina.syscalls import opened

_PIECE: Final = 8 << 10  # bytes of input in one packet: the monitor reads up to 32 KiB
_PACKET: Final = 64 << 10
_STDERR: Final = 3  # the first byte of a packet: 2 is its standard output, 3 its standard error
HANDED_ON: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def connect(room: Path) -> socket.socket:
    """A line to the monitor of a container, or of a command in one; what was written before is lost. NotFound."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with opened(room, os.O_PATH | os.O_DIRECTORY) as directory:  # a socket's name must be short
            line.connect(f"/proc/self/fd/{directory}/attach")
    except (FileNotFoundError, ConnectionRefusedError):
        line.close()
        raise NotFound("nobody watches over this container any more, so nothing can be attached to it") from None
    except BaseException:
        line.close()
        raise
    return line


@attrs.frozen
class Streams:
    """What is joined: whether our input goes in, whether a terminal is on both sides, and which keys let go of it."""

    room: Path
    interactive: bool = False
    terminal: bool = False
    keys: bytes = b""
    hand_on: Callable[[int], object] | None = None  # a signal that we get


def join(line: socket.socket, streams: Streams) -> bool:
    """Carry everything to and fro until the other side ends; False if the keys were typed that let go of it."""
    with contextlib.ExitStack() as stack:
        if streams.terminal and streams.interactive and os.isatty(0):
            stack.enter_context(raw(0))
        wake = stack.enter_context(_signals(streams))
        if streams.terminal:
            hand_on_size(1, streams.room)
        return _Joint(line, streams, wake).run()


class _Joint:
    """One conversation."""

    def __init__(self, line: socket.socket, streams: Streams, wake: int) -> None:
        self._line = line
        self._streams = streams
        self._wake = wake
        self._keys = Keys(streams.keys if streams.terminal else b"")
        self._waiting = b""  # for the other side to take it
        self._listening = streams.interactive
        self._ended = not streams.interactive

    def run(self) -> bool:
        """True once the other side has ended."""
        while True:
            events = self._poll()
            if self._wake in events:
                self._take_signals()
            if 0 in events and not self._take_input():
                return False
            here = events.get(self._line.fileno(), 0)
            if here & select.POLLOUT:
                self._send()
            if here & ~select.POLLOUT and not self._receive():
                return True

    def _poll(self) -> dict[int, int]:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._line, select.POLLIN | (select.POLLOUT if self._waiting else 0))
        if self._listening and not self._waiting:
            poll.register(0, select.POLLIN)
        return dict(poll.poll())

    def _receive(self) -> bool:
        try:
            packet = self._line.recv(_PACKET)
        except ConnectionError:
            return False
        if packet:
            _write(2 if packet[0] == _STDERR else 1, memoryview(packet)[1:])
        return bool(packet)

    def _take_input(self) -> bool:
        """False if the keys were typed."""
        data = os.read(0, _PIECE)
        if not data:
            self._listening = False
            self._end_input()
            return True
        self._waiting, let_go = self._keys.take(data)
        self._send()
        return not let_go

    def _send(self) -> None:
        """As much as the other side takes now: it may be waiting for us to take what it has written."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while self._waiting:
                self._waiting = self._waiting[self._line.send(self._waiting[:_PIECE], socket.MSG_DONTWAIT) :]

    def _end_input(self) -> None:
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)

    def _take_signals(self) -> None:
        for number in os.read(self._wake, 64):
            if number == signal.SIGWINCH:
                hand_on_size(1, self._streams.room)
            elif self._streams.hand_on is not None:
                self._streams.hand_on(number)


@contextlib.contextmanager
def _signals(streams: Streams) -> Iterator[int]:
    """Signals arrive as bytes on a descriptor, for as long as the block lasts."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    wanted = ((signal.SIGWINCH,) if streams.terminal else ()) + (HANDED_ON if streams.hand_on else ())
    woken = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _nothing) for number in wanted}
    try:
        yield read
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        os.close(read)
        os.close(write)


def _nothing(_number: int, _frame: object) -> None:
    """Python writes the byte; this only keeps the usual thing from happening."""


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]

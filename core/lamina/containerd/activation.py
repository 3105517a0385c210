"""What systemd hands us and wants to hear: sockets that it listens on (sd_listen_fds(3)), and that we are ready."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Final

from lamina.errors import BadRequest

_FIRST: Final = 3  # SD_LISTEN_FDS_START
_CHUNK: Final = 64 << 10


def inherited(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The listening Unix sockets that were passed to us; none if nobody did. Our children do not hear of them."""
    numbers = environ.pop("LISTEN_FDS", "0")
    meant = environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if meant != str(os.getpid()):
        return []
    return [_listening(descriptor) for descriptor in range(_FIRST, _FIRST + int(numbers))]


def _listening(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)  # noqa: FBT003  # as os has it
    found = socket.socket(fileno=descriptor)
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM or not listens:
        raise BadRequest(f"descriptor {descriptor} from systemd: no listening Unix stream socket")
    return found


def notify(state: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell systemd, if it asked: `READY=1`, `STOPPING=1`, `STATUS=…`. See sd_notify(3)."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender, contextlib.suppress(OSError):
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.sendall(state.encode())


@contextlib.contextmanager
def relayed(listeners: list[socket.socket], target: Path) -> Iterator[None]:
    """Within the `with`, who connects to a listener talks to the server at `target`.

    gRPC's server binds its sockets itself and cannot take over one that is bound already. Afterwards the listeners are
    as they were: systemd has them, too, and starts us again for the next one who connects.
    """
    wake, woken = socket.socketpair()
    with wake, woken:
        acceptor = threading.Thread(target=_accept, args=([*listeners, woken], target))
        acceptor.start()
        try:
            yield
        finally:
            wake.sendall(b"enough")
            acceptor.join()


def _accept(waiting: list[socket.socket], target: Path) -> None:
    *_, woken = waiting
    while woken not in (ready := select.select(waiting, (), ())[0]):
        for listener in ready:
            with contextlib.suppress(OSError):  # the client has left, or our server has
                client, _ = listener.accept()
                threading.Thread(target=_relay, args=(client, target), daemon=True).start()


def _relay(client: socket.socket, target: Path) -> None:
    with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server, contextlib.suppress(OSError):
        server.connect(os.fspath(target))
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on everything until one side has enough; then the other direction ends, too."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

"""A valve between a client and a server: so many bytes go through, then it holds, so that somebody can be killed."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

_PIECE = 64 << 10
_PATIENCE = 60.0


class Valve:
    """Forwards connections to a server on loopback. Counts what comes down (from the server) and goes up."""

    def __init__(self, server: str, *, down: int | None = None, up: int | None = None) -> None:
        self._server = server
        self._limits = {"down": down, "up": up}
        self._passed = {"down": 0, "up": 0}
        self._changed = threading.Condition()
        self._held = False
        self._ending = False
        self._losing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()

    @property
    def host(self) -> str:
        """Where clients go."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def passed(self, way: str) -> int:
        """So many bytes have gone `down` or `up`."""
        return self._passed[way]

    def wait_until_held(self) -> None:
        """The limit is reached, and both sides wait."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._held, _PATIENCE), "nothing was held"

    def open(self, *, losing: bool = False) -> None:
        """All goes through from now on; `losing` what was held and its connection, since buffers outlive the killed."""
        with self._changed:
            self._losing = losing
            self._limits = {"down": None, "up": None}
            self._changed.notify_all()

    def serve(self) -> None:
        """Until `close`."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Let go of everybody."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in tuple(self._open):
            _end(each)

    def _connect(self, client: socket.socket) -> None:
        host, _, port = self._server.partition(":")
        try:
            server = socket.create_connection((host, int(port)))
        except OSError:
            client.close()
            return
        self._open |= {client, server}
        back = threading.Thread(target=self._pump, args=(server, client, "down"), daemon=True)
        back.start()
        self._pump(client, server, "up")
        back.join()
        self._open -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE):
                if not self._may(way, len(piece)):
                    break
                target.sendall(piece)
        _end(source)
        _end(target)

    def _may(self, way: str, count: int) -> bool:
        with self._changed:
            limit = self._limits[way]
            if limit is not None and self._passed[way] + count > limit:
                self._held = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._ending or self._limits[way] is None)
                if self._losing:
                    return False
            self._passed[way] += count
            return not self._ending


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def valve(server: str, *, down: int | None = None, up: int | None = None) -> Iterator[Valve]:
    """One that works within the block."""
    between = Valve(server, down=down, up=up)
    serving = threading.Thread(target=between.serve)
    serving.start()
    try:
        yield between
    finally:
        between.close()
        serving.join()

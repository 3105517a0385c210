"""A process in which everything that a server needs is loaded: it forks servers, so that each starts in milliseconds.

It is asked through a socket, its standard input, and ends when whoever asks has ended. Each request is a document for
the server, and with it comes the descriptor into which the server tells how it went.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from lamina_fuse import server

_LONGEST: Final = 1 << 20  # bytes of a request; 500 layers take 4 KiB


def main() -> int:
    """Returns, in the process that was started, once the launcher is ready; a child of it goes on."""
    os.environ.pop("LD_PRELOAD", None)
    os.chdir("/")
    if os.fork():
        os._exit(0)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nothing, descriptor)
    gc.freeze()
    with socket.socket(fileno=os.dup(0)) as requests:
        os.dup2(nothing, 0)
        os.close(nothing)
        _launch_all(requests)
    return 0


def _launch_all(requests: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for servers
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _LONGEST, 1)
        if not message:
            return
        (tell,) = descriptors
        with contextlib.suppress(OSError):  # no process to be had: whoever asked is told nothing, and that is enough
            if os.fork() == 0:
                requests.close()
                _serve(message, tell)
        os.close(tell)


def _serve(message: bytes, tell: int) -> None:
    """In a child of the launcher; never returns."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # libfuse waits for fusermount3
        os.setsid()
        spec = json.loads(message)
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text(f"lamina-fuse {Path(spec['place']).name}"[:15], encoding="ascii")
        status = server.serve(spec, tell)
    finally:
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())

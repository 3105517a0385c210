"""Ask the launcher for a server; one is started at the first need, and again when we are not where we were."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from typing import Any, Final

import attrs

_lock = threading.Lock()
_launchers: Final[dict[tuple[object, ...], Launcher]] = {}


@attrs.frozen
class Launcher:
    """Our end of its socket, which processes that we fork may use as well: with the last of them the launcher ends."""

    requests: socket.socket

    def launch(self, spec: dict[str, Any]) -> bytes:
        """What the server tells, which ends with a zero when all is well; nothing if it, or the launcher, was killed.

        Any number of threads and processes may ask at once.
        """
        source, sink = os.pipe2(os.O_CLOEXEC)
        with os.fdopen(source, "rb") as answer:
            try:
                socket.send_fds(self.requests, [json.dumps(spec).encode()], [sink])
            except (BrokenPipeError, ConnectionError):
                return b""
            finally:
                os.close(sink)
            return answer.read()


def launch(spec: dict[str, Any], preload: str) -> str | None:
    """A server has started, as `spec` says, with this library preloaded; else why not."""
    words = _launcher(preload).launch(spec)
    if not words:
        words = _launcher(preload, instead=True).launch(spec)
    return None if words.endswith(b"\0") else words.decode(errors="replace").strip() or "it was killed"


def _launcher(preload: str, *, instead: bool = False) -> Launcher:
    """The one for where we are now; `instead` of the one that there was."""
    key = _here(preload)
    with _lock:
        if instead or key not in _launchers:
            for other in _launchers.values():
                other.requests.close()
            _launchers.clear()
            _launchers[key] = _start(preload)
        return _launchers[key]


def _here(preload: str) -> tuple[object, ...]:
    """What a server inherits from us: another user or namespace needs another launcher."""
    spaces = (os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("mnt", "user"))
    return os.geteuid(), preload, *spaces


def _start(preload: str) -> Launcher:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environ = {**os.environ, **({"LD_PRELOAD": preload} if preload else {})}
    with theirs:
        told = subprocess.run(
            [sys.executable, "-P", "-m", "lamina_fuse.launcher"],
            stdin=theirs.fileno(),
            capture_output=True,
            text=True,
            env=environ,
            check=False,
        )
    if told.returncode:
        ours.close()
        raise OSError(errno.EIO, f"no server can be started: {told.stderr.strip()}")
    return Launcher(ours)


def _unlock() -> None:
    """In a child, the thread that held the lock is not there to give it back."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock)

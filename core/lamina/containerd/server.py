"""The server: one socket that only its owner can open, the service and its health behind it, until somebody ends it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from lamina.containerd import activation
from lamina.containerd.calls import Desk
from lamina.containerd.health import Health
from lamina.containerd.metrics import Metrics
from lamina.containerd.service import Service
from lamina.errors import InUse, LaminaError

if TYPE_CHECKING:
    from lamina.containerd.settings import Settings
    from lamina.snapshotter import Snapshotter

Tell = Callable[[str], object]

_GRACE: Final = 30.0  # seconds in which calls that were begun may end


@contextlib.contextmanager
def serving(snapshots: Snapshotter, settings: Settings, tell: Tell) -> Iterator[None]:
    """containerd can use the open store for the length of a `with`. Calls that were begun are ended before we leave.

    `tell` gets lines for the operator. InUse if somebody else serves at that address.
    """
    snapshots.lend()
    metrics = Metrics(snapshots)
    desk = Desk(Service(snapshots), metrics, tell)
    health = Health(snapshots)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(settings.threads, "call"))  # waits for those at work
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((desk.handlers(),))
        health.add_to(server)
        stack.enter_context(_listening(server, settings.address, tell))
        if settings.metrics_at is not None:
            port = stack.enter_context(metrics.served(*settings.metrics_at))
            tell(f"metrics at port {port}")
        activation.notify("READY=1")
        try:
            yield
        finally:
            activation.notify("STOPPING=1")
            health.leave()
            server.stop(_GRACE).wait()


@contextlib.contextmanager
def _listening(server: grpc.Server, address: Path, tell: Tell) -> Iterator[None]:
    """The server runs, at a socket that systemd listens on for us, or at one of our own."""
    if listeners := activation.inherited():
        with contextlib.ExitStack() as stack:
            for listener in listeners:
                stack.enter_context(listener)
            inner = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lamina-")), "socket")
            _bind(server, inner)
            server.start()
            stack.enter_context(activation.relayed(listeners, inner))
            tell(f"serving at {', '.join(str(listener.getsockname()) for listener in listeners)}, held by systemd")
            yield
        return
    with _alone(address):
        _bind(server, address)
        server.start()
        tell(f"serving at {address}")
        yield


@contextlib.contextmanager
def _alone(address: Path) -> Iterator[None]:
    """Nobody else serves at the address: a socket that is there is one of the dead, and gRPC replaces it."""
    try:
        address.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(f"{address}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LaminaError(f"{error.filename}: {error.strerror}; choose another address") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InUse(f"{address}: another service listens there; end it, or choose another address") from error
    finally:
        os.close(descriptor)


def _bind(server: grpc.Server, address: Path) -> None:
    before = os.umask(0o177)  # from its first moment on, nobody else may connect
    try:
        bound = server.add_insecure_port(f"unix:{address}")
    except RuntimeError as error:
        raise LaminaError(f"{address}: cannot listen there: {error}") from error
    finally:
        os.umask(before)
    if not bound:
        raise LaminaError(f"{address}: cannot listen there")

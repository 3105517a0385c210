"""The server of one layer's mount: a process of its own, in a session of its own, until the last mount is gone.

The launcher forks it, and it is told by a document what to show and where.
"""

from __future__ import annotations

import fcntl
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyfuse3
import trio

from lamina.descent import DIRECTORY
from lamina_fuse import loop
from lamina_fuse.hints import DESCRIPTORS
from lamina_fuse.indexing import index_of
from lamina_fuse.operations import Operations
from lamina_fuse.tree import Tree
from lamina_fuse.upper import Upper

log: Final = logging.getLogger("lamina_fuse")


def serve(spec: dict[str, Any], tell: int) -> int:
    """Show what is asked for; the status of the process, when it has ended.

    Into `tell` goes a zero once the mount is there, or else why it is not, in the words of whoever failed.
    """
    os.dup2(tell, 2)  # libfuse and fusermount3 complain there
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until there is somebody to hear it
    os.umask(0)  # the kernel has applied the caller's
    _raise_limit()
    place, target = Path(spec["place"]), Path(spec["target"])
    lock = _lock(place / "server.lock")
    if lock is None:
        print("another server of this layer is running", file=sys.stderr)  # noqa: T201  # the driver reads it
        return 1
    logging.basicConfig(
        filename=place / "server.log", level=spec["log_level"], format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        operations = _operations(spec, place)
        pyfuse3.init(operations, str(target), set(spec["options"]))
    except Exception as error:  # told to whoever waits
        log.exception("cannot serve")
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    _become_a_server(lock, b"" if target == place / "served" else b"\n" + os.fsencode(target))
    os.write(tell, b"\0")
    os.close(tell)
    return _serve(operations, place)


def _operations(spec: dict[str, Any], place: Path) -> Operations:
    home = place.parent
    layers = {number: index_of(home / str(number)) for number in spec["lowers"]}
    roots = {number: os.open(home / str(number) / "fs", DIRECTORY) for number in spec["lowers"]}
    upper = Upper(place / "fs", place / spec["work"], spec["prefix"]) if spec["writable"] else None
    secret = spec["secret"].encode()
    if secret:
        os.environ["LAMINA_FUSE_SECRET_FOR_C"] = spec["secret"]
    tree = Tree(layers, roots, upper)
    # on a single processor who is to ask could not run meanwhile
    look_out = spec["look_out"] if len(os.sched_getaffinity(0)) > 1 else 0
    tree.hints.configure(passthrough=spec["passthrough"], look_out=look_out)
    return Operations(tree, spec["prefix"], secret, stateless_directories=bool(secret))


def _raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(hard, DESCRIPTORS) if hard != resource.RLIM_INFINITY else DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def _lock(path: Path) -> int | None:
    """Held as long as the server lives, whatever kills it; the file says who it is."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _become_a_server(lock: int, elsewhere: bytes) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d%b" % (os.getpid(), elsewhere), 0)
    nothing = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def _serve(operations: Operations, place: Path) -> int:
    log.info("serving layer %s as process %d", place.name, os.getpid())
    gc.freeze()
    loop.shorten(operations.free_some)
    try:
        trio.run(_run, operations)
    except BaseException:
        log.exception("the server ends")
        return 1
    finally:
        _tell(operations)
        pyfuse3.close(unmount=True)
    return 0


def _tell(operations: Operations) -> None:
    """Write into the log what was asked so far, and of how many inodes something is remembered."""
    log.info("requests: %s", json.dumps(operations.asked()))
    log.info("remembered: %d", operations.remembered())


async def _run(operations: Operations) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(_heed_signals, lambda: _tell(operations))
        await pyfuse3.main(min_tasks=1, max_tasks=1)
        nursery.cancel_scope.cancel()


async def _heed_signals(
    tell: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """USR1: write into the log what was asked so far. TERM: let go of the mount; what was asked before is answered."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGUSR1:
                tell()
            else:
                pyfuse3.terminate()

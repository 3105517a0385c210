"""Die by SIGKILL at a chosen step, in a real child process, and tell what was acknowledged before.

A step is anything that leaves a trace outside the process: a system call that writes, an SQL statement, a child
program, and the entry and the return of every verb of the driver. They are counted by the interpreter's own
profiling hook, so that no driver has to help, and whatever it calls is seen.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import attrs

import lamina
from lamina.driver import Driver

VERBS = ("start", "prepare", "commit", "remove", "mounts", "release", "changes", "diff", "usage", "stop")

_WRITING = frozenset((
    *("mkdir", "mkfifo", "mknod", "rename", "replace", "link", "symlink", "unlink", "remove", "rmdir", "truncate"),
    *("ftruncate", "chmod", "fchmod", "chown", "fchown", "lchown", "utime", "setxattr", "removexattr", "write"),
    *("writev", "pwrite", "pwritev", "sendfile", "copy_file_range", "posix_fallocate", "fsync", "fdatasync", "sync"),
    *("ioctl", "execute", "executemany", "executescript", "commit", "fork_exec", "posix_spawn"),
))  # fmt: skip
# core's thin layer over ctypes: the calls themselves are invisible to the hook, the functions around them are not
_SYSCALLS = str(Path(lamina.__file__).with_name("syscalls.py"))


class Steps:
    """Counts steps while armed; at number `fatal` the process dies."""

    def __init__(self, fatal: int | None) -> None:
        self.fatal = fatal
        self.count = 0
        self.armed = False

    def step(self) -> None:
        """One more step; perhaps the last."""
        if not self.armed:
            return
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def _hook(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call":
            if arg.__name__ in _WRITING:
                self.step()
        elif event == "call" and frame.f_code.co_filename == _SYSCALLS and not frame.f_code.co_name.startswith("_"):
            self.step()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, every step of this thread and of those it starts is counted."""
        threading.setprofile(self._hook)
        sys.setprofile(self._hook)
        self.armed = True
        try:
            yield
        finally:
            self.armed = False
            sys.setprofile(None)
            threading.setprofile(None)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, nothing counts."""
        armed, self.armed = self.armed, False
        try:
            yield
        finally:
            self.armed = armed


def mortal(driver_class: type[Driver], steps: Steps) -> type[Driver]:
    """The same driver, for which the entry and the return of each verb are steps, too."""

    def around(verb: Any) -> Any:
        @functools.wraps(verb)
        def mortal_verb(*args: Any, **kwargs: Any) -> Any:
            steps.step()
            result = verb(*args, **kwargs)
            steps.step()
            return result

        return mortal_verb

    offered = {name: around(getattr(driver_class, name)) for name in VERBS if hasattr(driver_class, name)}
    return type(f"Mortal{driver_class.__name__}", (driver_class,), offered)


@attrs.frozen
class Death:
    """How a child ended: the words it acknowledged, whether it was killed, and what it raised instead."""

    acknowledged: tuple[str, ...]
    killed: bool
    error: str


def in_a_child(work: Callable[[Callable[[str], None]], None]) -> Death:
    """Do `work` in a forked child; what it tells before it ends or dies is acknowledged."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        _live(work, sink)
    os.close(sink)
    with os.fdopen(source) as pipe:
        words = pipe.read().split("\0")[:-1]
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    errors = [word.removeprefix("! ") for word in words if word.startswith("! ")]
    if not killed and status != 0 and not errors:
        errors = [f"the child ended with status {status}"]
    return Death(tuple(word for word in words if not word.startswith("! ")), killed, "\n".join(errors))


def _tell(sink: int, word: str) -> None:
    os.write(sink, word.encode(errors="replace").replace(b"\0", b"") + b"\0")


def _live(work: Callable[[Callable[[str], None]], None], sink: int) -> None:
    status = 0
    try:
        work(lambda word: _tell(sink, word))
    except BaseException:  # noqa: BLE001  # whatever it was, the parent has to hear of it
        _tell(sink, f"! {traceback.format_exc()}")
        status = 1
    finally:
        os._exit(status)  # no clean-up of the parent's affairs

"""conmon, which stays with a container when we are gone: keeps its log, its terminal and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from lamina.containers.processes import Process, process
from lamina.containers.runtime import Runtime, find_program, refusal
from lamina.errors import CannotRun

_API: Final = "1"
_PATIENCE: Final = 5.0  # seconds

# whoever is attached sees to the end himself, and quicker than another lamina would; if he dies, his lock is free
_AFTERWARDS: Final = 'flock "$0/attended" true; [ ! -e "$0/pid" ] || exec "$@"'


@attrs.frozen
class Started:
    """Who was started."""

    process: Process | None  # None: it has ended before we could look
    monitor: Process | None


def create(  # noqa: PLR0913  # what a monitor has to know
    runtime: Runtime,
    container: str,
    room: Path,
    *,
    name: str,
    terminal: bool,
    interactive: bool,
    afterwards: Sequence[str],
) -> Started:
    """The container is created and waits to be started; a monitor of its own watches over it.

    `afterwards` is run by the monitor when the container has ended and nobody attended to that. CannotRun,
    CommandNotFound or CommandRefused tell why not; then no process is left.
    """
    words = [*_words(runtime, container, room), "--name", name, "--log-path", f"k8s-file:{room}/log"]
    words += ["--persist-dir", str(room), "--exit-command", find_program("sh", ["dash"])]
    words += [word for each in ("-c", _AFTERWARDS, str(room), *afterwards) for word in ("--exit-command-arg", each)]
    words += ["--terminal", "--leave-stdin-open"] if terminal else []  # whoever detaches may come back
    words += ["--stdin"] if interactive else []
    told = _launch(words, room)
    with told:
        pid = _pid(told)
    return Started(process(pid), _monitor(room))


def _words(runtime: Runtime, container: str, room: Path) -> list[str]:
    program, *arguments = runtime.command
    return [
        find_program("conmon", ["conmon"]),
        *("--api-version", _API, "--cid", container, "--cuuid", os.urandom(16).hex(), "--bundle", str(room)),
        *("--full-attach", "--container-pidfile", f"{room}/pid", "--conmon-pidfile", f"{room}/monitor.pid"),
        *("--log-level", "error", "--runtime", program),
        *[word for each in arguments for word in ("--runtime-arg", each)],
    ]


def _launch(words: Sequence[str], room: Path, descriptors: dict[str, int] | None = None) -> Any:
    """Start the monitor; the open end of the pipe on which it reports, line by line."""
    ours, theirs = os.pipe()
    passed = {"_OCI_SYNCPIPE": theirs, **(descriptors or {})}
    try:
        subprocess.run(
            words,
            cwd=room,  # it notes there that memory ran out
            env=os.environ | {name: str(number) for name, number in passed.items()},
            pass_fds=tuple(passed.values()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return os.fdopen(ours, "r", encoding="utf-8", errors="replace")


def _pid(report: Any) -> int:
    line = report.readline()
    if not line:
        raise CannotRun("the monitor (conmon) ended without a word")
    told = _read(line)
    if told.get("data", -1) < 0:
        raise refusal(told.get("message", ""))
    return int(told["data"])


def _read(line: str) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(line, strict=False)
    except ValueError:
        return {"data": -1, "message": line}
    return told


def _monitor(room: Path) -> Process | None:
    try:
        return process(int((room / "monitor.pid").read_text(encoding="ascii")))
    except (FileNotFoundError, ValueError):
        return None


def end(room: Path, container: str) -> None:
    """The monitor of a container that was never started is gone."""
    found = _monitor(room)
    if found is not None and _is_ours(found, container):
        found.kill(signal.SIGKILL)
        found.wait(_PATIENCE)


def _is_ours(found: Process, container: str) -> bool:
    try:
        words = Path(f"/proc/{found.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.path.basename(words[0]) == b"conmon" and container.encode() in words


# exec


@attrs.define
class Session:
    """A command in a container that runs already, watched by a monitor of its own."""

    room: Path
    report: Any
    go: int

    def begin(self) -> None:
        """Whoever wanted to attach has; the command may run. CannotRun and its kin tell why it does not."""
        if self.go >= 0:
            os.write(self.go, b"\0")
            os.close(self.go)
            self.go = -1
        _pid(self.report)

    def wait(self) -> int:
        """Its exit code."""
        line = self.report.readline()
        code: int = _read(line).get("data", -1) if line else -1
        return code

    def close(self) -> None:
        """Stop listening; the command goes on."""
        self.report.close()
        if self.go >= 0:
            os.close(self.go)
            self.go = -1


def execute(  # noqa: PLR0913
    runtime: Runtime, container: str, room: Path, spec: Path, *, terminal: bool, interactive: bool, attach: bool
) -> Session:
    """A command is ready to run in the container; with `attach` it waits for `begin`."""
    words = [*_words(runtime, container, room), "--exec", "--exec-process-spec", str(spec)]
    words += ["--log-path", "none", *(["--terminal"] if terminal else [])]
    words += (["--stdin"] if interactive else []) + (["--exec-attach"] if attach else [])
    if not attach:
        return Session(room, _launch(words, room), -1)
    start_read, start_write = os.pipe()
    ready_read, ready_write = os.pipe()
    os.write(start_write, b"\0")  # it waits once before, and once after the socket is there
    try:
        report = _launch(words, room, {"_OCI_STARTPIPE": start_read, "_OCI_ATTACHPIPE": ready_write})
    except BaseException:
        os.close(start_write)
        os.close(ready_read)
        raise
    finally:
        os.close(start_read)
        os.close(ready_write)
    ready = os.read(ready_read, 4096)
    os.close(ready_read)
    if not ready:
        os.close(start_write)
        report.close()
        raise CannotRun("the monitor (conmon) ended without a word")
    return Session(room, report, start_write)

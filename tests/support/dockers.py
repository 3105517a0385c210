"""A docker daemon of its own for tests: what docker itself does and says is measured, not remembered."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from desk import Desk
from registries import RunningRegistry

# by their paths: whatever else is called docker on this machine may be of another version
CLIENT, DAEMON = Path("/usr/bin/docker"), Path("/usr/sbin/dockerd")
VERSION = "20.10."  # Debian 12's; the recorded session and the named differences are about this one
_PATIENCE = 60.0
_NO_NETWORK = (  # which would be this machine's, and everybody's
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-masq=false",
    "--ip-forward=false",
    "--userland-proxy=false",
)


@attrs.frozen
class RunningDocker:
    """A daemon, and what its client has to know."""

    environ: dict[str, str]

    def desk(self, place: Path) -> Desk:
        """A place to type at, with nobody logged in."""
        (place / "work").mkdir(parents=True)
        return Desk(place / "work", self.environ | {"DOCKER_CONFIG": f"{place}/logins"}, program=(str(CLIENT),))

    def clear(self) -> None:
        """No container, image or volume is left."""
        desk = Desk(Path("/"), self.environ, program=(str(CLIENT),))
        if left := desk.does("ps", "-aq").split():
            desk.does("rm", "-f", "-v", *left)
        desk.does("system", "prune", "-a", "-f", "--volumes")


@contextlib.contextmanager
def docker_daemon(place: Path, hub: RunningRegistry) -> Iterator[RunningDocker]:
    """A daemon (and its containerd) within the block, for which `hub` stands for docker.io.

    It has its own mounts, data, state and cgroups: nothing of them is left, and no other daemon is met.
    """
    for program in (CLIENT, DAEMON):
        if not program.exists():
            pytest.fail(f"{program} is not there; `make test` installs docker.io")
    parent = f"lamina-docker-{os.getpid()}"
    (place / "daemon.json").write_text(
        json.dumps({"registry-mirrors": [f"http://{hub.host}"], "cgroup-parent": f"/{parent}"})
    )
    running = RunningDocker(_environ() | {"DOCKER_HOST": f"unix://{place}/d"})
    daemon = _start(place)
    try:
        _await(running, daemon, place / "log")
        try:
            yield running
        finally:
            running.clear()
    finally:
        _end(daemon)
        _remove_groups(parent)


def _environ() -> dict[str, str]:
    """Ours without a proxy, which is not for loopback, and without whatever leads to another daemon."""
    kept = (name for name in os.environ if not (name.lower().endswith("_proxy") or name.startswith("DOCKER_")))
    return {name: os.environ[name] for name in kept}


def _start(place: Path) -> subprocess.Popen[bytes]:
    words: list[str | Path] = [
        DAEMON,
        "--config-file",
        place / "daemon.json",
        "--data-root",
        place / "data",
        "--exec-root",
        place / "x",
    ]
    words += ["--pidfile", place / "pid", "-H", f"unix://{place}/d", *_NO_NETWORK]
    # what the machine unmounts is unmounted for the daemon, too, but nobody sees what the daemon mounts
    within = ["unshare", "--mount", "--propagation", "slave", "setpriv", "--pdeathsig", "TERM"]
    with (place / "log").open("wb") as log:
        return subprocess.Popen([*within, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environ())


def _await(running: RunningDocker, daemon: subprocess.Popen[bytes], log: Path) -> None:
    argv: list[str | Path] = [CLIENT, "version", "--format", "{{.Server.Version}}"]
    deadline = time.monotonic() + _PATIENCE
    while True:
        told = subprocess.run(argv, env=running.environ, capture_output=True, text=True, check=False)
        if told.returncode == 0:
            assert told.stdout.startswith(VERSION), f"this is another docker: {told.stdout}"
            return
        assert daemon.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)  # there is nothing to wait on but its answer


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGTERM)  # it ends its containers and its containerd
    try:
        daemon.wait(_PATIENCE)
    finally:
        daemon.kill()
        daemon.wait()


def _remove_groups(parent: str) -> None:
    top = Path("/sys/fs/cgroup")
    for group in (top / parent, *(each / parent for each in top.iterdir())):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            group.rmdir()

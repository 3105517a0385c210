"""The whole session that docker's users know, typed through the real command line, and compared line by line.

`session.txt` is the session as docker prints it, both streams as a terminal shows them. Ids, digests, sizes, times and
ports stand as placeholders; so do widths of columns. Of the many lines that docker prints for a layer under way, the
last counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from desk import PROGRAM, Desk
from loops import btrfs_on_a_loop
from registries import PASSWORD, USER, RunningRegistry, htpasswd, registry, tool

pytestmark = pytest.mark.needs_root
HOUSE = Path(__file__).parents[2]
SESSION = (Path(__file__).parent / "session.txt").read_text()
DRIVERS = ("overlay", "vfs", "btrfs", "fuse")  # whatever the host itself can mount
OURS = (  # what lamina says besides, in words of its own
    re.compile(r"WARNING! The password is kept unencrypted in .*\n"),
    re.compile(r"A credential helper .* would keep it better\.\n"),
    # docker says nothing of a load's layers, unless on a terminal
    re.compile(r"(?:[0-9a-f]{12}: (?:Already exists|Load complete)\n)+(?=Loaded image)"),
    re.compile(r"lamina: container web goes on meanwhile: .*\n"),  # where the kernel gives us no freezer
)
PLACEHOLDERS = (
    (r"sha256:[0-9a-f]{64}\b", "<digest>"),
    (r"\b[0-9a-f]{64}\b", "<container>"),
    (r"\b[0-9a-f]{12}\b", "<id>"),
    (r"(?<=  )(?:\d+|About an?|Less than a) \w+ ago\b", "<age>"),
    (r"(?<=  )Up (?:\d+|About an?|Less than a) \w+\b", "Up <time>"),
    (r"(?<=  )[0-9.]+[kMG]?B\b", "<size>"),
    (r"(?<=size: )\d+$", "<number>"),
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    """Stands for docker.io, and has busybox."""
    place = tmp_path_factory.mktemp("hub")
    archive = place / "busybox.tar"
    subprocess.run([sys.executable, HOUSE / "demo/image.py", archive], check=True)
    with registry(place / "registry") as running:
        there = f"docker://{running.host}/library/busybox:latest"
        argv = [tool("skopeo"), "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{archive}", there]
        subprocess.run(argv, check=True)
        yield running


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[RunningRegistry]:
    """Lets in who is logged in."""
    with registry(tmp_path / "registry", auth=htpasswd(tmp_path / "auth")) as running:
        yield running


@pytest.fixture
def disk(driver: str, tmp_path: Path) -> Iterator[Path]:
    """Where the driver can keep layers."""
    with btrfs_on_a_loop(tmp_path) if driver == "btrfs" else contextlib.nullcontext(tmp_path) as place:
        yield place


@pytest.fixture
def desk(driver: str, disk: Path, tmp_path: Path, hub: RunningRegistry) -> Iterator[Desk]:
    """An empty store; what the session leaves running is removed."""
    (tmp_path / "work").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(f'[registries.hosts."docker.io"]\nmirrors = ["{hub.host}"]\n')
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}
    ours = {"LAMINA_DRIVER": driver, "LAMINA_ROOT": str(disk / "store"), "LAMINA_CONFIG": str(config)}
    desk = Desk(tmp_path / "work", clean | ours | {"DOCKER_CONFIG": str(tmp_path / "docker")})
    yield desk
    if left := desk.does("ps", "-aq").split():
        desk.does("rm", "-f", *left)


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_session_reads_as_dockers(desk: Desk, closed: RunningRegistry) -> None:
    known = {"<registry>": closed.host, "<port>": str(free_port())}

    told = "".join(f"$ {line}\n{said(desk, filled(line, known), known)}" for line in typed(SESSION))

    assert told.splitlines() == SESSION.splitlines()
    pushed = config_there(f"{closed.host}/ada/site:1")
    assert pushed["author"] == "Ada <ada@example.org>"
    assert pushed["config"]["Cmd"] == ["/bin/sh", "-c", "exec httpd -f -p 127.0.0.1:$PORT -h /www"]
    assert pushed["config"]["ExposedPorts"] == {"8080/tcp": {}}


def config_there(name: str) -> Any:
    """What the registry has, says skopeo."""
    argv = [tool("skopeo"), "inspect", "--config", "--tls-verify=false", f"--creds={USER}:{PASSWORD}"]
    return json.loads(subprocess.run([*argv, f"docker://{name}"], capture_output=True, check=True).stdout)


def typed(session: str) -> list[str]:
    return [line.removeprefix("$ ") for line in session.splitlines() if line.startswith("$ ")]


def filled(line: str, known: dict[str, str]) -> str:
    for placeholder, value in known.items():
        line = line.replace(placeholder, value)
    return line


def said(desk: Desk, line: str, known: dict[str, str]) -> str:
    """What it prints, with placeholders where no two runs agree."""
    program, *words = shlex.split(line)
    text = PROGRAMS[program](desk, words)
    for ours in OURS:
        text = ours.sub("", text)
    for placeholder, value in known.items():
        text = text.replace(value, placeholder)
    for pattern, placeholder in PLACEHOLDERS:
        text = re.sub(pattern, placeholder, text, flags=re.MULTILINE)
    return "".join(f"{each}\n" for each in map(narrow, text.splitlines()))


def narrow(line: str) -> str:
    """Columns stand three spaces apart, however wide their cells are; of an empty one nothing is seen."""
    return re.sub(r" {3,}", "   ", line)


def docker(desk: Desk, words: list[str]) -> str:
    """It is lamina that is typed, and it succeeds."""
    stdin = f"{PASSWORD}\n".encode() if "--password-stdin" in words else b""
    done = subprocess.run(
        [*PROGRAM, *words],
        cwd=desk.path,
        env=desk.environ,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, (words, done.stdout.decode())
    return done.stdout.decode()


def curl(_: Desk, words: list[str]) -> str:
    """The page, as soon as its server listens."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return httpx.get(words[-1], timeout=10, trust_env=False).text
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


PROGRAMS: dict[str, Callable[[Desk, list[str]], str]] = {"docker": docker, "curl": curl}


def free_port() -> int:
    """Below those that the kernel gives out by itself, so that nobody else comes by it until the container listens."""
    for port in random.SystemRandom().sample(range(20000, 32000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.fail("no port is free")

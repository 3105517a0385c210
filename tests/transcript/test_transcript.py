"""The whole session that docker's users know, typed through the real command line, and compared with docker's own.

`session.txt` is what docker prints, both streams as a terminal shows them, and so is `details.txt`, of what no driver
can change; a docker daemon is asked anew in each run.
Ids, digests, sizes, times and ports stand as placeholders; so do widths of columns. `[exit N]` is told unless N is 0.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from desk import Desk
from dockers import RunningDocker
from loops import btrfs_on_a_loop
from registries import PASSWORD, USER, RunningRegistry, htpasswd, registry, tool

pytestmark = pytest.mark.needs_root
SESSION, DETAILS = ((Path(__file__).parent / f"{name}.txt").read_text() for name in ("session", "details"))
DRIVERS = ("overlay", "vfs", "btrfs", "fuse")  # whatever the host itself can mount


@attrs.frozen
class Difference:
    """What one of the two prints, and the other by intent does not."""

    why: str
    pattern: str
    instead: str = ""


DOCKERS = (
    Difference(
        why="docker tells each step of a layer; which of them are seen is chance, so the last one counts",
        pattern=r"^([0-9a-f]{12}): .*\n(?=(?:.*\n)*?\1: )",
    ),
    Difference(
        why="the test's daemon is given no network, and says so; lamina gives none unless it is asked to",
        pattern=r"^WARNING: IPv4 forwarding is disabled\. Networking will not work\.\n",
    ),
    Difference(
        why="docker 20.10 links images to those they come from; lamina does not, nor do docker's newer stores",
        pattern=r"^(?<!COMMENT\n)[0-9a-f]{12}(?=   .*COPY poem)",
        instead="<missing>",
    ),
)
OURS = (
    Difference(
        why="a load that is logged tells what it did; docker does so on a terminal only",
        pattern=r"^(?:[0-9a-f]{12}: (?:Already exists|Load complete)\n)+(?=Loaded image)",
    ),
    Difference(
        why="where the kernel gives us no freezer, it is said that nothing was paused",
        pattern=r"^lamina: container web goes on meanwhile: .*\n",
    ),
)
PLACEHOLDERS = (
    (r"(?<= in )/\S+/config\.json\b", "<file>"),
    (r"sha256:[0-9a-f]{64}\b", "<digest>"),
    (r"\b[0-9a-f]{64}\b", "<container>"),
    (r"\b[0-9a-f]{12}\b", "<id>"),
    (r"(?<=  )(?:\d+|About an?|Less than a) \w+ ago\b", "<age>"),
    (r"(?<=Exited \(\d\) )(?:\d+|About an?|Less than a) \w+ ago\b", "<age>"),
    (r"(?<=  )Up (?:\d+|About an?|Less than a) \w+\b", "Up <time>"),
    (r"(?<=  )[0-9.]+[kMG]?B\b", "<size>"),
    (r"(?<=size: )\d+$", "<number>"),
)


@pytest.fixture
def disk(driver: str, tmp_path: Path) -> Iterator[Path]:
    """Where the driver can keep layers."""
    with btrfs_on_a_loop(tmp_path) if driver == "btrfs" else contextlib.nullcontext(tmp_path) as place:
        yield place


@pytest.fixture(scope="module")
def by_docker(daemon: RunningDocker, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """The lines of a session as docker has just printed them."""

    @functools.cache
    def lines(session: str) -> list[str]:
        place = tmp_path_factory.mktemp("by-docker")
        with registry(place / "registry", auth=htpasswd(place / "auth")) as closed:
            told = lines_of(session, daemon.desk(place / "desk"), closed, DOCKERS)
        daemon.clear()
        return told

    return lines


@pytest.mark.parametrize("session", [SESSION, DETAILS], ids=["session", "details"])
def test_what_is_recorded_is_what_docker_prints(session: str, by_docker: Callable[[str], list[str]]) -> None:
    assert by_docker(session) == session.splitlines()


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_session_reads_as_dockers(
    lamina: Desk, closed: RunningRegistry, by_docker: Callable[[str], list[str]]
) -> None:
    assert lines_of(SESSION, lamina, closed, OURS) == by_docker(SESSION)

    pushed = config_there(f"{closed.host}/ada/site:1")
    assert pushed["author"] == "Ada <ada@example.org>"
    assert pushed["config"]["Cmd"] == ["/bin/sh", "-c", "exec httpd -f -p 127.0.0.1:$PORT -h /www"]
    assert pushed["config"]["ExposedPorts"] == {"8080/tcp": {}}


def test_details_read_as_dockers(lamina: Desk, closed: RunningRegistry, by_docker: Callable[[str], list[str]]) -> None:
    assert lines_of(DETAILS, lamina, closed, OURS) == by_docker(DETAILS)


def lines_of(session: str, desk: Desk, closed: RunningRegistry, differences: tuple[Difference, ...]) -> list[str]:
    """All of the session: what is typed, and what is printed."""
    known = {"<registry>": closed.host, "<port>": str(free_port())}
    return [
        shown
        for line in typed(session)
        for shown in (f"$ {line}", *said(desk, filled(line, known), known, differences).splitlines())
    ]


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


def said(desk: Desk, line: str, known: dict[str, str], differences: tuple[Difference, ...]) -> str:
    """What it prints, with placeholders where no two runs agree."""
    program, *words = shlex.split(line)
    text = PROGRAMS[program](desk, words)
    for each in differences:
        text = re.sub(each.pattern, each.instead, text, flags=re.MULTILINE)
    for placeholder, value in known.items():
        text = text.replace(value, placeholder)
    for pattern, placeholder in PLACEHOLDERS:
        text = re.sub(pattern, placeholder, text, flags=re.MULTILINE)
    return "".join(f"{each}\n" for each in map(narrow, text.splitlines()))


def narrow(line: str) -> str:
    """Columns stand three spaces apart, however wide their cells are; of an empty one nothing is seen."""
    return re.sub(r" {3,}", "   ", line).rstrip(" ")


def docker(desk: Desk, words: list[str]) -> str:
    """Docker, or lamina in its place, is typed."""
    stdin = f"{PASSWORD}\n".encode() if "--password-stdin" in words else b""
    done = subprocess.run(
        [*desk.program, *words],
        cwd=desk.path,
        env=desk.environ,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=120,
    )
    return done.stdout.decode() + (f"[exit {done.returncode}]\n" if done.returncode else "")


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

"""What docker and lamina make of the usual mistakes, and of commands that fail: both are asked.

The words are lamina's own, one line that says what, which, and what to do. So are its exit codes, one for each kind of
error (`lamina.errors`), where docker has 1 for all; where docker's codes mean something, with `run`, they are the same.
"""

from __future__ import annotations

import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from desk import Desk
from registries import RunningRegistry

pytestmark = pytest.mark.needs_root
SAME_CODES = (  # a command, and how both end
    ("run --rm busybox true", 0),
    ("run --rm busybox false", 1),
    ("run --rm busybox sh -c 'exit 300'", 44),
    ("run --rm busybox nosuchcommand", 127),
    ("run --rm busybox /nosuch/command", 127),
    ("run --rm busybox /etc/motd", 126),
    ("run --rm busybox /etc", 126),
    ("run --rm -w /etc/motd busybox true", 125),
    ("run --rm -u nobody busybox true", 125),
    ("run --rm --network nosuch busybox true", 125),
    ("run --rm --memory 1m busybox true", 125),
    ("run --rm -v rel/x:/data busybox true", 125),
    ("run --rm -v one:/data -v two:/data busybox true", 125),
    ("run --rm --pull never busybox:nosuch true", 125),
    ("run --name ended busybox true", 125),  # the name is in use
    ("exec runner true", 0),
    ("exec runner sh -c 'exit 7'", 7),
    ("exec runner /etc/motd", 126),
    ("exec runner sh -c 'kill -9 $$'", 137),
    ("wait ended", 0),
    ("start ended", 0),
    ("stop ended", 0),
    ("rm -f nosuch", 0),
)
FAILURES = (  # a command, lamina's exit code, and what both name
    ("rmi nosuch", 4, "nosuch"),
    ("rmi busybox", 6, "busybox"),
    ("tag nosuch other", 4, "nosuch"),
    ("history nosuch", 4, "nosuch"),
    ("save -o out.tar nosuch", 4, "no"),
    ("load -i nosuch.tar", 1, "nosuch.tar"),
    ("push <registry>/nosuch:1", 4, "<registry>/nosuch"),
    ("push <registry>/box:1", 21, "credentials"),
    ("pull <registry>/nosuch:1", 21, "credentials"),
    ("inspect nosuch", 4, "nosuch"),
    ("container inspect nosuch", 4, "nosuch"),
    ("image inspect nosuch", 4, "nosuch"),
    ("start nosuch", 4, "nosuch"),
    ("stop nosuch", 4, "nosuch"),
    ("kill nosuch", 4, "nosuch"),
    ("kill ended", 2, "not running"),
    ("kill -s NOSUCH runner", 2, "NOSUCH"),
    ("pause ended", 2, "not running"),
    ("unpause runner", 2, "not paused"),
    ("wait nosuch", 4, "nosuch"),
    ("logs nosuch", 4, "nosuch"),
    ("diff nosuch", 4, "nosuch"),
    ("export nosuch", 4, "nosuch"),
    ("commit nosuch", 4, "nosuch"),
    ("commit -c 'FROM x' ended", 2, "from"),
    ("cp nosuch:/etc .", 4, "nosuch"),
    ("cp ended:/nosuch .", 4, "/nosuch"),
    ("rename nosuch other", 4, "nosuch"),
    ("rename ended runner", 5, "runner"),
    ("rename ended ended", 5, "ended"),
    ("rm nosuch", 4, "nosuch"),
    ("rm runner", 6, "running"),
    ("attach ended", 2, ""),
    ("volume inspect nosuch", 4, "nosuch"),
    ("volume rm nosuch", 4, "nosuch"),
    ("volume rm used", 6, "used"),
    # so that they are not taken for those of the command
    ("exec nosuch true", 125, "nosuch"),
    ("exec ended true", 125, "not running"),
)
LATER_DOCKERS = {"exec runner nosuchcommand": (126, 127)}  # 20.10's code, and that of later ones and `run`
PRINTED_OTHERWISE = {
    # docker says where it goes before it looks what is here
    "push <registry>/nosuch:1",
    "push <registry>/box:1",  # and which layers it prepares
    # docker writes the runtime's refusal where the command would have written
    "exec runner /etc/motd",
    "exec runner nosuchcommand",
}


@pytest.fixture
def both(docker: Desk, lamina: Desk, closed: RunningRegistry) -> tuple[Desk, Desk]:
    """Docker and lamina with images, a container that has ended and one that runs."""
    for desk in (docker, lamina):
        desk.does("pull", "-q", "busybox")
        desk.does("run", "--name", "ended", "-v", "used:/data", "busybox", "true")
        desk.does("run", "-d", "--name", "runner", "busybox", "sleep", "1000")
        desk.does("commit", "ended", f"{closed.host}/box:1")
    return docker, lamina


def test_commands_that_fail_end_as_with_docker(both: tuple[Desk, Desk], closed: RunningRegistry) -> None:
    codes = {line: (code, code) for line, code in SAME_CODES} | LATER_DOCKERS
    codes |= {line: (1, code) for line, code, _ in FAILURES}
    words = {line: word.replace("<registry>", closed.host).lower() for line, _, word in FAILURES}

    with ThreadPoolExecutor() as pool:
        theirs, ours = pool.map(lambda desk: [run(desk, line, closed) for line in codes], both)

    ends = {line: (one.returncode, other.returncode) for line, one, other in zip(codes, theirs, ours, strict=True)}
    assert ends == codes
    for told in (theirs, ours):
        heard = {line: each.stderr.decode().lower() for line, each in zip(codes, told, strict=True)}
        assert [line for line, word in words.items() if word not in heard[line]] == []
    printed = {line: (one.stdout, other.stdout) for line, one, other in zip(codes, theirs, ours, strict=True)}
    assert {line for line, (one, other) in printed.items() if one != other} <= PRINTED_OTHERWISE


def run(desk: Desk, line: str, closed: RunningRegistry) -> subprocess.CompletedProcess[bytes]:
    return desk.run(*shlex.split(line.replace("<registry>", closed.host)))

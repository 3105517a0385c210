"""A real containerd pulls, runs, commits and collects garbage on our drivers, also when one of the two is killed."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from lane import Lane, until

pytestmark = [pytest.mark.needs_root]

NAME = "docker.io/demo/busybox:latest"
ON_LAMINA = ("--snapshotter", "lamina")


def load(lane: Lane, archive: Path) -> None:
    """Also while containerd has not seen yet that the service is back: it looks again after a second."""
    until(lambda: lane.tries("images", "import", *ON_LAMINA, archive).returncode == 0, "the image is unpacked")


def run(lane: Lane, box: str, *command: str) -> str:
    return lane.ctr("run", "--rm", *ON_LAMINA, NAME, box, *command)


def assert_nothing_leaked(lane: Lane) -> None:
    """With no image and no lease in any namespace, nothing is stored any more."""
    for namespace in lane.ctr("namespaces", "ls", "--quiet").split():
        for kind in ("leases", "images"):
            for name in lane.ctr(kind, "ls", "--quiet", namespace=namespace).split():
                lane.ctr(kind, "rm", "--sync", name, namespace=namespace)
    with lane.client() as ask:
        until(lambda: not ask.list(), "containerd has collected everything")
    assert lane.stored() == set()


def test_an_image_is_unpacked_run_committed_and_collected(lane: Lane, archive: Path) -> None:
    load(lane, archive)
    assert run(lane, "one", "/bin/cat", "/etc/motd") == "hello from the second layer\n"

    lane.ctr("run", *ON_LAMINA, NAME, "two", "/bin/sh", "-c", "echo changed > /etc/motd; rm /usr/share/poem")
    lane.ctr("snapshots", *ON_LAMINA, "commit", "changed", "two")
    lane.ctr("containers", "rm", "two")
    diff = lane.octets("snapshots", *ON_LAMINA, "diff", "changed")
    with tarfile.open(fileobj=io.BytesIO(diff)) as tar:
        assert {"etc/motd", "usr/share/.wh.poem"} <= set(tar.getnames())

    lane.ctr("snapshots", *ON_LAMINA, "rm", "changed")
    assert_nothing_leaked(lane)


@pytest.mark.parametrize("victim", ["service", "daemon"])
def test_a_server_that_is_killed_in_the_middle_of_an_unpack_loses_and_leaks_nothing(
    lane: Lane, archive: Path, victim: str
) -> None:
    argv: list[str | Path] = [
        "ctr",
        "--address",
        lane.room / "c.sock",
        "--namespace",
        "cut",
        "images",
        "import",
        *ON_LAMINA,
        archive,
    ]
    unpacking = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with lane.client() as ask:
        until(lambda: "extract-" in " ".join(one.name for one in ask.list()), "a layer is being unpacked")
        lane.kill(lane.service if victim == "service" else lane.daemon)
    unpacking.wait(60)

    lane.serve() if victim == "service" else lane.contain()
    load(lane, archive)

    assert run(lane, "box", "/bin/cat", "/usr/share/poem").startswith("One layer upon another")
    assert_nothing_leaked(lane)


def test_a_service_that_was_killed_finds_every_snapshot_again_while_a_container_runs(lane: Lane, archive: Path) -> None:
    load(lane, archive)
    lane.ctr("run", "--detach", *ON_LAMINA, NAME, "box", "/bin/sleep", "600")
    with lane.client() as ask:
        before = {one.name: one for one in ask.list()}

    lane.kill(lane.service)
    lane.serve()

    with lane.client() as ask:
        assert {one.name: one for one in ask.list()} == before
    words = ("tasks", "exec", "--exec-id", "look", "box", "/bin/cat", "/etc/motd")
    assert lane.ctr(*words) == "hello from the second layer\n"
    until(lambda: lane.tries("snapshots", *ON_LAMINA, "ls").returncode == 0, "containerd has seen that we are back")
    lane.ctr("tasks", "rm", "--force", "box")
    lane.ctr("containers", "rm", "box")
    assert_nothing_leaked(lane)

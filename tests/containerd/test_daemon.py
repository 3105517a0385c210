"""A real containerd pulls, runs, commits and collects garbage on our drivers, also when one of the two is killed."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lane import Client, Lane, until
from mounting import mounted

from lamina.mount import mountinfo
from lamina_fuse.life import pid_of

pytestmark = [pytest.mark.needs_root, pytest.mark.on("all")]

NAME = "docker.io/demo/busybox:latest"
ON_LAMINA = ("--snapshotter", "lamina")


def load(lane: Lane, archive: Path) -> None:
    """Also while containerd has not seen yet that the service is back: it looks again after a second."""
    until(lambda: lane.tries("images", "import", *ON_LAMINA, archive).returncode == 0, "the image is unpacked")


def run(lane: Lane, box: str, *command: str) -> str:
    return lane.ctr("run", "--rm", *ON_LAMINA, NAME, box, *command)


def start(lane: Lane, box: str) -> None:
    lane.ctr("run", "--detach", *ON_LAMINA, NAME, box, "/bin/sleep", "600")


def look(lane: Lane, box: str) -> str:
    """What a running container sees."""
    return lane.ctr("tasks", "exec", "--exec-id", "look", box, "/bin/cat", "/etc/motd")


def stop(lane: Lane, box: str) -> None:
    lane.ctr("tasks", "rm", "--force", box)
    lane.ctr("containers", "rm", box)


def key_of(ask: Client, box: str) -> str:
    """What the container's snapshot is called in our store: containerd puts its namespace and a number before it."""
    (key,) = (one.name for one in ask.list() if one.name.endswith(f"/{box}"))
    return str(key)


def servers(lane: Lane) -> dict[str, int]:
    """The processes that serve layers, by layer."""
    found = {path.name: pid_of(path) for path in lane.layers.iterdir() if path.name.isdecimal()}
    return {layer: pid for layer, pid in found.items() if pid is not None}


def assert_nothing_leaked(lane: Lane) -> None:
    """With no image and no lease in any namespace, nothing is stored any more."""
    for namespace in lane.ctr("namespaces", "ls", "--quiet").split():
        for kind in ("leases", "images"):
            for name in lane.ctr(kind, "ls", "--quiet", namespace=namespace).split():
                lane.ctr(kind, "rm", "--sync", name, namespace=namespace)
    with lane.client() as ask:
        until(lambda: not ask.list(), "containerd has collected everything")
    until(lambda: not lane.stored(), "what containerd has collected is gone from the disk, too")


def test_an_image_is_imported_pulled_run_committed_and_collected(lane: Lane, archive: Path, published: str) -> None:
    load(lane, archive)
    assert run(lane, "one", "/bin/cat", "/etc/motd") == "hello from the second layer\n"
    lane.ctr("images", "rm", "--sync", NAME)
    with lane.client() as ask:
        until(lambda: not ask.list(), "what was imported is collected")

    lane.ctr("images", "pull", "--plain-http", *ON_LAMINA, published)
    lane.ctr("run", *ON_LAMINA, published, "two", "/bin/sh", "-c", "echo changed > /etc/motd; rm /usr/share/poem")
    lane.ctr("snapshots", *ON_LAMINA, "commit", "changed", "two")
    lane.ctr("containers", "rm", "two")
    diff = lane.octets("snapshots", *ON_LAMINA, "diff", "changed")
    with tarfile.open(fileobj=io.BytesIO(diff)) as tar:
        assert {"etc/motd", "usr/share/.wh.poem"} <= set(tar.getnames())

    lane.ctr("snapshots", *ON_LAMINA, "rm", "changed")
    assert_nothing_leaked(lane)


def test_fifty_snapshots_are_prepared_and_removed_by_eight_threads_through_containerd(lane: Lane) -> None:
    kept = {"containerd.io/gc.root": "until it is removed"}  # else containerd may collect what nobody refers to

    with lane.through_containerd() as ask, ThreadPoolExecutor(8) as threads:
        ask("Prepare", key="key", labels=kept)
        ask("Commit", name="base", key="key", labels=kept)

        def live(number: int) -> None:
            ask("Prepare", key=f"key-{number}", parent="base", labels=kept)
            assert ask("Mounts", key=f"key-{number}").mounts
            ask("Remove", key=f"key-{number}")

        list(threads.map(live, range(50)))
        ask("Remove", key="base")

    assert_nothing_leaked(lane)


@pytest.mark.on("overlay")
def test_labels_come_as_far_as_containerd_lets_them(lane: Lane, archive: Path) -> None:
    load(lane, archive)
    color = "containerd.io/snapshot/color"
    given = [word for label in (f"{color}=red", "taste=sour") for word in ("--snapshotter-label", label)]
    lane.ctr("run", *ON_LAMINA, *given, NAME, "box", "/bin/true")

    with lane.client() as ask:
        key = key_of(ask, "box")
        assert dict(ask("Stat", key=key).info.labels) == {color: "red"}
        lane.ctr("snapshots", *ON_LAMINA, "label", "box", f"{color}=blue", "taste=sweet")
        assert dict(ask("Stat", key=key).info.labels) == {color: "blue"}
    assert re.fullmatch(rf"{lane.namespace}/\d+/box", key)
    lane.ctr("containers", "rm", "box")
    assert_nothing_leaked(lane)


@pytest.mark.on("overlay")
def test_an_error_of_ours_reaches_the_user_as_the_one_that_containerd_calls_so(lane: Lane) -> None:
    def told(*words: str) -> str:
        answer = lane.tries("snapshots", *ON_LAMINA, *words)
        assert answer.returncode != 0
        return answer.stderr.decode()

    for key in ("active", "frozen", "lost"):
        lane.ctr("snapshots", *ON_LAMINA, "prepare", key)
    lane.ctr("snapshots", *ON_LAMINA, "commit", "base", "frozen")
    with lane.client() as ask:
        ask("Remove", key=key_of(ask, "lost"))

    assert "not found" in told("usage", "lost")
    assert "invalid argument" in told("prepare", "child", "active")
    assert "failed precondition" in told("mounts", "/mnt", "base")
    lane.kill(lane.service)
    assert "unavailable" in told("usage", "active")


@pytest.mark.parametrize("victim", ["service", "daemon"])
def test_a_server_that_is_killed_in_the_middle_of_an_unpack_loses_and_leaks_nothing(
    lane: Lane, archive: Path, victim: str
) -> None:
    argv = lane.words("images", "import", *ON_LAMINA, archive, namespace="cut")
    unpacking = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with lane.client() as ask:
        # a small layer may be there between two looks: then it is the end that it is killed at
        until(
            lambda: unpacking.poll() is not None or any("extract-" in one.name for one in ask.list()),
            "a layer is being unpacked",
        )
        lane.kill(lane.service if victim == "service" else lane.daemon)
    unpacking.wait(60)

    lane.serve() if victim == "service" else lane.contain()
    load(lane, archive)

    assert run(lane, "box", "/bin/cat", "/usr/share/poem").startswith("One layer upon another")
    assert_nothing_leaked(lane)


def test_a_service_that_was_killed_finds_every_snapshot_again_while_a_container_runs(lane: Lane, archive: Path) -> None:
    load(lane, archive)
    start(lane, "box")
    with lane.client() as ask:
        before = {one.name: one for one in ask.list()}

    lane.kill(lane.service)
    assert look(lane, "box") == "hello from the second layer\n"
    lane.serve()

    with lane.client() as ask:
        assert {one.name: one for one in ask.list()} == before
    assert look(lane, "box") == "hello from the second layer\n"
    until(lambda: lane.tries("snapshots", *ON_LAMINA, "ls").returncode == 0, "containerd has seen that we are back")
    stop(lane, "box")
    assert_nothing_leaked(lane)


@pytest.mark.on("fuse")
def test_a_server_of_a_layer_outlives_the_service_and_goes_with_its_snapshot(lane: Lane, archive: Path) -> None:
    load(lane, archive)
    start(lane, "box")
    before = servers(lane)

    lane.kill(lane.service)
    lane.serve()
    until(lambda: lane.tries("snapshots", *ON_LAMINA, "ls").returncode == 0, "containerd has seen that we are back")

    assert len(before) == 1
    assert servers(lane) == before
    stop(lane, "box")
    assert_nothing_leaked(lane)
    assert servers(lane) == {}


@pytest.mark.on("fuse")
def test_a_server_that_was_killed_with_the_service_is_brought_back_with_all_that_was_written(
    lane: Lane, archive: Path
) -> None:
    load(lane, archive)
    lane.ctr("run", *ON_LAMINA, NAME, "box", "/bin/sh", "-c", "echo changed > /etc/motd")
    ((layer, killed),) = servers(lane).items()

    lane.kill(lane.service)
    os.kill(killed, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{killed}").exists(), "the server is dead")
    lane.serve()
    until(lambda: lane.tries("snapshots", *ON_LAMINA, "ls").returncode == 0, "containerd has seen that we are back")

    lane.ctr("tasks", "start", "box")
    assert servers(lane).keys() == {layer}
    assert servers(lane)[layer] != killed
    with lane.client() as ask, mounted(ask("Mounts", key=key_of(ask, "box")), lane.room / "place") as root:
        assert (root / "etc/motd").read_text() == "changed\n"
    lane.ctr("containers", "rm", "box")
    assert_nothing_leaked(lane)


@pytest.mark.on("fuse")
def test_a_union_is_served_at_a_place_of_its_own_and_lent_as_a_bind_mount(lane: Lane, archive: Path) -> None:
    load(lane, archive)
    start(lane, "box")
    with lane.client() as ask:
        (lent,) = ask("Mounts", key=key_of(ask, "box")).mounts

    assert (lent.type, lent.options) == ("bind", ["rbind", "rw"])
    assert Path(lent.source).is_relative_to(lane.layers)
    assert [point.type for point in mountinfo() if point.target == os.fsencode(lent.source)] == [b"fuse.lamina"]
    stop(lane, "box")
    assert_nothing_leaked(lane)

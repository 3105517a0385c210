"""The rules of containerd's snapshotters, through the socket; each mount is done by mount(8), not by us."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from lane import Client, Lane, until

from lamina import errors
from lamina.containerd.api import snapshots_pb2 as api
from lamina.containerd.status import CODES, code_of

pytestmark = pytest.mark.needs_root


@pytest.fixture
def ask(served: Lane) -> Iterable[Client]:
    with served.client() as client:
        yield client


def refused(code: str, call: Any, *words: Any, **fields: Any) -> str:
    with pytest.raises(grpc.RpcError) as told:
        call(*words, **fields)
    assert told.value.code().name == code
    return str(told.value.details())


def mount(answer: Any, place: Path) -> Path:
    place.mkdir(exist_ok=True)
    for each in answer.mounts:
        kind = ["-t", each.type] if each.type != "bind" else []
        subprocess.run(["mount", *kind, "-o", ",".join(each.options), each.source, place], check=True)
    return place


def unmount(place: Path) -> None:
    subprocess.run(["umount", place], check=True)


def grow(ask: Client, served: Lane, name: str, parent: str = "", **files: str) -> None:
    place = mount(ask("Prepare", key=f"{name}-key", parent=parent), served.room / "place")
    for file, text in files.items():
        (place / file).write_text(text)
    unmount(place)
    ask("Commit", name=name, key=f"{name}-key")


def test_a_child_shows_its_parent_and_a_view_cannot_be_written(ask: Client, served: Lane) -> None:
    grow(ask, served, "base", one="1", two="2")
    grow(ask, served, "child", "base", two="changed")

    place = mount(ask("View", key="look", parent="child"), served.room / "look")

    assert {path.name: path.read_text() for path in place.iterdir()} == {"one": "1", "two": "changed"}
    with pytest.raises(OSError, match="Read-only"):
        (place / "three").touch()
    unmount(place)
    assert "remove" in refused("FAILED_PRECONDITION", ask, "Remove", key="base")
    for name in ("look", "child", "base"):
        ask("Remove", key=name)
    assert served.stored() == set()


def test_what_was_prepared_is_told_with_kind_parent_labels_and_times(ask: Client) -> None:
    before = datetime.now(UTC)
    ask("Prepare", key="key", labels={"containerd.io/snapshot/a": "1", "empty": ""})
    ask("Commit", name="base", key="key", labels={"b": "2"})
    ask("View", key="look", parent="base")

    base, look = ask("Stat", key="base").info, ask("Stat", key="look").info

    assert (base.kind, base.parent, dict(base.labels)) == (api.COMMITTED, "", {"b": "2"})
    assert (look.kind, look.parent, dict(look.labels)) == (api.VIEW, "base", {})
    assert before <= base.created_at.ToDatetime(UTC) <= datetime.now(UTC)
    assert base.created_at == base.updated_at
    assert ask.list() == [base, look]


def test_errors_have_the_codes_that_containerd_knows(ask: Client) -> None:
    ask("Prepare", key="active")
    ask("Prepare", key="next")
    ask("Commit", name="base", key="next")

    refused("NOT_FOUND", ask, "Stat", key="nobody")
    refused("NOT_FOUND", ask, "Prepare", key="new", parent="nobody")
    refused("NOT_FOUND", ask, "Remove", key="nobody")
    refused("ALREADY_EXISTS", ask, "View", key="active", parent="base")
    refused("ALREADY_EXISTS", ask, "Commit", name="base", key="active")
    refused("INVALID_ARGUMENT", ask, "Prepare", key="")
    refused("INVALID_ARGUMENT", ask, "Prepare", key="new", parent="active")
    refused("FAILED_PRECONDITION", ask, "Commit", name="new", key="base")
    refused("FAILED_PRECONDITION", ask, "Mounts", key="base")
    refused("INVALID_ARGUMENT", ask.list, "name=oops")


def test_every_error_of_ours_has_a_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LaminaError)]

    vague = {kind.__name__ for kind in kinds if code_of(kind.__new__(kind)) is CODES[errors.LaminaError]}

    assert vague == {"LaminaError"}


def test_an_update_changes_what_its_mask_names(ask: Client) -> None:
    ask("Prepare", key="key", labels={"l1": "v1", "l2": "v2", "l3": "v3"})
    created = ask("Stat", key="key").info.created_at

    def update(labels: dict[str, str], *paths: str) -> dict[str, str]:
        info = ask(
            "Update", info={"name": "key", "labels": labels, "parent": "nobody"}, update_mask={"paths": paths}
        ).info
        assert (info.created_at, info.parent) == (created, "")
        return dict(info.labels)

    assert update({"l1": "new", "l4": "v4"}, "labels.l1", "labels.l2") == {"l1": "new", "l3": "v3"}
    assert update({"l4": "v4"}, "labels") == {"l4": "v4"}
    assert update({"l5": "v5"}) == {"l5": "v5"}
    assert refused("INVALID_ARGUMENT", update, {}, "parent")


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (['labels."containerd.io/gc.root"==walk'], {"active", "base", "view"}),
        (["kind==active"], {"active"}),
        (["name==base", "name==view"], {"base", "view"}),
        (['parent!=""'], {"view"}),
        (["size==3"], set()),
        ([], {"active", "base", "view"}),
    ],
)
def test_a_listing_knows_the_filters_of_containerd(ask: Client, filters: list[str], wanted: set[str]) -> None:
    labels = {"containerd.io/gc.root": "walk"}
    ask("Prepare", key="key", labels=labels)
    ask("Commit", name="base", key="key", labels=labels)
    ask("Prepare", key="active", labels=labels)
    ask("View", key="view", parent="base", labels=labels)

    assert {one.name for one in ask.list(*filters)} == wanted


def test_a_long_listing_comes_in_whole(ask: Client) -> None:
    for number in range(205):
        ask("View", key=f"key-{number}")

    assert len(ask.list()) == 205


def test_usage_counts_what_the_snapshot_alone_occupies(ask: Client, served: Lane) -> None:
    grow(ask, served, "base", file="x" * 100_000)

    told = ask("Usage", key="base")

    assert told.size >= 100_000
    assert told.inodes >= 1


def test_fifty_snapshots_are_prepared_and_removed_by_eight_threads(ask: Client, served: Lane) -> None:
    grow(ask, served, "base", file="text")

    def live(number: int) -> None:
        ask("Prepare", key=f"key-{number}", parent="base")
        assert ask("Mounts", key=f"key-{number}").mounts
        ask("Remove", key=f"key-{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(live, range(50)))

    assert [one.name for one in ask.list()] == ["base"]
    assert len(served.stored()) == 1


def test_the_root_of_a_new_snapshot_can_be_entered_by_all(ask: Client, served: Lane) -> None:
    place = mount(ask("Prepare", key="key"), served.room / "place")

    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    unmount(place)


def test_cleaning_up_is_always_possible(ask: Client) -> None:
    ask("Cleanup")
    ask("Cleanup")


def test_the_socket_is_its_owners_and_nobody_else_serves_there(served: Lane) -> None:
    argv: list[str | Path] = [
        sys.executable,
        "-m",
        "lamina.cli.main",
        "--driver",
        "vfs",
        "--root",
        served.room / "other",
    ]

    told = subprocess.run([*argv, "serve", "--address", served.socket], capture_output=True, text=True, check=False)

    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o600
    assert (told.returncode, "another service listens" in told.stderr) == (errors.InUse.exit_code, True)


def test_it_tells_its_health(ask: Client) -> None:
    for name in ("", "containerd.services.snapshots.v1.Snapshots"):
        assert HealthStub(ask.channel).Check(HealthCheckRequest(service=name)).status == HealthCheckResponse.SERVING


def test_prometheus_hears_of_calls_errors_and_bytes(served: Lane) -> None:
    served.end()
    served.serve("--metrics", "127.0.0.1:0")
    port = (served.room / "log").read_text().rpartition("metrics at port ")[2].split()[0]
    with served.client() as ask:
        ask("Prepare", key="key")
        refused("NOT_FOUND", ask, "Stat", key="nobody")

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        told = answer.read().decode()

    name = served.driver
    assert f'lamina_calls_total{{call="Prepare",code="OK",driver="{name}"}} 1.0' in told
    assert f'lamina_calls_total{{call="Stat",code="NOT_FOUND",driver="{name}"}} 1.0' in told
    assert f'lamina_call_seconds_count{{call="Prepare",driver="{name}"}} 1.0' in told
    assert f'lamina_snapshots{{driver="{name}",kind="active"}} 1.0' in told
    assert f'lamina_bytes{{driver="{name}",kind="committed"}} 0.0' in told


def test_systemd_may_listen_for_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    room = tmp_path_factory.mktemp("a")
    argv: list[str | Path] = [
        sys.executable,
        "-m",
        "lamina.cli.main",
        "--driver",
        "vfs",
        "--root",
        room / "store",
        "serve",
    ]
    setenv = [f"--setenv={name}" for name in ("PATH", "HOME") if name in os.environ]
    activate: list[str | Path] = ["systemd-socket-activate", *setenv, "--listen", room / "s.sock", *argv]
    with (room / "log").open("wb") as log, subprocess.Popen(activate, stdout=log, stderr=log) as service:
        until((room / "s.sock").exists, "systemd listens")
        client = Client(room / "s.sock")
        client("Prepare", key="key")

        assert [one.name for one in client.list()] == ["key"]
        client.channel.close()
        service.terminate()
        assert service.wait(30) == 0, (room / "log").read_text()

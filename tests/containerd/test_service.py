"""The service on its socket: calls, codes, labels, listings, health, metrics, and systemd's socket."""

from __future__ import annotations

import stat
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from lane import Client, Lane, refused
from mounting import grow

from lamina import errors
from lamina.containerd.api import snapshots_pb2 as api
from lamina.containerd.status import CODES, code_of

# rules that no driver has a part in; see test_rules.py for the others
pytestmark = [pytest.mark.needs_root, pytest.mark.on("overlay")]


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


def family(ask: Client, labels: dict[str, str]) -> None:
    """Two generations of each kind."""
    for name, parent in (("c1", ""), ("c2", "c1")):
        ask("Prepare", key=f"{name}-key", parent=parent, labels=labels)
        ask("Commit", name=name, key=f"{name}-key", labels=labels)
    for call, name, parent in (
        ("Prepare", "a1", "c2"),
        ("Prepare", "a2", ""),
        ("View", "v1", "c2"),
        ("View", "v2", ""),
    ):
        ask(call, key=name, parent=parent, labels=labels)


@pytest.mark.parametrize("name", ["c1", "c2", "a1", "a2", "v1", "v2"])
def test_an_update_changes_what_its_mask_names(ask: Client, name: str) -> None:
    family(ask, {"l1": "v1", "l2": "v2", "l3": "v3"})
    first = ask("Stat", key=name).info

    def update(labels: dict[str, str], *paths: str) -> dict[str, str]:
        changed = {"name": name, "labels": labels, "parent": "nobody", "kind": api.UNKNOWN}
        info = ask("Update", info=changed, update_mask={"paths": paths}).info
        assert (info.created_at, info.parent, info.kind) == (first.created_at, first.parent, first.kind)
        assert info.updated_at.ToNanoseconds() > first.updated_at.ToNanoseconds()
        return dict(info.labels)

    assert first.created_at == first.updated_at
    assert update({"l1": "new", "l4": "v4"}, "labels.l1", "labels.l2") == {"l1": "new", "l3": "v3"}
    assert update({"l4": "v4"}, "labels") == {"l4": "v4"}
    assert update({"l5": "v5"}) == {"l5": "v5"}
    assert refused("INVALID_ARGUMENT", update, {}, "parent")


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (['labels."containerd.io/gc.root"==walk'], "a1 a2 c1 c2 v1 v2"),
        (['kind==active,labels."containerd.io/gc.root"==walk'], "a1 a2"),
        (["kind==view"], "v1 v2"),
        (["kind==committed", "name==v2"], "c1 c2 v2"),
        (["parent==c1"], "c2"),
        (['parent!=""'], "a1 c2 v1"),
        (["name~=/^[av]1/"], "a1 v1"),
        (["labels.absent"], ""),
        (["size==3"], ""),
        ([], "a1 a2 c1 c2 v1 v2"),
    ],
)
def test_a_listing_knows_the_filters_of_containerd(ask: Client, filters: list[str], wanted: str) -> None:
    family(ask, {"containerd.io/gc.root": "walk"})

    assert sorted(one.name for one in ask.list(*filters)) == wanted.split()


def test_whoever_is_told_a_list_may_ask_for_each_meanwhile(ask: Client) -> None:
    family(ask, {})

    told = [(one, ask("Stat", key=one.name).info) for one in ask.walk()]

    assert len(told) == 6
    assert all(one == asked for one, asked in told)


def test_a_long_listing_comes_in_whole(ask: Client) -> None:
    for number in range(205):
        ask("View", key=f"key-{number}")

    assert len(ask.list()) == 205


@pytest.mark.on("quick")
def test_usage_counts_what_the_snapshot_alone_occupies(ask: Client, served: Lane) -> None:
    grow(ask, "base", "", served.room / "place", lambda root: (root / "file").write_text("x" * 100_000))

    told = ask("Usage", key="base")

    assert told.size >= 100_000
    assert told.inodes >= 1


@pytest.mark.on("quick")
def test_fifty_snapshots_are_prepared_and_removed_by_eight_threads(ask: Client, served: Lane) -> None:
    grow(ask, "base", "", served.room / "place", lambda root: (root / "file").write_text("text"))

    def live(number: int) -> None:
        ask("Prepare", key=f"key-{number}", parent="base")
        assert ask("Mounts", key=f"key-{number}").mounts
        ask("Remove", key=f"key-{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(live, range(50)))

    assert [one.name for one in ask.list()] == ["base"]
    assert len(served.stored()) == 1


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

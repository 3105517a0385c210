"""An image that a container needs and the store has not is pulled from a real registry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from desk import Desk
from registries import RunningRegistry, publish, registry

from lamina.images.manifest import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, digest_of

pytestmark = pytest.mark.needs_root
HOUSE = Path(__file__).parents[2]


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[RunningRegistry]:
    """A registry that has demo/box:latest."""
    archive = tmp_path / "busybox.tar"
    subprocess.run([sys.executable, HOUSE / "demo/image.py", archive], check=True)
    with registry(tmp_path / "registry") as running:
        publish(archive, f"{running.host}/demo/box:latest")
        yield running


@pytest.fixture
def desk(tmp_path: Path, plain: RunningRegistry) -> Desk:
    """An empty store, where `short` means the registry's image."""
    (tmp_path / "work").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(f'[registries.names]\nshort = "{plain.host}/demo/box"\n')
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}
    ours = {"LAMINA_DRIVER": "vfs", "LAMINA_ROOT": str(tmp_path / "store"), "LAMINA_CONFIG": str(config)}
    return Desk(tmp_path / "work", clean | ours | {"DOCKER_CONFIG": str(tmp_path / "docker")})


def test_a_missing_image_is_pulled_and_stdout_stays_the_command_s(desk: Desk, plain: RunningRegistry) -> None:
    name = f"{plain.host}/demo/box"

    told = desk.run("run", "--rm", name, "cat", "/etc/motd")

    assert (told.returncode, told.stdout) == (0, b"hello from the second layer\n")
    first, second, *layers, digest, status = told.stderr.decode().splitlines()
    assert first == f"Unable to find image '{name}:latest' locally"
    assert second == "latest: Pulling from demo/box"
    assert [line.partition(": ")[2] for line in layers] == ["Pull complete"] * 3
    assert re.fullmatch(r"Digest: sha256:[0-9a-f]{64}", digest)
    assert status == f"Status: Downloaded newer image for {name}:latest"
    again = desk.run("run", "--rm", name, "true")
    assert (again.returncode, again.stderr) == (0, b"")


def test_a_short_name_is_pulled_once_and_known_from_then_on(desk: Desk, plain: RunningRegistry) -> None:
    made = desk.run("create", "--name", "one", "short")
    plain.stop()
    again = desk.run("create", "--name", "two", "short")

    assert (made.returncode, made.stderr.splitlines()[0]) == (0, b"Unable to find image 'short:latest' locally")
    assert re.fullmatch(rb"[0-9a-f]{64}\n", made.stdout)
    assert (again.returncode, again.stderr) == (0, b"")


def test_pull_says_when(desk: Desk, plain: RunningRegistry) -> None:
    name = f"{plain.host}/demo/box"

    assert "no image" in desk.fails("create", "--pull", "never", name)[1]
    assert desk.run("create", "-q", name).stderr == b""
    told = desk.run("create", "--pull", "always", name).stderr.decode().splitlines()
    assert told[0] == "latest: Pulling from demo/box"
    assert told[-1] == f"Status: Image is up to date for {name}:latest"


def test_the_image_for_another_platform_is_pulled_when_it_is_asked_for(desk: Desk, plain: RunningRegistry) -> None:
    name = f"{plain.host}/demo/box"
    add_platform(plain.host, "s390x")
    desk.does("pull", "-q", name)

    code, line = desk.fails("create", "--pull", "never", "--platform", "linux/s390x", name)
    made = desk.run("create", "--platform", "linux/s390x", name)

    assert (code, "not for linux/s390x" in line) == (4, True)
    assert made.stderr.splitlines()[0].startswith(b"Unable to find image")
    assert '"Architecture": "s390x"' in desk.does("image", "inspect", name)
    assert "has no image for linux/mips" in desk.fails("run", "--platform", "linux/mips", name, "true")[1]
    assert desk.run("create", "--platform", "linux/s390x", name).stderr == b""


def add_platform(host: str, architecture: str) -> None:
    """Behind demo/box:latest is an index: what was there, and the same for another machine."""
    api = f"http://{host}/v2/demo/box"
    with httpx.Client(trust_env=False) as client:
        accept = {"accept": f"{OCI_MANIFEST}, {DOCKER_MANIFEST}"}
        raw = client.get(f"{api}/manifests/latest", headers=accept).content
        manifest = json.loads(raw)
        config = client.get(f"{api}/blobs/{manifest['config']['digest']}").json()
        other = json.dumps(config | {"architecture": architecture}).encode()
        where = client.post(f"{api}/blobs/uploads/").headers["location"]
        client.put(httpx.URL(where).copy_merge_params({"digest": digest_of(other)}), content=other)
        manifest["config"] |= {"digest": digest_of(other), "size": len(other)}
        entries = []
        for document, machine in ((raw, config["architecture"]), (json.dumps(manifest).encode(), architecture)):
            kind = manifest["mediaType"]
            there = f"{api}/manifests/{digest_of(document)}"
            client.put(there, content=document, headers={"content-type": kind}).raise_for_status()
            platform = {"os": "linux", "architecture": machine}
            entries += [{"mediaType": kind, "digest": digest_of(document), "size": len(document), "platform": platform}]
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
        there = f"{api}/manifests/latest"
        client.put(there, content=index, headers={"content-type": OCI_INDEX}).raise_for_status()


@pytest.mark.parametrize("name", ["0" * 64, f"sha256:{'0' * 64}"])
def test_no_registry_is_asked_for_an_id(desk: Desk, name: str) -> None:
    assert "no image" in desk.fails("create", name)[1]

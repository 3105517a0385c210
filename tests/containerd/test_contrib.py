"""What is ready made: units that systemd takes, sockets that it holds, stanzas that containerd and its CRI read."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grounds import Ground
from lane import Lane, until

HOUSE = Path(__file__).parents[2]
UNITS = HOUSE / "contrib/systemd"
STANZA = HOUSE / "contrib/containerd/lamina.toml"
NAME = "docker.io/demo/busybox:latest"

Call = Callable[..., bytes]

pytestmark = [pytest.mark.needs_root, pytest.mark.on("overlay")]


@pytest.fixture
def activated(standing: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    """A service that systemd starts when somebody asks, and containerd."""
    lane = Lane(tmp_path_factory.mktemp("a"), standing)
    try:
        lane.activate()
        lane.contain()
        yield lane
    finally:
        lane.end()


def verify(*units: Path) -> subprocess.CompletedProcess[str]:
    argv: list[str | Path] = ["systemd-analyze", "verify", "--recursive-errors=no", *units]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_systemd_has_nothing_to_say_against_the_units(tmp_path: Path) -> None:
    units = sorted(UNITS.iterdir())
    wrong = tmp_path / "wrong@.service"
    wrong.write_text((UNITS / "lamina@.service").read_text().replace("Restart=always", "Restart=allways"))

    told, proof = verify(*units), verify(wrong)

    assert [unit.name for unit in units] == ["lamina@.service", "lamina@.socket"]
    assert (told.returncode, told.stdout + told.stderr) == (0, "")
    assert proof.returncode != 0  # it would have told


def test_the_unit_serves_where_the_socket_listens_and_the_stanza_looks() -> None:
    address = "/run/lamina/%i.sock"

    assert f"--address {address}" in (UNITS / "lamina@.service").read_text()
    assert f"ListenStream={address}\n" in (UNITS / "lamina@.socket").read_text()
    assert address.replace("%i", "overlay") in STANZA.read_text()


def test_containerd_starts_a_service_whose_socket_systemd_holds_and_which_ends_in_peace(
    activated: Lane, archive: Path
) -> None:
    load = ("images", "import", "--snapshotter", "lamina", archive)
    # containerd waits a second for a connection, which a service on a busy machine may need for its start
    until(lambda: activated.tries(*load).returncode == 0, "the service has come up")

    told = activated.ctr("run", "--rm", "--snapshotter", "lamina", NAME, "box", "/bin/cat", "/etc/motd")

    assert told == "hello from the second layer\n"
    assert activated.service is not None
    activated.service.terminate()
    assert activated.service.wait(30) == 0, (activated.room / "log").read_text()
    assert activated.socket.is_socket()  # still systemd's


def test_containerd_takes_the_stanza_as_an_import(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'version = 2\nimports = ["{STANZA.parent}/*.toml"]\n')

    argv: list[str | Path] = ["containerd", "--config", config, "config", "dump"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    stanza = told.partition("[proxy_plugins.lamina]")[2].partition("[stream")[0]
    assert dict(re.findall(r'(\w+) = "(.*)"', stanza)) == {"address": "/run/lamina/overlay.sock", "type": "snapshot"}


def test_a_kubelet_s_pull_lands_in_lamina_when_the_page_s_stanza_says_so(served: Lane, published: str) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", (HOUSE / "docs/containerd.md").read_text(), re.MULTILINE | re.DOTALL)
    (stanza,) = (block for block in blocks if "io.containerd.grpc.v1.cri" in block)
    served.contain(kubernetes=stanza)

    with grpc.insecure_channel(f"unix:{served.room}/c.sock") as channel:
        pull: Call = channel.unary_unary("/runtime.v1.ImageService/PullImage")
        # PullImageRequest{image: ImageSpec{image: NAME}}, by hand: a field of text is its number, length and octets
        until(lambda: _answers(pull, _text(_text(published.encode()))), "the image is pulled")

    with served.client() as ask:
        assert len(ask.list()) == 3
    assert served.ctr("images", "ls", "--quiet", namespace="k8s.io").split()[0] == published


def _answers(call: Call, request: bytes) -> bytes | None:
    try:
        return call(request, timeout=30)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:  # the plugin is not ready yet
            raise
        return None


def _text(octets: bytes) -> bytes:
    return bytes([1 << 3 | 2, len(octets)]) + octets


def test_who_has_the_sources_has_what_is_ready_made(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path], cwd=HOUSE, check=True)

    with tarfile.open(next(tmp_path.iterdir())) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    wanted = {str(path.relative_to(HOUSE)) for path in (HOUSE / "contrib").rglob("*") if path.is_file()}
    assert wanted <= names

"""Pull and push against a real registry, in every mode it has; skopeo is the witness."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import httpx
import pytest
from desk import PROGRAM, Desk
from registries import PASSWORD, USER, RunningRegistry, certificate, htpasswd, publish, registry, token_server, tool
from screens import screen

from lamina.images.manifest import OCI_INDEX, OCI_MANIFEST, digest_of

pytestmark = pytest.mark.needs_root
HOUSE = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "busybox.tar"
    subprocess.run([sys.executable, HOUSE / "demo/image.py", path], check=True)
    return path


@pytest.fixture
def new_desk(tmp_path: Path) -> Callable[..., Desk]:
    def new(driver: str = "vfs", config: str = "") -> Desk:
        place = tmp_path / f"desk-{len(list(tmp_path.iterdir()))}"
        (place / "work").mkdir(parents=True)
        (place / "config.toml").write_text(config)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}
        ours = {
            "LAMINA_DRIVER": driver,
            "LAMINA_ROOT": str(place / "store"),
            "LAMINA_CONFIG": str(place / "config.toml"),
            "DOCKER_CONFIG": str(place / "docker"),
        }
        return Desk(place / "work", clean | ours)

    return new


@pytest.fixture
def desk(new_desk: Callable[..., Desk]) -> Desk:
    return new_desk()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[RunningRegistry]:
    with registry(tmp_path / "registry") as running:
        yield running


def skopeo(*words: str | Path) -> str:
    return subprocess.run([tool("skopeo"), *words], capture_output=True, text=True, check=True).stdout


def give(archive: Path, host: str, name: str, *flags: str) -> None:
    """Let skopeo push it."""
    publish(archive, f"{host}/{name}", *flags)


def blobs(desk: Desk) -> dict[str, int]:
    home = Path(desk.environ["LAMINA_ROOT"]) / "blobs"
    return {path.name: path.stat().st_size for path in home.rglob("*") if path.is_file()}


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_what_skopeo_pushed_is_pulled_in_docker_s_words(
    new_desk: Callable[..., Desk], plain: RunningRegistry, archive: Path, driver: str, form: str
) -> None:
    desk = new_desk(driver)
    give(archive, plain.host, "demo/box:1", "--format", form)

    told = desk.run("pull", f"{plain.host}/demo/box:1")

    assert told.returncode == 0, told.stderr.decode()
    first, digest, status, name = told.stdout.decode().splitlines()
    assert first == "1: Pulling from demo/box"
    assert re.fullmatch(r"Digest: sha256:[0-9a-f]{64}", digest)
    assert status == f"Status: Downloaded newer image for {plain.host}/demo/box:1"
    assert name == f"{plain.host}/demo/box:1"
    assert [line.partition(": ")[2] for line in told.stderr.decode().splitlines()] == ["Pull complete"] * 3
    remote = skopeo("inspect", "--tls-verify=false", f"docker://{plain.host}/demo/box:1")
    assert digest == f"Digest: {json.loads(remote)['Digest']}"


def test_of_an_image_that_is_here_only_its_digest_is_asked_for(
    desk: Desk, plain: RunningRegistry, archive: Path
) -> None:
    give(archive, plain.host, "demo/box:1")
    desk.does("pull", "-q", f"{plain.host}/demo/box:1")

    told = desk.run("pull", f"{plain.host}/demo/box:1")

    assert f"Status: Image is up to date for {plain.host}/demo/box:1" in told.stdout.decode()
    assert told.stderr == b""


def test_layers_that_another_image_has_are_not_fetched_again(desk: Desk, plain: RunningRegistry, archive: Path) -> None:
    desk.does("load", "-q", "-i", archive)
    desk.does("create", "--name", "box", "demo/busybox")
    desk.does("commit", "-c", "LABEL new=yes", "box", f"{plain.host}/demo/box:1")
    desk.does("push", "-q", f"{plain.host}/demo/box:1")
    desk.does("rmi", f"{plain.host}/demo/box:1")

    told = desk.run("pull", f"{plain.host}/demo/box:1")

    assert f"Status: Downloaded newer image for {plain.host}/demo/box:1" in told.stdout.decode()
    assert [line.partition(": ")[2] for line in told.stderr.decode().splitlines()] == ["Already exists"] * 3


def test_quiet_says_the_full_name_and_nothing_else(desk: Desk, plain: RunningRegistry, archive: Path) -> None:
    give(archive, plain.host, "demo/box:latest")

    told = desk.run("pull", "-q", f"{plain.host}/demo/box")

    assert (told.stdout.decode(), told.stderr) == (f"{plain.host}/demo/box:latest\n", b"")


def test_all_tags_of_a_repository_come(desk: Desk, plain: RunningRegistry, archive: Path) -> None:
    give(archive, plain.host, "demo/box:1")
    give(archive, plain.host, "demo/box:2")

    told = desk.does("pull", "--all-tags", f"{plain.host}/demo/box").splitlines()

    assert [line for line in told if "Pulling" in line] == ["1: Pulling from demo/box", "2: Pulling from demo/box"]
    assert told[-2:] == [f"Status: Downloaded newer image for {plain.host}/demo/box", f"{plain.host}/demo/box"]


def test_what_was_pulled_is_pushed_back_byte_for_byte(desk: Desk, plain: RunningRegistry, archive: Path) -> None:
    give(archive, plain.host, "demo/box:1")
    desk.does("pull", "-q", f"{plain.host}/demo/box:1")
    desk.does("tag", f"{plain.host}/demo/box:1", "localhost:1/other/box:2")
    before = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{plain.host}/demo/box:1")
    with registry(plain.place / "second") as second:
        desk.does("tag", f"{plain.host}/demo/box:1", f"{second.host}/other/box:2")

        told = desk.run("push", f"{second.host}/other/box:2")
        again = desk.run("push", f"{second.host}/other/box:2")

        after = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{second.host}/other/box:2")
        skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{second.host}/other/box:2", f"dir:{plain.place}/d")
    assert told.returncode == 0, told.stderr.decode()
    assert before == after
    assert told.stdout.decode().splitlines()[0] == f"The push refers to repository [{second.host}/other/box]"
    assert re.fullmatch(r"2: digest: sha256:[0-9a-f]{64} size: \d+", told.stdout.decode().splitlines()[1])
    assert [line.partition(": ")[2] for line in told.stderr.decode().splitlines()] == ["Pushed"] * 3
    assert [line.partition(": ")[2] for line in again.stderr.decode().splitlines()] == ["Layer already exists"] * 3


def test_all_tags_of_a_repository_are_pushed(desk: Desk, plain: RunningRegistry, archive: Path) -> None:
    desk.does("load", "-q", "-i", archive)
    for tag in ("1", "2"):
        desk.does("tag", "demo/busybox", f"{plain.host}/demo/box:{tag}")
    desk.does("tag", "demo/busybox", f"{plain.host}/demo/other:3")

    told = desk.does("push", "--all-tags", f"{plain.host}/demo/box").splitlines()

    assert told[0] == f"The push refers to repository [{plain.host}/demo/box]"
    digests = [line.partition(": ")[0] for line in told[1:]]
    assert digests == ["1", "2"], told
    tags = skopeo("list-tags", "--tls-verify=false", f"docker://{plain.host}/demo/box")
    assert sorted(json.loads(tags)["Tags"]) == ["1", "2"]
    with pytest.raises(subprocess.CalledProcessError):
        skopeo("list-tags", "--tls-verify=false", f"docker://{plain.host}/demo/other")


def test_layers_that_another_repository_has_are_mounted(desk: Desk, plain: RunningRegistry, archive: Path) -> None:
    give(archive, plain.host, "demo/box:1")
    desk.does("pull", "-q", f"{plain.host}/demo/box:1")
    desk.does("tag", f"{plain.host}/demo/box:1", f"{plain.host}/mine/box:1")

    told = desk.run("push", f"{plain.host}/mine/box:1")

    assert [line.partition(": ")[2] for line in told.stderr.decode().splitlines()] == ["Mounted from demo/box"] * 3


def test_a_large_blob_goes_in_pieces(new_desk: Callable[..., Desk], plain: RunningRegistry, archive: Path) -> None:
    desk = new_desk(config="[registries]\nchunk = 100000\n")
    desk.does("load", "-q", "-i", archive)
    desk.does("tag", "demo/busybox", f"{plain.host}/demo/box:1")

    desk.does("push", f"{plain.host}/demo/box:1")

    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{plain.host}/demo/box:1", f"dir:{plain.place}/d")


def test_the_platform_that_was_asked_for_is_taken(desk: Desk, plain: RunningRegistry, archive: Path) -> None:
    give(archive, plain.host, "demo/box:amd64", "--format", "oci")
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{plain.host}/demo/box:amd64").encode()
    put_index(plain.host, raw, ["amd64", "s390x"])

    desk.does("pull", "-q", "--platform", "linux/s390x", f"{plain.host}/demo/box:all")
    code, line = desk.fails("pull", "-q", "--platform", "linux/mips", f"{plain.host}/demo/box:all")

    assert (code, "linux/mips" in line) == (4, True)


def put_index(host: str, manifest: bytes, architectures: list[str]) -> None:
    entry = {"mediaType": OCI_MANIFEST, "digest": digest_of(manifest), "size": len(manifest)}
    platforms = [{"platform": {"os": "linux", "architecture": each}} for each in architectures]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry | each for each in platforms]}
    put = httpx.put(
        f"http://{host}/v2/demo/box/manifests/all",
        content=json.dumps(document),
        headers={"content-type": OCI_INDEX},
        trust_env=False,
    )
    assert put.status_code == 201


def test_with_basic_authentication_one_has_to_log_in(desk: Desk, tmp_path: Path, archive: Path) -> None:
    with registry(tmp_path / "registry", auth=htpasswd(tmp_path / "auth")) as closed:
        give(archive, closed.host, "demo/box:1", f"--dest-creds={USER}:{PASSWORD}")
        refused = desk.fails("pull", f"{closed.host}/demo/box:1")
        wrong = desk.run("login", "-u", USER, "--password-stdin", closed.host, stdin=b"not-it\n")
        right = desk.run("login", "-u", USER, "--password-stdin", closed.host, stdin=f"{PASSWORD}\n".encode())
        desk.does("pull", "-q", f"{closed.host}/demo/box:1")
        out = desk.does("logout", closed.host)
        after = desk.fails("pull", f"{closed.host}/demo/box:1")

    assert (refused[0], wrong.returncode, after[0]) == (21, 21, 21)
    assert f"lamina login {closed.host}" in refused[1]
    assert right.stdout == b"Login Succeeded\n"
    assert out == f"Removing login credentials for {closed.host}\n"
    assert PASSWORD.encode() not in right.stdout + right.stderr
    assert b"not-it" not in wrong.stdout + wrong.stderr


def test_the_password_is_asked_for_and_not_seen(desk: Desk, tmp_path: Path) -> None:
    with (
        registry(tmp_path / "registry", auth=htpasswd(tmp_path / "auth")) as closed,
        screen(desk, "login", closed.host) as shown,
    ):
        seen = shown.until(b"Username: ")
        shown.type(f"{USER}\n".encode())
        seen += shown.until(b"Password: ")
        shown.type(f"{PASSWORD}\n".encode())
        seen += shown.until(b"Login Succeeded")

    assert USER.encode() in seen
    assert PASSWORD.encode() not in seen
    nobody = desk.run("login", "-u", USER, "registry.invalid")
    assert (nobody.returncode, b"--password-stdin" in nobody.stderr) == (2, True)


def test_the_credentials_lie_where_docker_looks_and_only_their_owner_reads_them(desk: Desk, tmp_path: Path) -> None:
    file = Path(desk.environ["DOCKER_CONFIG"]) / "config.json"
    file.parent.mkdir()
    file.write_text('{"HttpHeaders": {"x": "y"}, "auths": {"other": {"auth": "YTpi"}}}')
    with registry(tmp_path / "registry", auth=htpasswd(tmp_path / "auth")) as closed:
        desk.run("login", "-u", USER, "--password-stdin", closed.host, stdin=PASSWORD.encode())
        skopeo("login", "--tls-verify=false", "--get-login", f"--authfile={file}", closed.host)

    document = json.loads(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    assert document["HttpHeaders"] == {"x": "y"}
    assert set(document["auths"]) == {"other", closed.host}


def test_tokens_are_fetched_for_what_is_done(desk: Desk, tmp_path: Path, archive: Path) -> None:
    cert, key = certificate(tmp_path / "tls")
    with (
        token_server(cert, key) as tokens,
        registry(tmp_path / "registry", auth=tokens.auth(cert)) as guarded,
    ):
        desk.does("load", "-q", "-i", archive)
        desk.does("tag", "demo/busybox", f"{guarded.host}/demo/box:1")
        code, _ = desk.fails("push", f"{guarded.host}/demo/box:1")
        told = desk.run("login", "-u", USER, "--password-stdin", guarded.host, stdin=PASSWORD.encode())
        desk.does("push", f"{guarded.host}/demo/box:1")
        desk.does("tag", "demo/busybox", f"{guarded.host}/mine/box:1")
        mounted = desk.run("push", f"{guarded.host}/mine/box:1")
        desk.does("logout", guarded.host)
        desk.does("pull", "-q", f"{guarded.host}/demo/box:1")  # anybody may

    assert code == 21
    assert told.returncode == 0, told.stderr.decode()
    assert b"Mounted from demo/box" in mounted.stderr
    assert not any(token.encode() in told.stdout + told.stderr for token in tokens.tokens)


def test_where_a_registry_gives_one_a_token_is_kept_in_place_of_the_password(desk: Desk, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path / "tls")
    with token_server(cert, key) as tokens, registry(tmp_path / "registry", auth=tokens.auth(cert)) as guarded:
        desk.run("login", "-u", USER, "--password-stdin", guarded.host, stdin=PASSWORD.encode())

    text = (Path(desk.environ["DOCKER_CONFIG"]) / "config.json").read_text()
    assert json.loads(text)["auths"][guarded.host]["identitytoken"] == tokens.refresh
    assert PASSWORD not in text


HELPER = """#!/bin/sh
file="$DOCKER_CONFIG/kept"
case "$1" in
    store) cat > "$file" ;;
    get) grep -q "$(cat)" "$file" 2>/dev/null && cat "$file" || { echo credentials not found; exit 1; } ;;
    erase) rm -f "$file" ;;
esac
"""


def test_a_credential_helper_is_used_where_docker_is_told_to(desk: Desk, tmp_path: Path, archive: Path) -> None:
    home, programs = Path(desk.environ["DOCKER_CONFIG"]), tmp_path / "bin"
    for place in (home, programs):
        place.mkdir()
    (programs / "docker-credential-test").write_text(HELPER)
    (programs / "docker-credential-test").chmod(0o755)
    (home / "config.json").write_text('{"credsStore": "test"}')
    desk = attrs.evolve(desk, environ=desk.environ | {"PATH": f"{programs}:{os.environ['PATH']}"})
    with registry(tmp_path / "registry", auth=htpasswd(tmp_path / "auth")) as closed:
        give(archive, closed.host, "demo/box:1", f"--dest-creds={USER}:{PASSWORD}")

        desk.run("login", "-u", USER, "--password-stdin", closed.host, stdin=PASSWORD.encode())
        desk.does("pull", "-q", f"{closed.host}/demo/box:1")

        assert PASSWORD in (home / "kept").read_text()
        assert PASSWORD not in (home / "config.json").read_text()
        assert "auth" not in json.loads((home / "config.json").read_text())["auths"][closed.host]
        desk.does("logout", closed.host)
        assert not (home / "kept").exists()


def test_tls_is_verified_unless_the_config_says_otherwise(
    new_desk: Callable[..., Desk], tmp_path: Path, archive: Path
) -> None:
    cert, key = certificate(tmp_path / "tls")
    with registry(tmp_path / "registry", http={"tls": {"certificate": str(cert), "key": str(key)}}) as secure:
        give(archive, secure.host, "demo/box:1")
        table = f'[registries.hosts."{secure.host}"]\n'

        code, line = new_desk().fails("pull", f"{secure.host}/demo/box:1")
        new_desk(config=f'{table}ca = "{cert}"\n').does("pull", "-q", f"{secure.host}/demo/box:1")
        new_desk(config=f"{table}insecure = true\n").does("pull", "-q", f"{secure.host}/demo/box:1")

    assert code == 20
    assert "certificate" in line


def test_a_client_certificate_is_shown_to_a_registry_that_wants_one(
    new_desk: Callable[..., Desk], tmp_path: Path, archive: Path
) -> None:
    cert, key = certificate(tmp_path / "tls")
    tls = {"certificate": str(cert), "key": str(key), "clientcas": [str(cert)]}
    with registry(tmp_path / "registry", http={"tls": tls}) as secure:
        config = f'[registries.hosts."{secure.host}"]\nca = "{cert}"\ncert = "{cert}"\nkey = "{key}"\n'
        desk = new_desk(config=config)
        desk.does("load", "-q", "-i", archive)
        desk.does("tag", "demo/busybox", f"{secure.host}/demo/box:1")

        desk.does("push", f"{secure.host}/demo/box:1")


def test_a_mirror_is_asked_first_and_short_names_mean_what_the_config_says(
    new_desk: Callable[..., Desk], plain: RunningRegistry, archive: Path
) -> None:
    give(archive, plain.host, "hub/demo/box:1")
    desk = new_desk(
        config='[registries.names]\nbox = "registry.invalid/demo/box"\n'
        f'[registries.hosts."registry.invalid"]\nmirrors = ["{plain.host}/hub"]\n'
    )

    assert desk.does("pull", "-q", "box:1") == "registry.invalid/demo/box:1\n"


def test_a_transfer_goes_on_when_the_registry_comes_back(
    new_desk: Callable[..., Desk], plain: RunningRegistry, archive: Path
) -> None:
    desk = new_desk(config="[registries]\nretries = 9\n")
    give(archive, plain.host, "demo/box:1")
    plain.stop()
    back = threading.Timer(0.5, plain.start)
    back.start()

    told = desk.run("pull", "-q", f"{plain.host}/demo/box:1")
    back.join()

    assert told.returncode == 0, told.stderr.decode()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_pull_that_is_ended_leaves_nothing_that_the_next_one_minds(
    desk: Desk, plain: RunningRegistry, archive: Path, how: signal.Signals
) -> None:
    give(archive, plain.host, "demo/box:1")
    with subprocess.Popen(
        [*PROGRAM, "pull", f"{plain.host}/demo/box:1"], cwd=desk.path, env=desk.environ, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline()  # it has the manifest
        running.send_signal(how)

    desk.does("pull", "-q", f"{plain.host}/demo/box:1")

    assert not any(name.startswith("new-") for name in blobs(desk))
    desk.does("image", "verify")

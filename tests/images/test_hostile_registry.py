"""A registry that lies, stalls or never ends: a typed error, in bounded time and memory, and the store as it was."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import os
import signal
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from registries import Asked, Reply, serving

from lamina.errors import (
    BadArchive,
    Denied,
    DigestMismatch,
    LaminaError,
    NoSpace,
    NotFound,
    RegistryError,
    Unauthorized,
    Unavailable,
)
from lamina.images import transfer_pull
from lamina.images.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, digest_of
from lamina.images.records import Image
from lamina.images.registry_http import Patience
from lamina.images.store import Images
from lamina.images.transfer import opened_line
from lamina.snapshotter import Snapshotter
from lamina_vfs.driver import VfsDriver

pytestmark = pytest.mark.needs_root
PATIENCE = Patience(stall=0.6, tries=3, pause=0.01, longest=2.0)
SECRET = "the-password-of-bob"  # noqa: S105  # of a test


def make_tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = 3 << 20
        tar.addfile(member, io.BytesIO(os.urandom(member.size)))
    return out.getvalue()


TAR = make_tar()
LAYER = gzip.compress(TAR, 1)
CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(TAR)]}}
).encode()


def manifest(**layer: Any) -> bytes:
    config = {"mediaType": OCI_CONFIG, "digest": digest_of(CONFIG), "size": len(CONFIG)}
    only = {"mediaType": f"{OCI_LAYER}+gzip", "digest": digest_of(LAYER), "size": len(LAYER), **layer}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [only]}
    return json.dumps(document).encode()


Answer = Callable[[Asked], Reply]


@attrs.define
class Liar:
    """An honest registry of one image, except where a test says otherwise."""

    special: dict[str, Answer] = attrs.field(factory=dict)  # by a part of the path
    manifest: bytes = manifest()
    asked: list[Asked] = attrs.field(factory=list)

    def __call__(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        for part, answer in self.special.items():
            if part in asked.path:
                return answer(asked)
        if "/manifests/" in asked.path:
            return Reply(200, self.manifest, {"content-type": OCI_MANIFEST})
        known = {digest_of(blob): blob for blob in (LAYER, CONFIG)}
        return Reply(200, known[asked.path.rpartition("/")[2]]) if "/blobs/" in asked.path else Reply(200, b"{}")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes with people takes tenths of a second here."""
    monkeypatch.setattr(transfer_pull, "opened_line", lambda registries: opened_line(registries, PATIENCE))


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Images]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    root = tmp_path / "store"
    with Snapshotter(root, VfsDriver(root / "vfs/layers", None)) as snapshots, Images(root, snapshots) as images:
        yield images


def pull(images: Images, host: str, name: str = "box:1") -> Image:
    return images.pull(f"{host}/{name}")[0].image


def assert_untouched(images: Images) -> None:
    assert images.list() == ()
    assert list(images.shelves.blobs.list()) == []
    assert list(images.snapshots.list()) == []
    assert list((images.root / "blobs/partial").iterdir()) == []


def refuses(images: Images, liar: Liar, *errors: type[LaminaError]) -> str:
    with serving(liar) as host, pytest.raises(errors) as raised:
        pull(images, host)
    assert_untouched(images)
    return str(raised.value)


LAYER_PATH = digest_of(LAYER)
MANIFEST_PATH = "/manifests/"


def always(reply: Reply) -> Answer:
    return lambda _: reply


def test_an_honest_one_is_believed(images: Images) -> None:
    with serving(Liar()) as host:
        image = pull(images, host)

    with images.snapshots.look(image.chain_id or "") as tree:
        assert (tree / "file").stat().st_size == 3 << 20


def test_a_layer_with_another_digest(images: Images) -> None:
    other = gzip.compress(make_tar(), 1)
    other = other[: len(LAYER)].ljust(len(LAYER), b"\0")

    refuses(images, Liar({LAYER_PATH: always(Reply(200, other))}), DigestMismatch)


def test_a_layer_that_inflates_to_something_else(images: Images) -> None:
    other = gzip.compress(make_tar(), 1)
    liar = Liar(manifest=manifest(digest=digest_of(other), size=len(other)))
    liar.special[digest_of(other)] = always(Reply(200, other))

    refuses(images, liar, DigestMismatch)


@pytest.mark.parametrize("change", [-1, 1, 1 << 20])
def test_a_layer_of_another_length_than_promised(images: Images, change: int) -> None:
    refuses(images, Liar(manifest=manifest(size=len(LAYER) + change)), DigestMismatch)


def test_a_length_that_is_not_that_of_the_body(images: Images) -> None:
    short = Reply(200, LAYER[:1000], {"content-length": str(len(LAYER))})

    refuses(images, Liar({LAYER_PATH: always(short)}), Unavailable)


@pytest.mark.parametrize("part", [LAYER_PATH, MANIFEST_PATH, digest_of(CONFIG)])
def test_a_body_that_never_ends(images: Images, part: str) -> None:
    def endless(write: Callable[[bytes], object]) -> None:
        while True:
            write(bytes(1 << 20))

    refuses(images, Liar({part: always(Reply(200, endless))}), DigestMismatch, BadArchive)


@pytest.mark.parametrize("part", [LAYER_PATH, MANIFEST_PATH])
def test_a_drip_is_no_progress(images: Images, part: str) -> None:
    stop = threading.Event()

    def drip(write: Callable[[bytes], object]) -> None:
        while not stop.wait(0.1):
            write(b" ")

    told = refuses(images, Liar({part: always(Reply(200, drip))}), Unavailable)
    stop.set()

    assert "too slow" in told


def test_a_server_that_never_answers(images: Images) -> None:
    stop = threading.Event()

    def nothing(_: Asked) -> Reply:
        stop.wait(20)
        return Reply()

    try:
        refuses(images, Liar({MANIFEST_PATH: nothing}), Unavailable)
    finally:
        stop.set()


def test_redirects_in_a_circle(images: Images) -> None:
    def round_and_round(asked: Asked) -> Reply:
        return Reply(307, headers={"location": asked.path})

    assert "redirects" in refuses(images, Liar({LAYER_PATH: round_and_round}), RegistryError)


@pytest.mark.parametrize(
    "where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://user:pw@127.0.0.1/", "http://", ""]
)
def test_redirects_to_what_is_no_registry(images: Images, where: str) -> None:
    refuses(images, Liar({LAYER_PATH: always(Reply(307, headers={"location": where}))}), RegistryError)


def test_a_manifest_larger_than_any_honest_one(images: Images) -> None:
    refuses(images, Liar(manifest=b" " * (5 << 20) + manifest()), BadArchive)


@pytest.mark.parametrize(
    "document", [b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe", b'{"schemaVersion": 2}', b'{"layers": 1, "layers": 2}']
)
def test_a_manifest_that_is_garbage(images: Images, document: bytes) -> None:
    refuses(images, Liar(manifest=document), BadArchive)


def test_a_manifest_that_is_not_the_one_that_was_asked_for(images: Images) -> None:
    with serving(Liar()) as host, pytest.raises(DigestMismatch):
        images.pull(f"{host}/box@sha256:{'0' * 64}")
    assert_untouched(images)


def test_a_header_that_names_another_digest(images: Images) -> None:
    headers = {"content-type": OCI_MANIFEST, "docker-content-digest": f"sha256:{'0' * 64}"}

    refuses(images, Liar({MANIFEST_PATH: always(Reply(200, manifest(), headers))}), DigestMismatch)


def test_a_layer_larger_than_the_disk_is_not_begun(images: Images) -> None:
    liar = Liar(manifest=manifest(size=1 << 60))

    refuses(images, liar, NoSpace)

    assert not any(LAYER_PATH in asked.path for asked in liar.asked)


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, Unauthorized), (403, Denied), (404, NotFound), (418, RegistryError), (500, Unavailable), (429, Unavailable)],
)
def test_every_status_has_its_error(images: Images, status: int, error: type[LaminaError]) -> None:
    refuses(images, Liar({MANIFEST_PATH: always(Reply(status, b"<html>"))}), error)


def test_what_the_registry_says_of_an_error_is_told(images: Images) -> None:
    said = json.dumps({"errors": [{"code": "DENIED", "message": "not today"}]}).encode()

    assert "DENIED: not today" in refuses(images, Liar({MANIFEST_PATH: always(Reply(403, said))}), Denied)


def test_a_registry_that_asks_for_a_pause_gets_it_and_is_asked_again(images: Images) -> None:
    liar = Liar()

    def busy(_: Asked) -> Reply:
        del liar.special[MANIFEST_PATH]
        return Reply(429, headers={"retry-after": "0"})

    liar.special[MANIFEST_PATH] = busy
    with serving(liar) as host:
        assert pull(images, host).names == (f"{host}/box:1",)


def test_a_registry_that_asks_for_an_hour_is_not_waited_for(images: Images) -> None:
    reply = Reply(429, headers={"retry-after": "3600"})

    assert "3600 seconds" in refuses(images, Liar({MANIFEST_PATH: always(reply)}), Unavailable)


@pytest.mark.parametrize("honours_range", [True, False])
def test_a_broken_download_goes_on_where_it_broke(images: Images, honours_range: bool) -> None:  # noqa: FBT001
    liar, ranges = Liar(), list[str]()
    half = len(LAYER) // 2

    def breaking(asked: Asked) -> Reply:
        ranges.append(asked.headers.get("range", ""))
        if len(ranges) == 1:
            return Reply(200, LAYER[:half], {"content-length": str(len(LAYER))})
        if not honours_range:
            return Reply(200, LAYER)
        begin = int(ranges[-1].removeprefix("bytes=").removesuffix("-"))
        return Reply(206, LAYER[begin:], {"content-range": f"bytes {begin}-{len(LAYER) - 1}/{len(LAYER)}"})

    liar.special[LAYER_PATH] = breaking
    with serving(liar) as host:
        pull(images, host)

    assert ranges[0] == ""
    assert 0 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= half


# secrets


def log_in_file(tmp_path: Path, host: str) -> None:
    (tmp_path / "docker").mkdir()
    auth = {"username": "bob", "password": SECRET}
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {host: auth}}))


def guarded(liar: Liar, challenge: str) -> Answer:
    def answer(asked: Asked) -> Reply:
        if "authorization" not in asked.headers:
            return Reply(401, headers={"www-authenticate": challenge})
        return Liar.__call__(liar, asked)

    return answer


def test_no_secret_follows_a_redirect_to_another_host(images: Images, tmp_path: Path) -> None:
    elsewhere = Liar()
    with serving(elsewhere) as other:
        liar = Liar(
            {LAYER_PATH: always(Reply(307, headers={"location": f"http://{other}/v2/x/blobs/{LAYER_PATH}?sig=1"}))}
        )
        with serving(guarded(liar, 'Basic realm="x"')) as host:
            log_in_file(tmp_path, host)
            pull(images, host)

    assert any("authorization" in asked.headers for asked in liar.asked)
    assert elsewhere.asked
    assert not any("authorization" in asked.headers for asked in elsewhere.asked)


def test_a_password_is_not_sent_in_plain_text_to_a_stranger(images: Images, tmp_path: Path) -> None:
    with serving(guarded(Liar(), 'Bearer realm="http://registry.invalid/token"')) as host:
        log_in_file(tmp_path, host)
        with pytest.raises(RegistryError, match="plain text"):
            pull(images, host)


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"token": 1}', b'{"token": "a\\nb"}', b" " * (2 << 20)])
def test_a_token_that_is_garbage(images: Images, answer: bytes) -> None:
    with contextlib.ExitStack() as held:
        realm = held.enter_context(serving(always(Reply(200, answer))))
        host = held.enter_context(serving(guarded(Liar(), f'Bearer realm="http://{realm}/token"')))
        with pytest.raises((RegistryError, BadArchive)):
            pull(images, host)
    assert_untouched(images)


def test_nothing_secret_is_logged_or_stands_in_an_error(
    images: Images, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def echo(asked: Asked) -> Reply:
        said = asked.headers.get("authorization", "")
        words = json.dumps({"errors": [{"code": "DENIED", "message": f"you said {said}"}]}).encode()
        return Reply(403 if said else 401, words, {"www-authenticate": f'Bearer realm="http://{realm}/token"'})

    token = "a-token-that-nobody-may-see"  # noqa: S105  # of a test
    given = json.dumps({"token": token}).encode()
    with caplog.at_level(logging.DEBUG), serving(always(Reply(200, given))) as realm, serving(echo) as host:
        log_in_file(tmp_path, host)
        with pytest.raises(Denied) as raised:
            pull(images, host)

    for text in (str(raised.value), caplog.text):
        assert token not in text
        assert SECRET not in text
    assert "***" in str(raised.value)


# what is not a registry's


def test_a_layer_that_registries_must_not_have_comes_from_where_its_publisher_says(images: Images) -> None:
    with serving(lambda _: Reply(200, LAYER)) as publisher:
        kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        liar = Liar(manifest=manifest(mediaType=kind, urls=[f"http://{publisher}/layer"]))
        liar.special[LAYER_PATH] = always(Reply(404))
        with serving(liar) as host:
            image = pull(images, host)

    assert image.layers[0].blob == digest_of(LAYER)


def test_somebody_who_interrupts_does_not_wait_for_a_registry_that_hangs(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = Patience(stall=100)
    monkeypatch.setattr(transfer_pull, "opened_line", lambda registries: opened_line(registries, patient))
    stop, reached = threading.Event(), threading.Event()

    def hang(_: Asked) -> Reply:
        reached.set()
        stop.wait(60)
        return Reply()

    def interrupt() -> None:
        reached.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with serving(Liar({LAYER_PATH: hang})) as host:
        with pytest.raises(KeyboardInterrupt):
            pull(images, host)
        assert not stop.is_set()
        stop.set()
    assert_untouched(images)


def test_an_interrupt_while_a_thread_begins_to_unpack_leaves_nothing_either(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, given_up = list[threading.Thread](), threading.Event()
    start, prepare = threading.Thread.start, images.snapshots.prepare

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith("unpack"):
            begun.append(thread)
            raise KeyboardInterrupt

    def slow(*arguments: Any) -> object:
        given_up.wait(1)  # if nobody waits for this thread, the end of the work is quicker
        return prepare(*arguments)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    monkeypatch.setattr(images.snapshots, "prepare", slow)
    with serving(Liar()) as host, pytest.raises(KeyboardInterrupt):
        pull(images, host)

    given_up.set()
    begun[0].join(20)
    assert_untouched(images)

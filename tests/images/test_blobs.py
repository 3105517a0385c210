"""Blobs are whole and right, or not there at all."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from lamina.errors import DigestMismatch, InvalidName, NotFound
from lamina.images.blobs import Blobs
from lamina.images.manifest import digest_of

DATA = os.urandom(3 << 20)
DIGEST = digest_of(DATA)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    store = Blobs(tmp_path)
    store.start()
    return store


def left_over(root: Path) -> list[Path]:
    return list((root / "blobs" / "partial").iterdir())


def test_what_was_written_is_read_back(blobs: Blobs) -> None:
    blob = blobs.write(io.BytesIO(DATA), DIGEST, len(DATA))

    assert (blob.digest, blob.size) == (DIGEST, len(DATA))
    assert blobs.read(DIGEST) == DATA
    assert [each.digest for each in blobs.list()] == [DIGEST]


def test_a_blob_without_a_promised_digest_gets_its_own(blobs: Blobs) -> None:
    assert blobs.write(io.BytesIO(b"x")).digest == digest_of(b"x")


@pytest.mark.parametrize(("digest", "size"), [(digest_of(b"other"), None), (DIGEST, 5), (DIGEST, len(DATA) + 1)])
def test_nothing_is_kept_of_a_blob_that_is_not_what_was_promised(
    blobs: Blobs, tmp_path: Path, digest: str, size: int | None
) -> None:
    with pytest.raises(DigestMismatch):
        blobs.write(io.BytesIO(DATA), digest, size)

    assert list(blobs.list()) == []
    assert left_over(tmp_path) == []


def test_nothing_is_kept_when_the_stream_fails(blobs: Blobs, tmp_path: Path) -> None:
    class Failing(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        blobs.write(Failing(), DIGEST)  # type: ignore[arg-type]  # readable is all it needs to be

    assert left_over(tmp_path) == []


def test_a_blob_that_is_there_is_not_read_again(blobs: Blobs) -> None:
    blobs.write(io.BytesIO(DATA), DIGEST)
    stream = io.BytesIO(DATA)

    blobs.write(stream, DIGEST)

    assert stream.tell() == 0


def test_damage_on_the_disk_is_noticed(blobs: Blobs) -> None:
    blobs.write(io.BytesIO(DATA), DIGEST)
    blobs.path(DIGEST).chmod(0o600)
    with blobs.path(DIGEST).open("r+b") as file:
        file.write(b"damage")

    with pytest.raises(DigestMismatch):
        blobs.check(DIGEST)
    with pytest.raises(DigestMismatch):
        blobs.read(DIGEST)


def test_removing_frees_the_bytes_and_may_be_repeated(blobs: Blobs) -> None:
    blobs.write(io.BytesIO(DATA), DIGEST)

    assert blobs.remove(DIGEST) == len(DATA)
    assert blobs.remove(DIGEST) == 0
    with pytest.raises(NotFound):
        blobs.open(DIGEST)


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "sha256:AB", "", f"sha512:{'a' * 128}"])
def test_only_a_digest_is_ever_a_file_name(blobs: Blobs, digest: str) -> None:
    with pytest.raises(InvalidName):
        blobs.has(digest)


def die_in_the_middle(root: Path, written: int) -> None:
    class Dying(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            block = super().read(written) if self.tell() == 0 else b""
            if not block:
                os.kill(os.getpid(), signal.SIGKILL)
            return block

    Blobs(root).write(Dying(DATA), DIGEST)


def kill_a_writer(root: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=die_in_the_middle, args=(root, 1 << 20))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def test_a_writer_goes_on_where_a_killed_one_stopped(blobs: Blobs, tmp_path: Path) -> None:
    kill_a_writer(tmp_path)
    assert not blobs.has(DIGEST)
    reads = []

    class Counting(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            reads.append(self.tell())
            return super().read(size)

    blobs.write(Counting(DATA), DIGEST, len(DATA))

    assert reads[0] == 1 << 20
    assert blobs.read(DIGEST) == DATA
    assert left_over(tmp_path) == []


def test_a_damaged_partial_file_does_not_spoil_the_blob(blobs: Blobs, tmp_path: Path) -> None:
    kill_a_writer(tmp_path)
    (partial,) = left_over(tmp_path)
    partial.write_bytes(b"garbage")

    blobs.write(io.BytesIO(DATA), DIGEST, len(DATA))

    assert blobs.read(DIGEST) == DATA


def test_what_a_killed_writer_left_is_collected_but_never_a_living_one_s(blobs: Blobs, tmp_path: Path) -> None:
    kill_a_writer(tmp_path)
    with blobs.building() as partial:
        partial.write(b"alive")

        freed = blobs.collect()

        assert freed == 1 << 20
        assert blobs.keep(partial).digest == digest_of(b"alive")


def write_once(root: Path, order: int) -> None:
    blob = Blobs(root).write(io.BytesIO(DATA), DIGEST, len(DATA))
    assert blob.size == len(DATA), order


def test_many_processes_may_write_one_blob_at_once(blobs: Blobs, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=write_once, args=(tmp_path, order)) for order in range(6)]

    for child in children:
        child.start()
    for child in children:
        child.join()

    assert [child.exitcode for child in children] == [0] * 6
    assert hashlib.sha256(blobs.path(DIGEST).read_bytes()).hexdigest() == DIGEST.removeprefix("sha256:")
    assert left_over(tmp_path) == []

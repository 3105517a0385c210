"""Compressed layers on their way in and out: told apart by their bytes, in any number of members, cut or broken."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import random
import sys
from collections.abc import Callable

import pytest

from lamina.compression import LayerReader, open_compressed, open_decompressed
from lamina.errors import BadArchive, BadRequest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CONTENT = random.Random(1).randbytes(300_000) + bytes(300_000)  # noqa: S311  # not a secret
PACK: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
every_form = pytest.mark.parametrize("form", PACK)
packed_forms = pytest.mark.parametrize("form", [form for form in PACK if form != "plain"])


class Drip(io.BytesIO):
    """Gives a few bytes at a time, as a network does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(7 if size is None or size < 0 or size > 7 else size)


@every_form
def test_a_stream_is_told_by_its_bytes(form: str) -> None:
    assert open_decompressed(io.BytesIO(PACK[form](CONTENT))).read() == CONTENT


@packed_forms
def test_members_one_behind_the_other_are_one_stream(form: str) -> None:
    pack = PACK[form]

    joined = pack(CONTENT[:10]) + pack(b"") + pack(CONTENT[10:])

    assert open_decompressed(io.BytesIO(joined)).read() == CONTENT


@every_form
def test_a_stream_may_come_in_drops(form: str) -> None:
    assert open_decompressed(Drip(PACK[form](CONTENT[:20_000]))).read() == CONTENT[:20_000]


@packed_forms
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_a_stream_that_was_cut_is_an_error(form: str, kept: float) -> None:
    packed = PACK[form](CONTENT)

    with pytest.raises(BadArchive, match=r"too early|broken"):
        open_decompressed(io.BytesIO(packed[: int(len(packed) * kept)])).read()


@packed_forms
def test_a_stream_with_a_wrong_byte_is_an_error_or_the_content_it_had(form: str) -> None:
    packed = bytearray(PACK[form](b"content" * 1000))
    packed[len(packed) // 2] ^= 0xFF

    try:
        got = open_decompressed(io.BytesIO(bytes(packed))).read()
    except BadArchive:
        return
    assert form == "zstd", "the others keep a checksum"
    assert len(got) <= 7000


@packed_forms
def test_a_bomb_is_read_in_pieces(form: str) -> None:
    """However much a few bytes stand for."""
    bomb = PACK[form](bytes(100 << 20))

    assert len(open_decompressed(io.BytesIO(bomb)).read(1000)) <= 1000


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_the_same_bytes_in_give_the_same_bytes_out(compression: str) -> None:
    def packed() -> bytes:
        out = io.BytesIO()
        with open_compressed(out, compression) as stream:
            stream.write(CONTENT[:100])
            stream.write(CONTENT[100:])
        return out.getvalue()

    assert packed() == packed()
    assert open_decompressed(io.BytesIO(packed())).read() == CONTENT


def test_an_unknown_compression_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="lz4"):
        open_compressed(io.BytesIO(), "lz4")


@every_form
def test_a_layer_knows_the_digests_of_both_its_forms(form: str) -> None:
    packed = PACK[form](CONTENT)

    with LayerReader(io.BytesIO(packed)) as layer:
        layer.read(10)
        layer.drain()

        assert layer.diff_id == f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
        assert (layer.digest, layer.size) == (f"sha256:{hashlib.sha256(packed).hexdigest()}", len(packed))

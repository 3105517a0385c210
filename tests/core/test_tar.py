"""Tars as other programs write them, and ours as they read them."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import BadArchive
from lamina.tar import END_OF_ARCHIVE, EntryType, Header, padding, read_headers, write_header

NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and not name.endswith(b"/"))


def _written(name: str, data: bytes, form: int) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    out.seek(0)
    return out


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize("length", [99, 100, 101, 120, 255, 256, 257, 3000])
def test_a_long_name_is_a_file_wherever_its_short_form_was_cut(form: int, length: int) -> None:
    """Its first hundred bytes may end in a slash, which alone would mean a directory."""
    name = ("d/" * length)[: length - 1] + "x"

    ((header, data),) = ((header, data.read()) for header, data in read_headers(_written(name, b"data", form)))

    assert (header.type, header.path, data) == (EntryType.FILE, name.encode(), b"data")


@given(NAMES, st.binary(max_size=2000), st.integers(0, 2**60), st.integers(-(2**60), 2**62))
def test_what_is_written_is_read(path: bytes, data: bytes, uid: int, mtime_ns: int) -> None:
    header = Header(path, uid=uid, size=len(data), mtime_ns=mtime_ns, xattrs={"user.a=b": data[:50]})
    tar = write_header(header) + data + padding(len(data)) + END_OF_ARCHIVE

    ((read, content),) = ((header, data.read()) for header, data in read_headers(io.BytesIO(tar)))

    assert (read, content) == (header, data)


@given(st.binary(max_size=300).map(lambda noise: noise.ljust(1024, b"\0")), st.integers(0, 1500))
def test_noise_in_an_archive_is_an_error_or_an_archive(noise: bytes, place: int) -> None:
    whole = bytearray(_written("file", b"data" * 200, tarfile.PAX_FORMAT).getvalue())
    whole[place : place + len(noise)] = noise

    try:
        for _, data in read_headers(io.BytesIO(bytes(whole))):
            data.read()
    except BadArchive:
        pass

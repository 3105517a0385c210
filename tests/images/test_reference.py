"""Names of images read as docker reads them."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InvalidName
from lamina.images.familiar import HUB
from lamina.images.reference import Reference, check_digest, is_digest, parse

HEX = "0123456789abcdef"
DIGEST = "sha256:" + HEX * 4

labels = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
ports = st.integers(0, 65535).map(lambda port: f":{port}")
domains = st.one_of(
    st.tuples(labels, labels, st.just("") | ports).map(lambda part: f"{part[0]}.{part[1]}{part[2]}"),
    st.tuples(labels, ports).map("".join),
    st.just("localhost"),
    st.just("[::1]:5000"),
)
components = st.from_regex(r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+){0,2}", fullmatch=True)
paths = st.lists(components, min_size=1, max_size=3).map("/".join)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}", fullmatch=True)
digests = st.text(HEX, min_size=64, max_size=64).map(lambda text: f"sha256:{text}")
references = st.builds(Reference, domains, paths, st.none() | tags, st.none() | digests)


@pytest.mark.parametrize(
    ("typed", "full", "short"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox:x", "docker.io/library/busybox:x", "busybox:x"),
        ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
        ("user/name", "docker.io/user/name", "user/name"),
        ("localhost/name", "localhost/name", "localhost/name"),
        ("localhost:5000/name:tag", "localhost:5000/name:tag", "localhost:5000/name:tag"),
        ("localhost", "docker.io/library/localhost", "localhost"),
        ("host.example/a/b/c:t", "host.example/a/b/c:t", "host.example/a/b/c:t"),
        ("HOST/name", "HOST/name", "HOST/name"),
        ("host:80/name", "host:80/name", "host:80/name"),
        ("[::1]:5000/name", "[::1]:5000/name", "[::1]:5000/name"),
        ("name:tag", "docker.io/library/name:tag", "name:tag"),
        (f"name@{DIGEST}", f"docker.io/library/name@{DIGEST}", f"name@{DIGEST}"),
        (f"name:v1@{DIGEST}", f"docker.io/library/name:v1@{DIGEST}", f"name:v1@{DIGEST}"),
        ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f", "a__b/c--d.e_f"),
    ],
)
def test_a_name_reads_as_docker_reads_it(typed: str, full: str, short: str) -> None:
    reference = parse(typed)

    assert str(reference) == full
    assert reference.familiar == short


@pytest.mark.parametrize(
    "typed",
    [
        "",
        ":tag",
        "name:",
        "name@",
        "/name",
        "name/",
        "a//b",
        "Name",
        "user/Name",
        "-name",
        "name-",
        "a___b",
        "a..b",
        "name:.tag",
        "name:" + "t" * 129,
        "name@sha256:12",
        f"name@sha256:{'A' * 64}",
        f"name@md5:{HEX * 2}",
        HEX * 4,
        "docker.io/" + "a" * 256,
        "host.example:port/name",
        "name:tag\n",
        "nämé",
        "name:tag:tag",
        "host..example/name",
        "-host.example/name",
    ],
)
def test_what_docker_refuses_is_refused(typed: str) -> None:
    with pytest.raises(InvalidName):
        parse(typed)


def test_the_longest_path_and_tag_are_taken() -> None:
    reference = parse("a" * 247 + ":" + "t" * 128)

    assert len(reference.path) == 255  # with library/


def test_latest_is_added_only_where_nothing_was_said() -> None:
    assert parse("busybox").tagged().tag == "latest"
    assert parse("busybox:1").tagged().tag == "1"
    assert parse(f"busybox@{DIGEST}").tagged().tag is None


def test_a_path_that_looks_like_a_registry_keeps_its_domain_when_shortened() -> None:
    reference = parse("docker.io/foo.bar/name")

    assert reference.domain == HUB
    assert parse(reference.familiar) == reference


@given(references)
def test_both_printed_forms_read_back_as_the_same_reference(reference: Reference) -> None:
    assert parse(str(reference)) == reference
    assert parse(reference.familiar) == reference


@given(st.text(string.printable, max_size=60))
def test_any_text_is_read_and_printed_stably_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidName:
        return

    assert parse(str(reference)) == reference == parse(reference.familiar)


@given(digests)
def test_a_digest_is_known_by_its_length_and_letters(digest: str) -> None:
    assert check_digest(digest) == digest
    assert not is_digest(digest[:-1])
    assert not is_digest(digest + "0")
    assert not is_digest(digest.replace("sha256", "sha512"))

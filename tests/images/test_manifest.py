"""Documents are read strictly, and kept byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import BadArchive
from lamina.images.config import chain_ids, read_config
from lamina.images.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    digest_of,
    make_index,
    make_manifest,
    read_document,
)
from lamina.images.platforms import choose

A, B = digest_of(b"a"), digest_of(b"b")


def manifest(**changes: Any) -> dict[str, Any]:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": A, "size": 1},
        "layers": [{"mediaType": OCI_LAYER, "digest": B, "size": 1}],
    }
    return {key: value for key, value in (document | changes).items() if value is not None}


def read(document: Any, media_type: str | None = None) -> Manifest | Index:
    return read_document(json.dumps(document).encode(), "test", media_type)


def test_a_manifest_keeps_its_bytes_and_tells_what_it_points_at() -> None:
    raw = json.dumps(manifest(future={"field": 1}), indent=3).encode()

    found = read_document(raw, "test")

    assert isinstance(found, Manifest)
    assert found.raw == raw
    assert found.digest == digest_of(raw)
    assert (found.config.digest, [layer.digest for layer in found.layers]) == (A, [B])


def test_the_media_type_may_come_from_the_descriptor_or_the_shape() -> None:
    bare = manifest(mediaType=None)

    assert read(bare).media_type == OCI_MANIFEST
    assert read(bare, DOCKER_MANIFEST).media_type == DOCKER_MANIFEST
    assert read({"schemaVersion": 2, "manifests": []}).media_type == OCI_INDEX
    assert isinstance(read({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": []}), Index)


@pytest.mark.parametrize(
    "document",
    [
        [],
        "text",
        {},
        manifest(schemaVersion=1),
        manifest(config=None),
        manifest(layers=None),
        manifest(manifests=[]),
        manifest(layers={}),
        manifest(layers=[1]),
        manifest(mediaType="text/plain"),
        manifest(config={"digest": "sha256:../../x", "size": 1}),
        manifest(config={"digest": A, "size": -1}),
        manifest(config={"digest": A, "size": True}),
        manifest(config={"digest": A, "size": 1e3}),
        manifest(config={"digest": A}),
        manifest(config={"digest": f"sha512:{'a' * 128}", "size": 1}),
        manifest(annotations={"a": 1}),
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "layers": []},
        manifest(layers=[{"digest": B, "size": 1}] * 5000),
    ],
)
def test_what_can_be_understood_in_two_ways_is_refused(document: Any) -> None:
    with pytest.raises(BadArchive):
        read(document)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"schemaVersion":2,"schemaVersion":2}',
        b"[" * 100_000,
        b'{"a":' + b"1" * 5_000_000 + b"}",
    ],
)
def test_what_is_no_honest_json_is_refused(raw: bytes) -> None:
    with pytest.raises(BadArchive):
        read_document(raw, "test")


def test_a_document_that_was_announced_as_something_else_is_refused() -> None:
    with pytest.raises(BadArchive, match="announced"):
        read(manifest(), OCI_INDEX)


def test_what_we_write_reads_back_and_is_always_the_same() -> None:
    layer = Descriptor(OCI_LAYER, B, 7, annotations={"z": "1", "a": "2"})
    made = make_manifest(Descriptor(OCI_CONFIG, A, 5), (layer,), {"k": "v"})
    index = make_index((made.descriptor(platform=Platform("linux", "arm64", "v8")),))

    assert read_document(made.raw, "test") == made
    assert read_document(index.raw, "test") == index
    assert made.raw == make_manifest(Descriptor(OCI_CONFIG, A, 5), (layer,), {"k": "v"}).raw


def test_chain_ids_are_those_of_the_specification() -> None:
    first, second = chain_ids([A, B])

    assert first == A
    assert second == digest_of(f"{A} {B}".encode())


def test_a_config_tells_its_layers_and_keeps_its_bytes() -> None:
    raw = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-05-06T07:08:09.123456789+02:00",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [A]},
            "history": [{"created": "0001-01-01T00:00:00Z", "created_by": "x", "empty_layer": True}, {}],
        }
    ).encode()

    config = read_config(raw)

    assert config.raw == raw
    assert config.diff_ids == (A,)
    assert config.created is not None
    assert config.created.isoformat() == "2024-05-06T05:08:09.123456+00:00"
    assert config.history[0].empty_layer


@pytest.mark.parametrize(
    "document",
    [
        {"rootfs": {"type": "squash", "diff_ids": []}},
        {"rootfs": {"diff_ids": ["latest"]}},
        {"rootfs": {"diff_ids": [1]}},
        {"created": "yesterday"},
        {"created": "2024-13-45T00:00:00Z"},
        {"history": [{"empty_layer": "yes"}]},
        {"config": []},
    ],
)
def test_a_config_that_lies_about_its_form_is_refused(document: Any) -> None:
    with pytest.raises(BadArchive):
        read_config(json.dumps(document).encode())


def entry(architecture: str, variant: str = "", **annotations: str) -> Descriptor:
    return Descriptor(OCI_MANIFEST, A, 1, Platform("linux", architecture, variant), annotations)


def test_the_best_variant_of_the_wanted_platform_is_chosen_first() -> None:
    entries = [entry("arm64"), entry("arm", "v6"), entry("arm", "v7"), entry("arm", "v8"), entry("amd64")]

    assert choose(entries, "linux/arm/v7") == (entries[2], entries[1])
    assert choose(entries, "arm64") == (entries[0],)
    assert choose(entries, "linux/amd64") == (entries[4],)
    assert choose(entries, "linux/s390x") == ()


def test_attestations_are_never_chosen_and_what_names_no_platform_fits_any() -> None:
    plain = Descriptor(OCI_MANIFEST, B, 1)
    attestation = attested = Descriptor(
        OCI_MANIFEST, A, 1, Platform("unknown", "unknown"), {"vnd.docker.reference.type": "attestation-manifest"}
    )

    assert choose([attestation, attested, plain, entry("amd64")], "amd64") == (entry("amd64"), plain)


keys = st.sampled_from(["schemaVersion", "layers", "config", "manifests", "digest", "size", "annotations"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner),
)


@given(values)
def test_any_json_is_a_document_or_a_bad_archive(value: Any) -> None:
    try:
        read(value)
    except BadArchive:
        return

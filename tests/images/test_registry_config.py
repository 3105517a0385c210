"""What the config says of registries, what challenges ask for, and whose secrets are shown."""

from __future__ import annotations

from typing import Any

import pytest

from lamina.errors import BadRequest, ConfigError
from lamina.images.login import Credentials
from lamina.images.login_check import registry_named
from lamina.images.registry_auth import read_challenges
from lamina.images.registry_config import Registries, full_name, is_loopback, read_registries


def test_nothing_has_to_be_said() -> None:
    assert read_registries({}) == Registries()


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"colour": 1}, "colour"),
        ({"parallel": 0}, "parallel"),
        ({"chunk": "many"}, "chunk"),
        ({"default": "no spaces"}, "default"),
        ({"default": "plainword"}, "default"),
        ({"names": {"x": "a b"}}, "names"),
        ({"hosts": 1}, "hosts"),
        ({"hosts": {"a b": {}}}, "a b"),
        ({"hosts": {"a.example": {"insecure": "yes"}}}, "insecure"),
        ({"hosts": {"a.example": {"ca": "relative.pem"}}}, "absolute"),
        ({"hosts": {"a.example": {"key": "/k.pem"}}}, "cert"),
        ({"hosts": {"a.example": {"mirrors": ["nowhere"]}}}, "mirrors"),
    ],
)
def test_what_makes_no_sense_is_named(table: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        read_registries(table)


def test_short_names_mean_what_the_config_says_and_full_names_what_they_are() -> None:
    rules = read_registries({"default": "reg.example/mirror", "names": {"box": "other.example/box:9"}})

    meant = {text: str(full_name(text, rules)) for text in ("box", "box:1", "else", "docker.io/library/box")}

    assert meant == {
        "box": "other.example/box:9",
        "box:1": "other.example/box:1",
        "else": "reg.example/mirror/else",
        "docker.io/library/box": "docker.io/library/box",
    }


@pytest.mark.parametrize(
    ("host", "ours"),
    [("localhost", True), ("127.8.9.1", True), ("[::1]", True), ("127.0.0.1.example.com", False), ("10.0.0.1", False)],
)
def test_only_this_machine_is_loopback(host: str, ours: bool) -> None:  # noqa: FBT001
    assert is_loopback(host) is ours


def test_challenges_are_read_as_the_standard_has_them() -> None:
    header = 'Basic realm="a, b", Bearer realm="https://x/t",service=s,scope="repository:a:pull repository:b:pull"'

    basic, bearer = read_challenges([header])

    assert (basic.scheme, basic.parameters) == ("basic", {"realm": "a, b"})
    assert bearer.parameters["service"] == "s"
    assert bearer.scopes == {"repository:a:pull", "repository:b:pull"}


@pytest.mark.parametrize("header", ["", "=", ",,,", '"', "Bearer " + "a" * 100_000])
def test_a_challenge_that_is_garbage_is_no_challenge(header: str) -> None:
    assert all(not each.parameters for each in read_challenges([header]))


@pytest.mark.parametrize(
    ("typed", "host"),
    [(None, "docker.io"), ("https://index.docker.io/v1/", "docker.io"), ("localhost:5000", "localhost:5000")],
)
def test_a_registry_is_named_as_people_do(typed: str | None, host: str) -> None:
    assert registry_named(typed) == host


def test_what_is_no_registry_is_refused() -> None:
    with pytest.raises(BadRequest):
        registry_named("a b")


def test_a_secret_is_not_in_its_own_description() -> None:
    assert "hidden" not in repr(Credentials("bob", "hidden", "hidden"))

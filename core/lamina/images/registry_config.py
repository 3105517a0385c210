"""What the config file says of registries: how to reach each, mirrors, and what short names mean."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from lamina.config import options_of
from lamina.errors import ConfigError, InvalidName
from lamina.images.familiar import HUB, names_a_registry
from lamina.images.reference import Reference, parse

HUB_API: Final = "registry-1.docker.io"  # where the registry that everybody calls docker.io really is
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]+)?|\[[0-9A-Fa-f:]+\](?::[0-9]+)?")


@attrs.frozen
class Host:
    """How one registry is reached: a table `[registries.hosts."HOST[:PORT]"]`."""

    insecure: bool = False  # plain HTTP, or a certificate that nobody vouches for, will do
    ca: Path | None = None  # authorities besides the system's, as PEM
    cert: Path | None = None  # who we are, as PEM
    key: Path | None = None  # the key of `cert`, if it is in a file of its own
    mirrors: tuple[str, ...] = ()  # asked first when pulling, each HOST[:PORT][/PREFIX]


@attrs.frozen
class Registries:
    """The table `[registries]`."""

    default: str = HUB  # where a name without a registry is looked for, HOST[:PORT][/PREFIX]
    names: Mapping[str, str] = attrs.field(factory=dict)  # short names that mean something else
    timeout: float = 60.0  # seconds in which a registry has to show some progress
    retries: int = 5  # tries at one request in all
    parallel: int = 3  # blobs at once
    chunk: int = 64 << 20  # blobs above this size are pushed in pieces of it; 0 never does
    hosts: Mapping[str, Host] = attrs.field(factory=dict)

    def host(self, name: str) -> Host:
        """How to reach this one, by its name or that of its API."""
        return self.hosts.get(HUB if name == HUB_API else name, Host())


def read_registries(table: Mapping[str, Any]) -> Registries:
    """The table as a record; ConfigError says what is wrong with it."""
    where = "[registries]"
    rest = {name: value for name, value in table.items() if name != "hosts"}
    found: Registries = options_of(Registries, rest, where)
    hosts = table.get("hosts", {})
    if not isinstance(hosts, dict):
        raise ConfigError(f'{where} hosts: is not a table; say [registries.hosts."HOST"]')
    found = attrs.evolve(found, hosts={name: _read_host(name, each) for name, each in hosts.items()})
    _check(found, where)
    return found


def full_name(text: str, registries: Registries) -> Reference:
    """The name as it is typed, with the rules for short names applied; InvalidName."""
    first, slash, _ = text.partition("/")
    if slash and names_a_registry(first):
        return parse(text)
    short, tail = re.fullmatch(r"([^:@]*)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]  # fits any text
    if (meant := registries.names.get(short)) is not None:
        found = parse(meant)
        return parse(f"{found.repository}{tail}") if tail else found
    return parse(text) if registries.default == HUB else parse(f"{registries.default}/{text}")


def is_loopback(host: str) -> bool:
    """Whether a host (without a port) can only be this machine, so that plain HTTP gives nothing away."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _read_host(name: str, table: Any) -> Host:
    where = f'[registries.hosts."{name}"]'
    if not _HOST.fullmatch(name):
        raise ConfigError(f"{where}: the name of a table is HOST or HOST:PORT")
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: {table!r} is not a table")
    host: Host = options_of(Host, table, where)
    for option in ("ca", "cert", "key"):
        path: Path | None = getattr(host, option)
        if path is not None and not path.is_absolute():
            raise ConfigError(f"{where} {option}: {str(path)!r} is not an absolute path")
    if host.key is not None and host.cert is None:
        raise ConfigError(f"{where}: key without cert")
    for mirror in host.mirrors:
        _check_place(mirror, f"{where} mirrors")
    return host


def _check(found: Registries, where: str) -> None:
    for option in ("timeout", "retries", "parallel"):
        if getattr(found, option) <= 0:
            raise ConfigError(f"{where} {option}: has to be more than 0")
    if found.chunk < 0:
        raise ConfigError(f"{where} chunk: has to be a size, or 0 for never")
    _check_place(found.default, f"{where} default")
    for short, meant in found.names.items():
        try:
            parse(meant)
        except InvalidName as error:
            raise ConfigError(f"[registries.names] {short}: {error}") from error


def _check_place(text: str, where: str) -> None:
    try:
        parse(f"{text}/name")
    except InvalidName as error:
        raise ConfigError(f"{where}: {text!r} is not HOST[:PORT][/PREFIX]") from error
    if not names_a_registry(text.partition("/")[0]):
        raise ConfigError(f"{where}: {text!r} does not begin with a registry such as example.com or localhost:5000")

"""How a container is to run, beyond what its image says: what `run` and `create` are told."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from lamina.containers.capabilities import check_capability
from lamina.containers.volumes import Volume, parse_volume, refuse_twice
from lamina.errors import BadRequest

NETWORKS: Final = ("none", "host")
_HOSTNAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]{0,63}")


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value)


@attrs.frozen
class Options:
    """One container's way to run. Sizes in bytes, `cpus` in whole processors; 0 is without limit."""

    interactive: bool = False
    terminal: bool = False
    remove: bool = False
    environment: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    volumes: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    workdir: str = ""
    user: str = ""
    entrypoint: tuple[str, ...] | None = None
    network: str = "none"
    read_only: bool = False
    hostname: str = ""
    memory: int = 0
    cpus: float = 0.0
    pids: int = 0
    cap_add: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    cap_drop: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    privileged: bool = False
    labels: Mapping[str, str] = attrs.field(factory=dict)
    no_new_privileges: bool = False
    seccomp: str = ""  # a profile's path, "unconfined", or the usual one

    def checked(self) -> Options:
        """Itself; BadRequest says what cannot be meant."""
        if self.network not in NETWORKS:
            raise BadRequest(f"there is no network {self.network!r}; there are {' and '.join(NETWORKS)}")
        if self.hostname and not _HOSTNAME.fullmatch(self.hostname):
            raise BadRequest(f"{self.hostname!r} cannot be a hostname")
        for name in (*self.cap_add, *self.cap_drop):
            check_capability(name)
        if self.memory < 0 or self.cpus < 0 or (0 < self.memory < _LEAST_MEMORY):
            raise BadRequest("a limit of memory is 6 MiB or more, and one of processors above 0")
        refuse_twice(self.mounts())
        return self

    def mounts(self) -> tuple[Volume, ...]:
        """The volumes, read."""
        return tuple(parse_volume(each) for each in self.volumes)


def merged(asked: Iterable[str], usual: Iterable[str]) -> list[str]:
    """What was asked for, then what is usual besides, as docker has it. A bare NAME is ours, or none if we lack it."""
    entries = [entry if "=" in entry or entry not in os.environ else f"{entry}={os.environ[entry]}" for entry in asked]
    table = {entry.partition("=")[0]: entry for entry in entries}  # the last one wins
    return [*table.values(), *(entry for entry in usual if entry.partition("=")[0] not in table)]


_LEAST_MEMORY: Final = 6 << 20  # docker's: with less, no runtime starts


def write_options(options: Options) -> dict[str, Any]:
    """As JSON has it; what is as usual is left out."""
    usual = Options()
    fields = attrs.asdict(options, recurse=False)
    return {name: value for name, value in fields.items() if value != getattr(usual, name)}


def read_options(table: Mapping[str, Any]) -> Options:
    """As they were written. What a newer version has added is left out."""
    known = {field.name for field in attrs.fields(Options)}
    values = {name: value for name, value in table.items() if name in known}
    if values.get("entrypoint") is not None:
        values["entrypoint"] = tuple(values["entrypoint"])
    return Options(**values)

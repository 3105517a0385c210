"""An engine for a store, as the config and the caller's rights have it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.containers.engine import Engine, Surroundings, Tell
from lamina.containers.mending import repair
from lamina.containers.options import NETWORKS
from lamina.containers.userns import in_namespace, state_directory
from lamina.errors import ConfigError

if TYPE_CHECKING:
    from lamina.containers.store import Containers

_KNOWN = ("runtime", "network")


def open_engine(containers: Containers, table: Mapping[str, Any], again: tuple[str, ...], tell: Tell) -> Engine:
    """The engine; what crashes have left of its containers is repaired, and told."""
    rootless = in_namespace()
    state = state_directory() if rootless else Path("/run/lamina")
    engine = Engine(containers, Surroundings(_runtimes(table), state, again, rootless), tell)
    repair(engine)
    return engine


def usual_network(table: Mapping[str, Any]) -> str:
    """What a container gets that says nothing."""
    _check(table)
    network = table.get("network", NETWORKS[0])
    if network not in NETWORKS:
        raise ConfigError(f"[containers] network: {network!r} is none of {', '.join(NETWORKS)}")
    return str(network)


def _runtimes(table: Mapping[str, Any]) -> tuple[str, ...]:
    _check(table)
    value = table.get("runtime", [])
    names = [value] if isinstance(value, str) else value
    if not (isinstance(names, list) and all(isinstance(name, str) and name for name in names)):
        raise ConfigError(f'[containers] runtime: {value!r} is not a name like "crun", a path, or a list of such')
    return tuple(names)


def _check(table: Mapping[str, Any]) -> None:
    for key in table:
        if key not in _KNOWN:
            raise ConfigError(f"[containers]: unknown key {key!r}; known are {', '.join(_KNOWN)}")


def command_again(options: Mapping[str, str]) -> tuple[str, ...]:
    """How to call ourselves with these global options."""
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return (sys.executable, "-P", "-m", "lamina.cli.main", *words)

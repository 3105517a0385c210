"""Containers as the catalog lists them, without a driver."""

from __future__ import annotations

from pathlib import Path

import attrs

from lamina.containers.container import Container, read_container
from lamina.containers.life import is_odd, seen
from lamina.containers.rooms import room_of
from lamina.images.catalog import Rows
from lamina.images.listing import listed


def list_containers(root: Path) -> tuple[Container, ...]:
    """All of them as they are at this moment, the newest first."""
    with listed(root) as rows:
        noted = () if rows is None else containers_in(rows)
    return tuple(attrs.evolve(each, life=seen(each.life, room_of(root, each.id).path)) for each in noted)


def any_odd(root: Path) -> bool:
    """Whether a crash has left one in a state that wants repair."""
    with listed(root) as rows:
        noted = () if rows is None else containers_in(rows)
    return any(is_odd(each.life, room_of(root, each.id).path) for each in noted)


def containers_in(rows: Rows) -> tuple[Container, ...]:
    """As `list_containers`, of a catalog that is open."""
    return tuple(read_container(record) for record in rows.containers())

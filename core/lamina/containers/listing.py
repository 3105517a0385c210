"""Containers as the catalog lists them, without a driver."""

from __future__ import annotations

from pathlib import Path

from lamina.containers.container import Container, read_container
from lamina.images.catalog import Rows
from lamina.images.listing import listed


def list_containers(root: Path) -> tuple[Container, ...]:
    """All of them, the newest first."""
    with listed(root) as rows:
        return () if rows is None else containers_in(rows)


def containers_in(rows: Rows) -> tuple[Container, ...]:
    """As `list_containers`, of a catalog that is open."""
    return tuple(read_container(record) for record in rows.containers())

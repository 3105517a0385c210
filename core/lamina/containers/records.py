"""Containers in the catalog: found by name, named, written."""

from __future__ import annotations

import re
import secrets

import attrs

from lamina.containers.container import Container, read_container, write_container
from lamina.containers.names import random_name
from lamina.errors import AlreadyExists, BadRequest, NotFound
from lamina.images.catalog import Rows

_ID = re.compile(r"[0-9a-f]{1,64}")


def find(rows: Rows, text: str) -> Container:
    """By name, id, or the beginning of an id; NotFound."""
    if (record := rows.container(text.removeprefix("/"))) is not None:
        return read_container(record)
    found = rows.containers_beginning(text) if _ID.fullmatch(text) else ()
    if len(found) > 1:
        raise BadRequest(f"{text!r} is the beginning of {len(found)} container IDs; give more digits")
    if not found:
        raise NotFound(f"no container {text!r}; `lamina ps -a` lists those that are")
    return read_container(found[0])


def named(rows: Rows, container: Container) -> Container:
    """The container with a name that is free; AlreadyExists if it was asked for one that is not."""
    if container.name:
        refuse_taken(rows, container)
        return container
    name = random_name()
    while rows.container(name) is not None:
        name = f"{random_name()}{secrets.randbelow(1000)}"
    return attrs.evolve(container, name=name)


def refuse_taken(rows: Rows, container: Container) -> None:
    """AlreadyExists if another container has its name."""
    taken = rows.container(container.name)
    if taken is not None and (other := read_container(taken)).id != container.id:
        raise AlreadyExists(f"the name {container.name!r} is used by container {other.short_id}; remove or rename it")


def put(rows: Rows, container: Container) -> None:
    """It is kept as it is now."""
    created = container.created.isoformat(timespec="microseconds")
    rows.put_container(
        (container.id, container.name, container.image, container.driver, created), write_container(container)
    )

"""A container's record: from which image, on which snapshot, how it would start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from lamina.errors import StoreBroken
from lamina.images.fields import format_time


@attrs.frozen
class Container:
    """One container of the store."""

    id: str  # 64 hexadecimal digits
    name: str
    image: str  # the image's id; a forced rmi may have taken the image itself
    manifest: str
    image_name: str  # as it was asked for
    driver: str
    snapshot: str  # the key of its writable layer
    created: datetime
    settings: Mapping[str, Any] = attrs.field(factory=dict)  # the image's, and what was asked for beyond
    state: str = "created"

    @property
    def short_id(self) -> str:
        """The twelve digits that people see."""
        return self.id[:12]

    @property
    def command(self) -> tuple[str, ...]:
        """What would be started."""
        return (*(self.settings.get("Entrypoint") or ()), *(self.settings.get("Cmd") or ()))


def write_container(container: Container) -> str:
    """As it is kept."""
    fields = attrs.asdict(container, recurse=False)
    fields["created"] = format_time(container.created)
    fields["settings"] = dict(container.settings)
    return json.dumps(fields, sort_keys=True)


def read_container(text: str) -> Container:
    """As it was kept. Fields that a newer version has added are left out; StoreBroken if one is missing."""
    try:
        fields = json.loads(text)
        known = {field.name: fields[field.name] for field in attrs.fields(Container) if field.name in fields}
        known["created"] = datetime.fromisoformat(known["created"]).astimezone(UTC)
        return Container(**known)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreBroken(f"the record of a container cannot be read: {error}") from error


def inspect(container: Container, size: int | None) -> dict[str, Any]:
    """As `docker container inspect` has it, of what is known before a container runs."""
    command = container.command
    return {
        "Id": container.id,
        "Created": format_time(container.created),
        "Path": command[0] if command else "",
        "Args": list(command[1:]),
        "State": {"Status": container.state, "Running": False, "Paused": False, "Pid": 0, "ExitCode": 0},
        "Image": container.image,
        "Name": f"/{container.name}",
        "Driver": container.driver,
        "GraphDriver": {"Name": container.driver, "Data": {"Snapshot": container.snapshot}},
        "Config": {**container.settings, "Image": container.image_name},
    } | ({} if size is None else {"SizeRw": size})

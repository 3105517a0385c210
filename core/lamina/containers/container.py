"""A container's record: from which image, on which snapshot, how it would start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from lamina.containers.life import Life, State, read_life, write_life
from lamina.containers.options import Options, read_options, write_options
from lamina.containers.volumes import Volume
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
    options: Options = attrs.field(factory=Options)
    life: Life = attrs.field(factory=Life)  # as it was noted
    volumes: tuple[Volume, ...] = ()  # those of the store; what of the host it sees is in its options

    @property
    def short_id(self) -> str:
        """The twelve digits that people see."""
        return self.id[:12]

    @property
    def state(self) -> str:
        """As docker calls it; what is being started was only created so far."""
        return "created" if self.life.state is State.STARTING else self.life.state.value

    @property
    def command(self) -> tuple[str, ...]:
        """What would be started."""
        return (*(self.settings.get("Entrypoint") or ()), *(self.settings.get("Cmd") or ()))


def write_container(container: Container) -> str:
    """As it is kept."""
    fields = attrs.asdict(container, recurse=False)
    fields["created"] = format_time(container.created)
    fields["settings"] = dict(container.settings)
    fields["options"] = write_options(container.options)
    fields["life"] = write_life(container.life)
    fields["volumes"] = [attrs.asdict(volume) for volume in container.volumes]
    return json.dumps(fields, sort_keys=True)


def read_container(text: str) -> Container:
    """As it was kept. Fields that a newer version has added are left out; StoreBroken if one is missing."""
    try:
        fields = json.loads(text)
        known = {field.name: fields[field.name] for field in attrs.fields(Container) if field.name in fields}
        known["created"] = datetime.fromisoformat(known["created"]).astimezone(UTC)
        known["options"] = read_options(known.get("options", {}))
        known["life"] = read_life(known.get("life", {}))
        known["volumes"] = tuple(Volume(**volume) for volume in known.get("volumes", ()))
        return Container(**known)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreBroken(f"the record of a container cannot be read: {error}") from error


def inspect(container: Container, size: int | None) -> dict[str, Any]:
    """As `docker container inspect` has it."""
    command, life = container.command, container.life
    return {
        "Id": container.id,
        "Created": format_time(container.created),
        "Path": command[0] if command else "",
        "Args": list(command[1:]),
        "State": {
            "Status": container.state,
            "Running": life.state.up,
            "Paused": life.state is State.PAUSED,
            "OOMKilled": life.out_of_memory,
            "Pid": life.process.pid if life.process and life.state.up else 0,
            "ExitCode": life.code,
            "Error": life.error,
            "StartedAt": _moment(life.started),
            "FinishedAt": _moment(life.finished),
        },
        "Image": container.image,
        "Name": f"/{container.name}",
        "Driver": container.driver,
        "GraphDriver": {"Name": container.driver, "Data": {"Snapshot": container.snapshot}},
        "HostConfig": _host_config(container.options),
        "Config": {
            **container.settings,
            "Image": container.image_name,
            "Hostname": container.options.hostname or container.short_id,
            "Tty": container.options.terminal,
            "OpenStdin": container.options.interactive,
        },
    } | ({} if size is None else {"SizeRw": size})


def _moment(text: str) -> str:
    return format_time(datetime.fromisoformat(text)) if text else "0001-01-01T00:00:00Z"


def _host_config(options: Options) -> dict[str, Any]:
    return {
        "Binds": list(options.volumes),
        "NetworkMode": options.network,
        "AutoRemove": options.remove,
        "CapAdd": list(options.cap_add),
        "CapDrop": list(options.cap_drop),
        "Privileged": options.privileged,
        "ReadonlyRootfs": options.read_only,
        "Memory": options.memory,
        "NanoCpus": int(options.cpus * 1_000_000_000),
        "PidsLimit": options.pids or None,
    }

"""Another command in a container that runs."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import attrs

from lamina.containers import monitor
from lamina.containers.attaching import Streams, connect, join
from lamina.containers.container import Container
from lamina.containers.engine import Engine
from lamina.containers.life import State
from lamina.containers.places import inside
from lamina.containers.spec import make_process
from lamina.containers.users import find_user
from lamina.errors import BadRequest
from lamina.trees import remove_tree


@attrs.frozen
class Command:
    """What is to be run, and how."""

    words: tuple[str, ...]
    interactive: bool = False
    terminal: bool = False
    environment: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    privileged: bool = False
    keys: bytes = b""


def execute(engine: Engine, name: str, command: Command) -> int | None:
    """Run it, joined to our streams; its exit code, or None if the keys were typed that leave it alone.

    BadRequest if the container does not run, CannotRun and its kin if the command cannot.
    """
    container = _running(engine, name)
    with _room(engine, container) as room:
        session = _session(engine, container, command, room, attach=True)
        try:
            with connect(room) as line:
                session.begin()
                if not join(line, Streams(room, command.interactive, command.terminal, command.keys)):
                    return None
            return session.wait()
        finally:
            session.close()


def execute_detached(engine: Engine, name: str, command: Command) -> None:
    """Run it, and leave it alone."""
    container = _running(engine, name)
    with _room(engine, container) as room:
        session = _session(engine, container, command, room, attach=False)
        try:
            session.begin()
        finally:
            session.close()


def _running(engine: Engine, name: str) -> Container:
    container = engine.running(name)
    if container.life.state is State.PAUSED:
        raise BadRequest(f"container {container.name} is paused; unpause it first")
    return container


@contextlib.contextmanager
def _room(engine: Engine, container: Container) -> Iterator[Path]:
    """A directory for the monitor of one command; the kernel keeps what is open in it for as long as it is used."""
    room = engine.room(container).path / "exec" / secrets.token_hex(8)
    room.mkdir(mode=0o700, parents=True)
    try:
        yield room
    finally:
        remove_tree(room)


def _session(engine: Engine, container: Container, command: Command, room: Path, *, attach: bool) -> monitor.Session:
    spec = room / "process.json"
    spec.write_text(json.dumps(_process(engine, container, command)), encoding="utf-8")
    return monitor.execute(
        engine.runtime_of(container),
        container.id,
        room,
        spec,
        terminal=command.terminal,
        interactive=command.interactive,
        attach=attach,
    )


def _process(engine: Engine, container: Container, command: Command) -> dict[str, object]:
    options = attrs.evolve(
        container.options,
        environment=(*container.options.environment, *command.environment),
        terminal=command.terminal,
        privileged=container.options.privileged or command.privileged,
    )
    settings = {**container.settings, "Entrypoint": None, "Cmd": list(command.words)}
    if command.workdir:
        settings["WorkingDir"] = os.path.normpath(os.path.join("/", command.workdir))
    with inside(engine.room(container).rootfs) as tree:
        user = find_user(tree, command.user or container.options.user or container.settings.get("User") or "")
    hostname = container.options.hostname or container.short_id
    return make_process(settings, options, user, hostname)

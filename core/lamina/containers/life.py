"""What becomes of a container: created, running, paused, exited; as it was noted, and as it is."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from lamina.containers.processes import Process

UNKNOWN_CODE: Final = 255  # as docker reports a container that a reboot has ended


class State(enum.Enum):
    """As docker calls them; `starting` is ours, for what a crash may cut short."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"

    @property
    def up(self) -> bool:
        """Whether there is a process."""
        return self in {State.RUNNING, State.PAUSED}


@attrs.frozen
class Life:
    """The present, or else the last, life of a container. Times in ISO 8601."""

    state: State = State.CREATED
    process: Process | None = None
    monitor: Process | None = None
    runtime: str = ""  # the program that made it
    started: str = ""
    finished: str = ""
    code: int = 0
    error: str = ""
    out_of_memory: bool = False


def write_life(life: Life) -> dict[str, Any]:
    """As JSON has it."""
    return attrs.asdict(life, value_serializer=lambda _, __, value: value.value if isinstance(value, State) else value)


def read_life(table: Mapping[str, Any]) -> Life:
    """As it was written; what a newer version has added is left out."""
    known = {field.name: table[field.name] for field in attrs.fields(Life) if field.name in table}
    known["state"] = State(known.get("state", "created"))
    for key in ("process", "monitor"):
        if known.get(key) is not None:
            known[key] = Process(**known[key])
    return Life(**known)


def seen(life: Life, room: Path) -> Life:
    """How it is at this moment, whatever was noted: a process may have ended, and nobody has written it down yet."""
    if not life.state.up or (life.process is not None and life.process.alive):
        return life
    code, finished = exit_of(room)
    if code is None and life.monitor is not None and life.monitor.alive:
        return life  # it is about to write down how this ended
    error = life.error
    if code is None and not error:
        error = "nobody was there to see it end, so its exit code is not known"
    return attrs.evolve(
        life,
        state=State.EXITED,
        process=None,
        code=UNKNOWN_CODE if code is None else code,
        finished=finished,
        error=error,
        out_of_memory=(room / "oom").exists(),
    )


def is_odd(life: Life, room: Path) -> bool:
    """Whether a crash has left it in a state that wants repair."""
    if life.state is State.STARTING:
        return True
    if not life.state.up:
        return False
    watched = life.monitor is not None and life.monitor.alive
    if seen(life, room).state.up:
        return not watched and not life.error
    return not watched  # else its monitor is about to have it noted


def exit_of(room: Path) -> tuple[int | None, str]:
    """The exit code that the monitor has left, if it has, and when that was."""
    from datetime import UTC, datetime  # noqa: PLC0415  # for those who have ended only

    try:
        text = (room / "exit").read_text(encoding="ascii")
        moment = datetime.fromtimestamp((room / "exit").stat().st_mtime, UTC)
    except FileNotFoundError:
        return None, datetime.now(UTC).isoformat()
    return (int(text) if text.strip().lstrip("-").isdigit() else None), moment.isoformat()

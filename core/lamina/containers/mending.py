"""After a crash: containers are put in order, and what was wrong with them is named."""

from __future__ import annotations

import attrs

from lamina.containers.container import Container
from lamina.containers.engine import Engine
from lamina.containers.life import UNKNOWN_CODE, Life, State, is_odd, seen


def repair(engine: Engine) -> None:
    """What crashes have left of containers is put in order, and named. One at which somebody works is left."""
    for container in engine.containers.list():
        if container.driver == engine.containers.driver and is_odd(container.life, engine.room(container).path):
            _repair(engine, container)


def _repair(engine: Engine, container: Container) -> None:
    room = engine.room(container)
    with room.try_locked() as free:
        if not free:
            return
        container = engine.containers.find(container.id)
        was, life = container.life, seen(container.life, room.path)
        if was.state is State.STARTING or not life.state.up:
            engine.settle(container)
            if was.state is not State.STARTING:
                engine.tell(f"container {container.name} had ended{_with(life)}, and nobody had noted it; now it is")
        elif not was.error and was.monitor is not None and not was.monitor.alive:
            why = "its monitor died: what it writes is lost, and so will be its exit code"
            engine.note(container, attrs.evolve(was, error=why))
            engine.tell(f"container {container.name} runs, but {why}")
            return
    if container.options.remove and not life.state.up and was.state is not State.STARTING:
        engine.remove(container.id)


def _with(life: Life) -> str:
    return "" if life.code == UNKNOWN_CODE and life.error else f" (exit code {life.code})"

"""A container that stands still for a moment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lamina.containers.engine import Engine
from lamina.containers.life import State
from lamina.errors import CannotRun


@contextlib.contextmanager
def still(engine: Engine, name: str, *, wanted: bool) -> Iterator[None]:
    """It stands still for the length of a `with`, if it runs and that is possible here; else that is told."""
    paused = None
    if wanted and engine.find(name).life.state is State.RUNNING:
        try:
            paused = engine.pause(name)
        except CannotRun as error:
            engine.tell(f"container {engine.find(name).name} goes on meanwhile: {error}")
    try:
        yield
    finally:
        if paused is not None:
            engine.unpause(paused.id)

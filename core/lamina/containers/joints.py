"""How our streams are joined to those of a container: by what it was made with, and by what we are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable

from lamina.containers.attaching import Streams
from lamina.containers.container import Container
from lamina.containers.engine import Engine


def ended(engine: Engine, name: str) -> Callable[[float], bool]:
    """A question that is answered within the seconds it is given: has it ended?"""
    process = engine.find(name).life.process
    return lambda patience: process is None or process.wait(patience)


def streams(engine: Engine, container: Container, *, interactive: bool, keys: bytes, proxy: bool) -> Streams:
    """How `join` is to carry what goes to and fro."""

    def hand_on(number: int) -> None:
        now = engine.find(container.id).life
        if now.state.up and now.process is not None:
            now.process.kill(number)

    terminal = container.options.terminal
    return Streams(
        engine.room(container).path,
        interactive and container.options.interactive,
        terminal,
        keys,
        hand_on if proxy and not (terminal and os.isatty(0)) else None,
    )

"""How our streams are joined to those of a container: by what it was made with, and by what we are asked for."""

from __future__ import annotations

import os

from lamina.containers.attaching import Streams
from lamina.containers.container import Container
from lamina.containers.engine import Engine


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

"""Drivers that the plugin, not a single test, has to deal with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import attrs

from lamina.driver import Health
from lamina.layer import Layer
from lamina_vfs.driver import VfsDriver


class Sick(VfsDriver):
    """Cannot be used on this machine."""

    def health(self) -> Health:
        """Say why."""
        return Health(problems=("the moon is not full; wait two weeks",))


@attrs.frozen
class Pool:
    """Options of three types."""

    pool: str
    retries: int = 1
    fast: bool = False


class Particular(VfsDriver):
    """Wants to be told things."""

    Options = Pool

    def __init__(self, home: Path, options: Any = None) -> None:
        assert options == Pool("tank", retries=3, fast=True), options
        super().__init__(home, options)


class Asleep(VfsDriver):
    """Never comes back from prepare."""

    def prepare(self, layer: Layer) -> None:
        """Wait for ever."""
        time.sleep(3600)


NOT_A_DRIVER = 42

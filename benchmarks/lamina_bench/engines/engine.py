"""What a tool has to say so that it can be compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import attrs

from lamina_bench.cleaning import clear
from lamina_bench.image import Image
from lamina_bench.measuring import Cost, measure, measure_both, run

Command = Sequence[str]


@attrs.frozen
class Engine(ABC):
    """One tool with one way to store. A work that it has no command for is None.

    Use it in a `with`: its store lies in `room`, is empty at the beginning and gone at the end.
    """

    room: Path
    programs: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def name(self) -> str:
        """As it stands in the tables."""

    @property
    @abstractmethod
    def stores(self) -> str:
        """How layers are stored: "overlay" or "copies". Only those of one kind are compared."""

    @property
    @abstractmethod
    def durability(self) -> str:
        """What is on the disk when `load` returns."""

    @property
    def environ(self) -> Mapping[str, str]:
        """What its commands find in the environment."""
        return {}

    def __enter__(self) -> Self:
        clear(self.room)
        self.room.mkdir(parents=True)
        self.room.chmod(0o711)
        return self

    def __exit__(self, *_: object) -> None:
        clear(self.room)

    def measure(self, *commands: Command) -> Cost:
        """What it costs to run these, one after the other."""
        first, *others = (measure(command, self.environ) for command in commands)
        for other in others:
            first = first.plus(other)
        return first

    def run(self, command: Command) -> str:
        """Run a command that is not measured."""
        return run(command, self.environ)

    def measure_first(self, command: Command) -> tuple[Cost, float]:
        """What it costs, and the seconds until the first byte of its output."""
        return measure_both(command, self.environ)

    # the works

    @abstractmethod
    def load(self, image: Image) -> Command:
        """Bring the image in from files, unpacked."""

    def save(self, image: Image, target: Path) -> Command | None:
        """Write it as one file, layers as they were compressed."""
        return None

    def remove(self, image: Image) -> Command | None:
        """Forget it and free its space."""
        return None

    def list_images(self) -> Command | None:
        """List the images."""
        return None

    def list_containers(self) -> Command | None:
        """List the containers."""
        return None

    # registries: they speak plain HTTP, and are called HOST:PORT

    def pull(self, image: Image, host: str) -> Command | None:
        """Bring the image in from a registry, unpacked."""
        return None

    def name_for(self, image: Image, host: str, other: str) -> Command | None:
        """What was pulled from `host` is named for a push to `other`, if it has to be."""
        return None

    def push(self, image: Image, host: str, other: str) -> Command | None:
        """Send what was pulled from `host` to another registry, which has nothing of it."""
        return None

    # a container

    def start(self, image: Image, *words: str) -> Command | None:
        """Run a command in a new container without a network, which is gone afterwards; its output is ours."""
        return None

    def create(self, image: Image) -> Command | None:
        """Make a container of the image; there is one at a time."""
        return None

    def mount(self) -> Command | None:
        """Show it at `tree()`."""
        return None

    def tree(self) -> Path:
        """Where it is mounted now."""
        return self.room / "tree"

    def unmount(self) -> Command | None:
        """Undo `mount`."""
        return None

    def commit(self, name: str) -> Command | None:
        """Make an image of what was changed."""
        return None

    def forget(self, name: str) -> Command | None:
        """Remove what `commit` made."""
        return None

    def drop(self) -> Command | None:
        """Remove the container."""
        return None

    @property
    def makes_containers(self) -> bool:
        """Whether containers can be made by commands of this tool."""
        return type(self).create is not Engine.create

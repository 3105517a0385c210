"""lamina, as its users call it: a command, with the driver and the durability in a config file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import attrs

from lamina_bench.engines.engine import Command, Engine
from lamina_bench.image import TAG, Image
from lamina_bench.registry import at

DURABILITY = {"ordered": "all of it", "none": "nothing"}


@attrs.frozen
class Lamina(Engine):
    """One driver at one level of durability."""

    driver: str = "overlay"
    level: str = "ordered"
    programs: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """With what differs from the default."""
        return f"lamina {self.driver}" + ("" if self.level == "ordered" else f", durability {self.level}")

    @property
    def stores(self) -> str:
        """By the driver."""
        return "copies" if self.driver == "vfs" else "overlay"

    @property
    def durability(self) -> str:
        """By the level."""
        return DURABILITY[self.level]

    @property
    def environ(self) -> Mapping[str, str]:
        """Our config, and nobody else's, whatever the caller's environment says."""
        asked = {"LAMINA_ROOT": f"{self.room}/store", "LAMINA_DRIVER": self.driver}
        return {"LAMINA_CONFIG": str(self.room / "config.toml"), **asked}

    def __enter__(self) -> Self:
        super().__enter__()
        lines = f'durability = "{self.level}"\n'
        lines += '[containers]\nruntime = "runc"\n'  # as with everybody else
        (self.room / "config.toml").write_text(lines)
        (self.room / "tree").mkdir()
        return self

    def load(self, image: Image) -> Command:
        """From the layout."""
        return self._ask("load", "--quiet", "--name", image.name, "--input", str(image.layout))

    def save(self, image: Image, target: Path) -> Command | None:
        """An OCI archive has the layers as they came."""
        return self._ask("save", "--quiet", "--format", "oci-archive", "-o", str(target), f"{image.name}:{TAG}")

    def remove(self, image: Image) -> Command | None:
        """With all that only it needs."""
        return self._ask("rmi", f"{image.name}:{TAG}")

    def list_images(self) -> Command | None:
        """As people do."""
        return self._ask("images")

    def list_containers(self) -> Command | None:
        """All of them, so that there is something to read."""
        return self._ask("ps", "-a")

    def pull(self, image: Image, host: str) -> Command | None:
        """By its name there."""
        return self._ask("pull", "--quiet", at(image, host))

    def name_for(self, image: Image, host: str, other: str) -> Command | None:
        """A name says where an image goes."""
        return self._ask("tag", at(image, host), at(image, other))

    def push(self, image: Image, host: str, other: str) -> Command | None:
        """Byte for byte as it came."""
        return self._ask("push", "--quiet", at(image, other))

    def start(self, image: Image, *words: str) -> Command | None:
        """As people do."""
        return self._ask("run", "--rm", f"{image.name}:{TAG}", *words)

    def create(self, image: Image) -> Command | None:
        """By a name."""
        return self._ask("create", "--quiet", "--name", "box", f"{image.name}:{TAG}")

    def mount(self) -> Command | None:
        """Writable."""
        return self._ask("mount", "box", str(self.tree()))

    def unmount(self) -> Command | None:
        """From the directory."""
        return self._ask("umount", str(self.tree()))

    def commit(self, name: str) -> Command | None:
        """One more layer."""
        return self._ask("commit", "--quiet", "box", name)

    def forget(self, name: str) -> Command | None:
        """By its name."""
        return self._ask("rmi", name)

    def drop(self) -> Command | None:
        """With its writable layer."""
        return self._ask("rm", "box")

    def _ask(self, *words: str) -> Command:
        return (str(Path(sys.executable).with_name("lamina")), *words)

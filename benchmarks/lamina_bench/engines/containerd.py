"""containerd, with a daemon of our own; what the daemon does counts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import ClassVar, Self

import attrs

from lamina_bench.daemons import Daemon, running
from lamina_bench.engines.engine import Command, Engine
from lamina_bench.image import TAG, Image
from lamina_bench.measuring import Cost, measure
from lamina_bench.registry import at

_CONFIG = """\
version = 2
root = "{room}/root"
state = "{room}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
address = "{room}/c.sock"
[ttrpc]
address = "{room}/c.ttrpc"
"""


@attrs.frozen
class Containerd(Engine):
    """One of its snapshotters, by `ctr`."""

    snapshotter: str = "overlayfs"
    programs: ClassVar[tuple[str, ...]] = ("containerd", "ctr")
    _ends: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack, init=False)
    _daemons: list[Daemon] = attrs.field(factory=list, init=False)

    @property
    def name(self) -> str:
        """With the snapshotter."""
        return f"containerd {self.snapshotter}"

    @property
    def stores(self) -> str:
        """By the snapshotter."""
        return "copies" if self.snapshotter == "native" else "overlay"

    @property
    def durability(self) -> str:
        """Blobs and the database are flushed, files of layers are not."""
        return "blobs, no file"

    def __enter__(self) -> Self:
        super().__enter__()
        config = self.room / "config.toml"
        config.write_text(_CONFIG.format(room=self.room))
        answers = self._ctr("version")
        daemon = running(
            ("containerd", "--config", str(config)), self.room / "log", lambda: super(Containerd, self).run(answers)
        )
        self._daemons.append(self._ends.enter_context(daemon))
        return self

    def __exit__(self, *exception: object) -> None:
        self._daemons.clear()
        self._ends.close()
        super().__exit__(*exception)

    def measure(self, *commands: Command) -> Cost:
        """The client, and what the daemon does meanwhile."""
        with self._daemons[0].watched() as daemon:
            total = measure(commands[0])
            for command in commands[1:]:
                total = total.plus(measure(command))
            return total.plus(daemon())

    def measure_first(self, command: Command) -> tuple[Cost, float]:
        """The client's, and what the daemon does meanwhile."""
        with self._daemons[0].watched() as daemon:
            cost, first = super().measure_first(command)
            return cost.plus(daemon()), first

    def load(self, image: Image) -> Command:
        """It reads archives only. It unpacks at once."""
        flags = ("--snapshotter", self.snapshotter, "--base-name", self._repository(image))
        return self._ctr("images", "import", *flags, str(image.oci_archive))

    def save(self, image: Image, target: Path) -> Command | None:
        """Layers as they came."""
        return self._ctr("images", "export", str(target), self._called(image))

    def remove(self, image: Image) -> Command | None:
        """Its garbage collector ends before the command does."""
        return self._ctr("images", "rm", "--sync", self._called(image))

    def pull(self, image: Image, host: str) -> Command | None:
        """It unpacks at once."""
        return self._ctr("images", "pull", "--plain-http", "--snapshotter", self.snapshotter, at(image, host))

    def push(self, image: Image, host: str, other: str) -> Command | None:
        """Byte for byte as it came."""
        return self._ctr("images", "push", "--plain-http", at(image, other), at(image, host))

    def start(self, image: Image, *words: str) -> Command | None:
        """By its shim, which is not ours to measure: its time counts, its processor and its memory do not."""
        flags = ("--rm", "--snapshotter", self.snapshotter)
        return self._ctr("run", *flags, self._called(image), "box", *words)

    def list_images(self) -> Command | None:
        """It looks at every blob."""
        return self._ctr("images", "ls")

    def list_containers(self) -> Command | None:
        """There are none."""
        return self._ctr("containers", "ls")

    def _repository(self, image: Image) -> str:
        return f"example.com/{image.name}"

    def _called(self, image: Image) -> str:
        return f"{self._repository(image)}:{TAG}"

    def _ctr(self, *words: str) -> Command:
        return ("ctr", "--address", f"{self.room}/c.sock", *words)

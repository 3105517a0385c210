"""containers/storage, the store of podman: filled by skopeo, worked with by buildah, listed by podman or buildah."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import attrs

from lamina_bench.engines.engine import Command, Engine
from lamina_bench.image import TAG, Image
from lamina_bench.registry import at


@attrs.frozen
class Storage(Engine):
    """One of its drivers. All of its tools share one store."""

    driver: str = "overlay"
    programs: ClassVar[tuple[str, ...]] = ("skopeo", "buildah")

    @property
    def name(self) -> str:
        """By the tool that loads."""
        return f"skopeo → containers-storage {self.driver}"

    @property
    def stores(self) -> str:
        """By the driver."""
        return "copies" if self.driver == "vfs" else "overlay"

    @property
    def durability(self) -> str:
        """Its lists of layers are flushed when they are replaced, files of layers are not."""
        return "its lists, no file"

    def load(self, image: Image) -> Command:
        """From the layout."""
        return ("skopeo", "copy", "--quiet", f"oci:{image.layout}:{TAG}", self._where(image))

    def save(self, image: Image, target: Path) -> Command | None:
        """It keeps layers unpacked only, so it has to pack and to compress them."""
        return ("skopeo", "copy", "--quiet", self._where(image), f"oci-archive:{target}:{TAG}")

    def remove(self, image: Image) -> Command | None:
        """With all that only it needs."""
        return self._buildah("rmi", self._called(image))

    def pull(self, image: Image, host: str) -> Command | None:
        """By skopeo."""
        there = f"docker://{at(image, host)}"
        return ("skopeo", "copy", "--quiet", "--src-tls-verify=false", there, self._where(image))

    def push(self, image: Image, host: str, other: str) -> Command | None:
        """It keeps layers unpacked only, so it has to pack and to compress them."""
        there = f"docker://{at(image, other)}"
        return ("skopeo", "copy", "--quiet", "--dest-tls-verify=false", self._where(image), there)

    def start(self, image: Image, *words: str) -> Command | None:
        """By podman."""
        if not shutil.which("podman"):
            return None
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")  # its own may be too high
        flags = ("--rm", "--network", "none", *limits, self._called(image), *words)
        return self._podman("--runtime", "runc", "run", *flags)

    def list_images(self) -> Command | None:
        """By podman, else by buildah."""
        return self._podman("images") if shutil.which("podman") else self._buildah("images")

    def list_containers(self) -> Command | None:
        """By podman, which lists those of buildah as external ones; else by buildah."""
        return self._podman("ps", "-a", "--external") if shutil.which("podman") else self._buildah("containers")

    def create(self, image: Image) -> Command | None:
        """A working container."""
        return self._buildah("from", "--quiet", "--pull-never", "--name", "box", self._called(image))

    def mount(self) -> Command | None:
        """It chooses the place."""
        return self._buildah("mount", "box")

    def tree(self) -> Path:
        """It tells the place."""
        return Path(self.run(self._buildah("mount", "box")).strip())

    def unmount(self) -> Command | None:
        """By name."""
        return self._buildah("umount", "box")

    def commit(self, name: str) -> Command | None:
        """Into the same store, where the new layer is unpacked again."""
        return self._buildah("commit", "--quiet", "box", name)

    def forget(self, name: str) -> Command | None:
        """By its name."""
        return self._buildah("rmi", name)

    def drop(self) -> Command | None:
        """With its writable layer."""
        return self._buildah("rm", "box")

    def _called(self, image: Image) -> str:
        return f"localhost/{image.name}:{TAG}"

    def _where(self, image: Image) -> str:
        return f"containers-storage:[{self.driver}@{self.room}/root+{self.room}/run]{self._called(image)}"

    def _buildah(self, *words: str) -> Command:
        return ("buildah", *self._flags(), *words)

    def _podman(self, *words: str) -> Command:
        return ("podman", *self._flags(), "--tmpdir", f"{self.room}/run", *words)

    def _flags(self) -> Command:
        return ("--root", f"{self.room}/root", "--runroot", f"{self.room}/run", "--storage-driver", self.driver)

"""A store of one driver for one test, and small verbs that fill it."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import attrs

from lamina.driver import Driver
from lamina.mount import mountinfo, unmount
from lamina.snapshotter import Snapshotter
from lamina_vfs.driver import VfsDriver


@attrs.frozen
class Room:
    """A store of one driver, and places to mount at."""

    path: Path
    driver: type[Driver] = VfsDriver

    @property
    def root(self) -> Path:
        return self.path / "store"

    def open(self, driver: type[Driver] | None = None, **how: object) -> Snapshotter:
        cls = driver or self.driver
        return Snapshotter(self.root, cls(self.root / cls.name / "layers"), **how)  # type: ignore[arg-type]

    def place(self, name: str = "place") -> Path:
        made = self.path / name
        made.mkdir(exist_ok=True)
        return made

    def leave(self) -> None:
        """Nothing is mounted in it any more."""
        for point in reversed(mountinfo()):
            if point.target.startswith(os.fsencode(self.path) + b"/"):
                unmount(Path(os.fsdecode(point.target)), lazy=True)


def grow(snapshots: Snapshotter, place: Path, name: str, text: str = "x", parent: str | None = None) -> None:
    snapshots.prepare("growing", parent)
    snapshots.mount("growing", place)
    (place / "file").write_text(text)
    snapshots.unmount(place)
    snapshots.commit(name, "growing")


def tar_of(**files: str) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    out.seek(0)
    return out


def files(snapshots: Snapshotter, key: str) -> dict[str, str]:
    with snapshots.look(key) as root:
        return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}

"""A room for one test: a store of the driver under test, and small verbs that make trees in it."""

from __future__ import annotations

import io
import itertools
import os
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from lamina.conformance.witness import Manifest, manifest
from lamina.driver import Ability, Driver
from lamina.durability import Durability
from lamina.snapshot import Snapshot
from lamina.snapshotter import Snapshotter

Edit = Callable[[Path], object]

_numbers = itertools.count(1)

LONG_AGO = 1_000_000_000  # 2001-09-09, so that "now" is never mistaken for it


@attrs.frozen
class Room:
    """Where one test works. There is one store of the driver at a time: a pool may not hold two."""

    path: Path
    driver_class: type[Driver]
    options: Any = None

    @property
    def store(self) -> Path:
        """The root of the store."""
        return self.path / "store"

    @property
    def home(self) -> Path:
        """The driver's own corner of the store."""
        return self.store / self.driver_class.name / "layers"

    def driver(self) -> Driver:
        """A new object of the class under test, at home in this store."""
        return self.driver_class(self.home, self.options)

    def open(self, *, durability: str | None = None) -> Snapshotter:
        """A snapshotter on this room's store; use it in `with`."""
        return Snapshotter(self.store, self.driver(), durability or Durability.ORDERED)

    def place(self, name: str = "place") -> Path:
        """A fresh, empty directory beside the store."""
        path = self.path / f"{name}-{next(_numbers)}"
        path.mkdir()
        return path

    def known(self) -> dict[int, str]:
        """The layers that the store's database knows and their kinds, read without lamina."""
        with closing(sqlite3.connect(self.store / self.driver_class.name / "metadata.db")) as rows:
            return dict(rows.execute("SELECT id, kind FROM snapshots"))

    def clear(self) -> None:
        """Nothing of this room is left, not even in a pool that lies elsewhere."""
        self.clear_store()
        subprocess.run(["rm", "-rf", "--one-file-system", self.path], check=True)  # rm(1) knows every depth and name

    def clear_store(self) -> None:
        """The driver has no layer any more, and let go of everything."""
        driver = self.driver()
        with suppress(Exception):
            driver.start()
            # a child before its parent: younger layers first, and once more for those that were rebased
            for layer_id in sorted(driver.layers(), reverse=True) * 2:
                with suppress(Exception):
                    driver.release(layer_id)
                    driver.remove(layer_id)
            driver.stop()


def assert_ids_agree(room: Room) -> None:
    """What the driver stores is what the store knows. A view may be nothing but a name."""
    stored, known = room.driver().layers(), room.known()
    assert stored - known.keys() == set(), "stored, and unknown"
    assert {layer_id for layer_id, kind in known.items() if kind != "view"} - stored == set(), "known, and not stored"


def can(driver: type[Driver] | Driver, ability: Ability) -> bool:
    """Whether the driver does not name this ability as lacking."""
    return ability not in driver.cannot


@contextmanager
def mounted(room: Room, snapshots: Snapshotter, key: str) -> Iterator[Path]:
    """The snapshot as a directory, mounted by the public verb; unmounted afterwards, come what may."""
    place = room.place("mount")
    snapshots.mount(key, place)
    try:
        yield place
    finally:
        snapshots.unmount(place)
        place.rmdir()


def edit(room: Room, snapshots: Snapshotter, key: str, *edits: Edit) -> None:
    """Do all the edits in the active snapshot `key`, in order, through one mount."""
    with mounted(room, snapshots, key) as root:
        for change in edits:
            change(root)


def grow(
    room: Room,
    snapshots: Snapshotter,
    name: str,
    *edits: Edit,
    parent: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Snapshot:
    """A committed snapshot `name`: its parent's tree after these edits."""
    key = f"{name} growing"
    snapshots.prepare(key, parent=parent)
    edit(room, snapshots, key, *edits)
    return snapshots.commit(name, key, labels=labels)


def seen(snapshots: Snapshotter, key: str) -> Manifest:
    """What the snapshot holds, as the witness sees it through a read-only look."""
    with snapshots.look(key) as root:
        return manifest(root)


def read(snapshots: Snapshotter, key: str, path: str) -> str:
    """The text of one file of a snapshot."""
    with snapshots.look(key) as root:
        return (root / path).read_text()


def exists(snapshots: Snapshotter, key: str, path: str) -> bool:
    """Whether the snapshot has an entry of this name."""
    with snapshots.look(key) as root:
        return os.path.lexists(root / path)


def layer_tar(snapshots: Snapshotter, key: str) -> bytes:
    """The layer of a snapshot, as `diff` writes it."""
    out = io.BytesIO()
    snapshots.diff(key, out)
    return out.getvalue()


def foreign_tar(entries: list[tuple[str, bytes | None]]) -> io.BytesIO:
    """A layer as others write them: these files, and directories where there is no content, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.mtime, member.mode = 1_000_000_000, 0o644
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            else:
                member.size = len(content)
            tar.addfile(member, None if content is None else io.BytesIO(content))
    out.seek(0)
    return out


# edits: each returns a function that is given the root of a mounted tree


def write(path: str, text: str = "", *, mode: int = 0o644) -> Edit:
    """The file holds exactly this text; directories above it are made."""

    def change(root: Path) -> None:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    return change


def append(path: str, text: str) -> Edit:
    """The file ends with this text."""

    def change(root: Path) -> None:
        with (root / path).open("a") as file:
            file.write(text)

    return change


def mkdir(path: str, mode: int = 0o755) -> Edit:
    """The directory exists and has this mode, whatever the umask says."""

    def change(root: Path) -> None:
        (root / path).mkdir(parents=True, exist_ok=True)
        (root / path).chmod(mode)

    return change


def unlink(path: str) -> Edit:
    """The name is gone."""
    return lambda root: (root / path).unlink()


def rmtree(path: str) -> Edit:
    """The directory and all that was in it are gone."""
    return lambda root: subprocess.run(["rm", "-rf", "--one-file-system", root / path], check=True)


def symlink(path: str, target: str) -> Edit:
    """A symbolic link that says `target`."""
    return lambda root: (root / path).symlink_to(target)


def link(old: str, new: str) -> Edit:
    """One more name for the same file."""
    return lambda root: os.link(root / old, root / new, follow_symlinks=False)


def rename(old: str, new: str) -> Edit:
    """What was called `old` is called `new`."""
    return lambda root: os.rename(root / old, root / new)


def together(*edits: Edit) -> Edit:
    """Several edits, in order, as one."""

    def change(root: Path) -> None:
        for one in edits:
            one(root)

    return change


def settle(root: Path) -> None:
    """Give everything below a fixed time, so that two stores can be compared to the nanosecond."""
    for directory, below, files in os.walk(root, topdown=False):
        for name in [*below, *files]:
            os.utime(os.path.join(directory, name), (LONG_AGO, LONG_AGO), follow_symlinks=False)
    os.utime(root, (LONG_AGO, LONG_AGO))

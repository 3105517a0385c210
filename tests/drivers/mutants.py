"""Drivers that are wrong in one way each. The suite has to find every one of them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from lamina.changes import Change, ChangeKind
from lamina.driver import Ability, Health, NativeDiff, NativeUsage
from lamina.layer import Kind, Layer, Usage
from lamina.mount import Mount, bind
from lamina.trees import measure_tree
from lamina_overlay.driver import OverlayDriver
from lamina_vfs.driver import VfsDriver


def entries(root: Path) -> Iterator[str]:
    """Every path below a directory that a careless tool would meet."""
    for directory, below, files in os.walk(root):
        yield from (os.path.join(directory, name) for name in [*below, *files])


class Careless(VfsDriver):
    """A child's tree is copied, and then spoiled."""

    def prepare(self, layer: Layer) -> None:
        """As vfs does, but for one thing."""
        super().prepare(layer)
        if layer.parent is not None and layer.kind is Kind.ACTIVE:
            self.spoil(self.home / str(layer.id), self.home / str(layer.parent))

    def spoil(self, tree: Path, parent: Path) -> None:
        """What is wrong with this one."""
        raise NotImplementedError


class DropsXattrs(Careless):
    """Extended attributes are lost."""

    def spoil(self, tree: Path, parent: Path) -> None:
        """Take them away."""
        for path in entries(tree):
            for name in os.listxattr(path, follow_symlinks=False):
                os.removexattr(path, name, follow_symlinks=False)


class DropsCapabilities(Careless):
    """Copies attributes first and owners afterwards, so that the kernel takes capabilities away."""

    def spoil(self, tree: Path, parent: Path) -> None:
        """Set the same owner once more."""
        for path in entries(tree):
            status = os.lstat(path)
            os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
            if not stat.S_ISLNK(status.st_mode):
                os.chmod(path, stat.S_IMODE(status.st_mode))


class LosesSetuid(Careless):
    """The setuid bit is lost."""

    def spoil(self, tree: Path, parent: Path) -> None:
        """Take it away."""
        for path in entries(tree):
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                os.chmod(path, stat.S_IMODE(mode) & 0o1777)


class RoundsTimes(Careless):
    """Times are kept to the second only."""

    def spoil(self, tree: Path, parent: Path) -> None:
        """Round them."""
        for path in entries(tree):
            seconds = int(os.lstat(path).st_mtime)
            os.utime(path, (seconds, seconds), follow_symlinks=False)


class FollowsSymlinks(Careless):
    """A link becomes a copy of what it points at."""

    def spoil(self, tree: Path, parent: Path) -> None:
        """Replace links to files of the tree."""
        for path in list(entries(tree)):
            if os.path.islink(path) and os.path.exists(path):
                target = os.path.realpath(path)
                os.unlink(path)
                subprocess.run(["cp", "-r", target, path], check=True)


class PartsHardLinks(Careless):
    """Two names of one file become two files."""

    def spoil(self, tree: Path, parent: Path) -> None:
        """Copy each file that has another name."""
        for path in list(entries(tree)):
            if stat.S_ISREG(os.lstat(path).st_mode) and os.lstat(path).st_nlink > 1:
                subprocess.run(["cp", "-p", path, f"{path}.copy"], check=True)
                os.replace(f"{path}.copy", path)


class FillsHoles(Careless):
    """Sparse files are written out."""

    def spoil(self, tree: Path, parent: Path) -> None:
        """Copy them as `cp --sparse=never` does."""
        for path in list(entries(tree)):
            if stat.S_ISREG(os.lstat(path).st_mode) and os.lstat(path).st_size > 1 << 20:
                subprocess.run(["cp", "-p", "--sparse=never", path, f"{path}.copy"], check=True)
                os.replace(f"{path}.copy", path)


class SharesFilesWithItsParent(Careless):
    """Saves space by hard links between layers, and never parts them."""

    def spoil(self, tree: Path, parent: Path) -> None:
        """Link instead of copying."""
        shutil.rmtree(tree)
        subprocess.run(["cp", "-al", parent, tree], check=True)


class DropsAttributesOfTheRoot(Careless):
    """A child's own root directory has no extended attributes."""

    def spoil(self, tree: Path, parent: Path) -> None:
        """Take them away."""
        for name in os.listxattr(tree):
            os.removexattr(tree, name)


class StrangeRoot(VfsDriver):
    """The root of a new layer is for its owner only."""

    def prepare(self, layer: Layer) -> None:
        """As vfs does, and then shut the door."""
        super().prepare(layer)
        if layer.parent is None:
            (self.home / str(layer.id)).chmod(0o700)


class WritableView(VfsDriver):
    """Whoever looks may write."""

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        """Always writable."""
        return tuple(bind(mount.source, writable=True) for mount in super().mounts(layer))


class RemovesOnce(VfsDriver):
    """A removal of what is not there raises."""

    def remove(self, layer_id: int) -> None:
        """Complain if there is nothing, but for the sake of prepare."""
        if sys._getframe(1).f_code.co_name != "prepare":  # noqa: SLF001  # a mutant may
            (self.home / str(layer_id)).stat()
        super().remove(layer_id)


class RemovesByPrefix(VfsDriver):
    """Takes 10 for a part of 1."""

    def remove(self, layer_id: int) -> None:
        """Everything whose name begins so."""
        super().remove(layer_id)
        for path in self.home.glob(f"{layer_id}[0-9]*"):
            shutil.rmtree(path)


class KeepsHiddenFiles(VfsDriver):
    """Removes what a shell's `*` names, and puts the rest aside."""

    def remove(self, layer_id: int) -> None:
        """All but what begins with a dot."""
        place = self.home / str(layer_id)
        if place.exists() and any(path.name.startswith(".") for path in place.iterdir()):
            place.rename(self.home / f"rest-{layer_id}")
        super().remove(layer_id)


class HealthMakesTheHome(VfsDriver):
    """Whoever only wants to know finds a directory afterwards."""

    def health(self) -> Health:
        """As vfs, in a home."""
        self.home.mkdir(parents=True, exist_ok=True)
        return super().health()


class HealthRaises(VfsDriver):
    """Has no words for a poor host."""

    def health(self) -> Health:
        """Fail."""
        raise OSError("no such pool")


class KeepsRests(VfsDriver):
    """A repeated prepare finds what the first one left."""

    def prepare(self, layer: Layer) -> None:
        """Skip what seems to be there already."""
        if not (self.home / str(layer.id)).exists():
            super().prepare(layer)


class LayersLie(VfsDriver):
    """The youngest layer is never told."""

    def layers(self) -> set[int]:
        """All but one."""
        told = super().layers()
        return told - {max(told)} if len(told) > 1 else told


class RemembersInMemory(VfsDriver):
    """Another object, or another process, knows of no layer."""

    def __init__(self, home: Path, options: object = None) -> None:
        super().__init__(home, options)
        self.mine: set[int] = set()

    def prepare(self, layer: Layer) -> None:
        """As vfs does, and make a note."""
        super().prepare(layer)
        self.mine.add(layer.id)

    def layers(self) -> set[int]:
        """What this object has made."""
        return super().layers() & self.mine


class LeavesTrash(VfsDriver):
    """Moves a layer away and then deletes it; if power fails in between, nobody ever will."""

    def remove(self, layer_id: int) -> None:
        """By way of the trash."""
        trash = self.home / f"trash-{layer_id}"
        if (self.home / str(layer_id)).exists():
            (self.home / str(layer_id)).rename(trash)
            shutil.rmtree(trash)
        super().remove(layer_id)


class WritesAbsolutePaths(VfsDriver):
    """Knows its place by heart, and does not find it when the store was moved."""

    def prepare(self, layer: Layer) -> None:
        """As vfs does, and write down where."""
        super().prepare(layer)
        if not (layer.kind is Kind.VIEW and layer.parent is not None):
            (self.home / f"{layer.id}.place").write_text(str(self.home / str(layer.id)))

    def remove(self, layer_id: int) -> None:
        """The note goes, too."""
        super().remove(layer_id)
        (self.home / f"{layer_id}.place").unlink(missing_ok=True)

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        """Where the note says."""
        told = super().mounts(layer)
        place = (self.home / f"{Path(told[0].source).name}.place").read_text()
        return (bind(place, writable=layer.writable),)


class LeaksMounts(VfsDriver):
    """Mounts something of its own, and never lets go of it."""

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        """Show the layer by way of a second mount."""
        (told,) = super().mounts(layer)
        served = self.home.parent / f"served-{layer.id}"
        if not served.is_dir():
            served.mkdir()
            subprocess.run(["mount", "--bind", told.source, served], check=True)
        return (bind(served, writable=layer.writable),)


class ClaimsTooMuch(OverlayDriver):
    """Names nothing as lacking."""

    cannot: ClassVar[frozenset[Ability]] = frozenset()


class ClaimsTooLittle(VfsDriver):
    """Excuses itself from what it can do."""

    cannot: ClassVar[frozenset[Ability]] = VfsDriver.cannot | {Ability.ACLS}


class MissesRemovals(VfsDriver, NativeDiff):
    """A native diff that knows only what is there."""

    def diff(self, layer: Layer) -> Iterator[Change]:
        """Tell everything that exists."""
        root = self.home / str(layer.id)
        for path in entries(root):
            yield Change(os.fsencode(os.path.relpath(path, root)), ChangeKind.MODIFIED)


class CountsItsParents(OverlayDriver, NativeUsage):
    """A layer's usage is that of its whole stack."""

    def usage(self, layer: Layer) -> Usage:
        """The sum of all."""
        places = [self.home / str(number) / "fs" for number in (layer.id, *layer.parents)]
        return sum(map(measure_tree, places), Usage())


class ForgetsTheLateRoot(OverlayDriver):
    """A layer that was joined to its parent only at commit keeps the root that `prepare` made."""

    def commit(self, layer: Layer) -> None:
        """Take it for one that had its parent from the beginning."""
        (self.home / str(layer.id) / "work").mkdir(exist_ok=True)
        super().commit(layer)


class ForgetsWhiteouts(OverlayDriver):
    """What a layer removed comes back when the layer is committed."""

    def commit(self, layer: Layer) -> None:
        """Tidy up what looks like rubbish."""
        super().commit(layer)
        for path in list(entries(self.changes(layer).root)):
            if stat.S_ISCHR(os.lstat(path).st_mode) and os.lstat(path).st_rdev == 0:
                os.unlink(path)


class ForgetsOpacity(OverlayDriver):
    """A directory made anew shows what the old one held."""

    def commit(self, layer: Layer) -> None:
        """Drop all private attributes."""
        super().commit(layer)
        for path in entries(self.changes(layer).root):
            for name in os.listxattr(path, follow_symlinks=False):
                if name.startswith(("trusted.overlay.", "user.overlay.")):
                    os.removexattr(path, name, follow_symlinks=False)

"""Layers as ZFS datasets: a child is a clone of its parent's snapshot."""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

import attrs

from lamina.changes import Change, ChangeKind
from lamina.driver import Ability, Driver, Health, Limit, NativeDiff, NativeUsage
from lamina.errors import LaminaError, ProgramFailed, Unhealthy
from lamina.layer import Kind, Layer, Usage
from lamina.mount import Mount, bind, boot_id, is_mounted, unmount
from lamina_zfs.abilities import has_xattrs, lacking_in, trial
from lamina_zfs.commands import children, destroy, patiently, value, value_if_there, zfs
from lamina_zfs.diffing import can_tell, candidates
from lamina_zfs.options import ZfsOptions

_NOTE: Final = ".store"
_OWNER: Final = "org.lamina:store"  # a user property: which store has the dataset to itself


@attrs.frozen
class _Found:
    """What was tried out."""

    xattrs: bool
    lacking: frozenset[Ability]


class ZfsDriver(Driver, NativeDiff, NativeUsage):
    """`DATASET/<id>` holds layer <id>, `DATASET/<id>@<id>` what it was when it was committed.

    `home/<id>` is made before the dataset and removed after it; `home/<id>/tree` is where it is mounted, and
    `home/<id>/mountpoint` what the dataset was last told of that: it is told again once the home has moved.
    """

    name: ClassVar[str] = "zfs"
    Options: ClassVar[type] = ZfsOptions
    cannot: ClassVar[frozenset[Ability]] = frozenset({Ability.REBASE})

    # the host

    def health(self) -> Health:
        """Whether zfs answers, has the pool, and keeps attributes."""
        try:
            zfs("list", "-H", "-o", "name", self.options.pool)
            found = self._found
        except (LaminaError, OSError) as error:
            hint = f"zpool create {self.options.pool} DEVICE, or set drivers.zfs.dataset"
            return Health(problems=(f"zfs cannot be used: {error}; {hint}",))
        if not found.xattrs:
            return Health(problems=("zfs refuses extended attributes; start zfs-fuse with -x, or set xattr=on",))
        lacking = ", ".join(sorted(ability.name for ability in found.lacking)) or "nothing"
        diffs = "diffs are told by zfs" if can_tell() else "this zfs has no `zfs diff`: diffs walk both trees"
        return Health(notes=(f"layers lie in {self.options.dataset}; tried out, and lacking: {lacking}", diffs))

    def lacking(self) -> frozenset[Ability]:
        """Tried out once an object, on a file system that is made for it: zfs-fuse lacks what OpenZFS has."""
        try:
            return self.cannot | self._found.lacking
        except (LaminaError, OSError):
            return self.cannot

    @functools.cached_property
    def _found(self) -> _Found:
        with trial(self.options.pool) as place:
            return _Found(has_xattrs(place), lacking_in(place))

    def limit(self) -> Limit:
        """zfs enforces a refquota wherever it runs."""
        return Limit.ENFORCED

    def start(self) -> None:
        """`home` exists, and the dataset, which no other store uses."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)  # whatever the umask says
        if not (self.home / _NOTE).exists():
            self._note(str(uuid.uuid4()), "")
        owner = value_if_there(self.options.dataset, _OWNER)
        if owner is None:
            zfs("create", "-p", "-o", "mountpoint=none", self.options.dataset)
        self._claim(owner or "-")

    def _claim(self, owner: str) -> None:
        mine, _ = self._noted()
        if owner == mine:
            return
        if owner != "-" and any(name.isdecimal() for name in children(self.options.dataset)):
            why = f"dataset {self.options.dataset} holds the layers of another store; choose another dataset"
            raise Unhealthy(self.name, [why])
        zfs("set", f"{_OWNER}={mine}", self.options.dataset)

    def _noted(self) -> tuple[str, str]:
        store, _, boot = (self.home / _NOTE).read_text(encoding="ascii").partition("\n")
        return store, boot

    def _note(self, store: str, boot: str) -> None:
        unfinished = self.home / f"{_NOTE}.{os.getpid()}"
        unfinished.write_text(f"{store}\n{boot}", encoding="ascii")
        unfinished.rename(self.home / _NOTE)

    def stop(self) -> None:
        """No layer is mounted in our home any more."""
        if self.home.is_dir():
            for layer_id in self._here():
                self.release(layer_id)

    # a layer's life

    def prepare(self, layer: Layer) -> None:
        """A clone of the parent's snapshot, or an empty dataset; zfs-fuse mounts clones before they are asked for."""
        self.remove(layer.id)
        tree = self._tree(layer.id)
        tree.mkdir(parents=True)
        words = ["-o", f"mountpoint={tree.absolute()}", "-o", "canmount=noauto"]
        if layer.writable and self.options.size is not None:
            words += ["-o", f"refquota={self.options.size}"]
        if layer.parent is None:
            zfs("create", *words, self._dataset(layer.id))
        else:
            zfs("clone", *words, self._snapshot(layer.parent), self._dataset(layer.id))
        self._told(layer.id).write_text(str(tree.absolute()), encoding="utf-8", errors="surrogateescape")

    def commit(self, layer: Layer) -> None:
        """The dataset has its snapshot. One that an interrupted commit has left is taken anew, unless it has clones."""
        try:
            zfs("snapshot", self._snapshot(layer.id))
        except ProgramFailed as error:
            if "already exists" not in error.stderr:
                raise
            with contextlib.suppress(ProgramFailed):
                zfs("destroy", self._snapshot(layer.id))
                zfs("snapshot", self._snapshot(layer.id))

    def remove(self, layer_id: int) -> None:
        """The dataset is gone; if others were cloned from it, the oldest takes over its snapshots."""
        place = self.home / str(layer_id)
        if not place.exists():
            return
        self.release(layer_id)
        destroy(self._dataset(layer_id))
        self._told(layer_id).unlink(missing_ok=True)
        for each in (self._tree(layer_id), place):
            with contextlib.suppress(FileNotFoundError):
                each.rmdir()

    def layers(self) -> set[int]:
        """Every id with a directory here. Once a boot zfs is asked, too: a power cut may have lost directories."""
        store, boot = self._noted()
        if boot != boot_id():
            for name in children(self.options.dataset):
                if name.isdecimal():
                    (self.home / name).mkdir(exist_ok=True)
            self._note(store, boot_id())
        return self._here()

    def _here(self) -> set[int]:
        return {int(name) for name in os.listdir(self.home) if name.isdecimal()}

    # seeing a layer

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        """Mount the dataset in our home, also after a reboot or a killed zfs-fuse, and show it where it is wanted."""
        tree = self._tree(layer.id)
        if not _is_alive(tree):
            self._mount(layer.id, tree)
        return (bind(tree, writable=layer.writable),)

    def _mount(self, layer_id: int, tree: Path) -> None:
        unmount(tree, lazy=True)  # of a server that died
        tree.mkdir(parents=True, exist_ok=True)
        dataset = self._dataset(layer_id)
        # either may still be busy with the mount before
        if not self._knows_its_place(layer_id, tree):
            patiently("set", f"mountpoint={tree.absolute()}", dataset)
            self._told(layer_id).write_text(str(tree.absolute()), encoding="utf-8", errors="surrogateescape")
        if not is_mounted(tree):
            patiently("mount", dataset)
        if not is_mounted(tree):
            raise OSError(f"{dataset} is not to be seen at {tree}: zfs mounts in another mount namespace")

    def _knows_its_place(self, layer_id: int, tree: Path) -> bool:
        try:
            told = self._told(layer_id).read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return False
        return told == str(tree.absolute())

    def release(self, layer_id: int) -> None:
        """The dataset is mounted nowhere. Raises if somebody works in it."""
        tree = self._tree(layer_id)
        if not is_mounted(tree):
            return
        if _is_alive(tree):
            patiently("unmount", self._dataset(layer_id))
        unmount(tree, lazy=True)

    # what zfs knows

    def diff(self, layer: Layer) -> Iterator[Change] | None:
        """The inodes of which `zfs diff` speaks; None where it is lacking, as in zfs-fuse, or does not tell enough."""
        trees = [self._tree(each) for each in (layer.id, layer.parent) if each is not None]
        if layer.parent is None or not all(_is_alive(tree) for tree in trees):
            return None
        after = self._snapshot(layer.id) if layer.kind is Kind.COMMITTED else self._dataset(layer.id)
        new, old = trees
        found = candidates(self._snapshot(layer.parent), after, old, new.absolute())
        return None if found is None else (Change(path, ChangeKind.MODIFIED) for path in found)

    def usage(self, layer: Layer) -> Usage:
        """What would be free without the layer; zfs does not count files."""
        dataset = self._dataset(layer.id)
        if layer.kind is not Kind.COMMITTED:
            zfs("set", "org.lamina:asked=now", dataset)  # returns when what was written is on disk, and so counted
        return Usage(int(value(dataset, "used")))

    def _dataset(self, layer_id: int) -> str:
        return f"{self.options.dataset}/{layer_id}"

    def _snapshot(self, layer_id: int) -> str:
        return f"{self.options.dataset}/{layer_id}@{layer_id}"

    def _tree(self, layer_id: int) -> Path:
        return self.home / str(layer_id) / "tree"

    def _told(self, layer_id: int) -> Path:
        return self.home / str(layer_id) / "mountpoint"


def _is_alive(tree: Path) -> bool:
    try:
        tree.stat()
    except OSError:  # ENOTCONN: its server was killed
        return False
    return is_mounted(tree)

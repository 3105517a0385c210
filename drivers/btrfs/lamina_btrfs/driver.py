"""Layers as btrfs subvolumes: a child is a snapshot of its parent, made in a moment, whatever its size."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from lamina.changes import Change, ChangeKind
from lamina.driver import Ability, Driver, Health, Limit, NativeDiff, NativeUsage
from lamina.errors import Unhealthy
from lamina.layer import Kind, Layer, Usage
from lamina.mount import Mount, bind
from lamina.syscalls import opened
from lamina_btrfs import ioctls, quota, subvolume
from lamina_btrfs.comparing import candidates, sweep
from lamina_btrfs.flatten import flatten
from lamina_btrfs.options import BtrfsOptions
from lamina_btrfs.probes import examine, forget_interrupted
from lamina_btrfs.usage import usage_of

_WORK: Final = ".work"
_ACCOUNT: Final = "account-"  # in _WORK: the number of a quota group that is to go


class BtrfsDriver(Driver, NativeDiff, NativeUsage):
    """`home/<id>` is a subvolume with the whole tree of layer <id>."""

    name: ClassVar[str] = "btrfs"
    Options: ClassVar[type] = BtrfsOptions
    cannot: ClassVar[frozenset[Ability]] = frozenset({Ability.REBASE})

    # the host

    def health(self) -> Health:
        """Whether the place is on btrfs and this user may work there."""
        return examine(self.home, self.options.size)

    def limit(self) -> Limit:
        """The kernel enforces sizes where quotas are switched on, by whoever owns the file system."""
        file_system = self._file_system()
        if file_system is None or quota.refusal(quota.accounts_of(file_system)) is not None:
            return Limit.REFUSED
        return Limit.ENFORCED

    def start(self) -> None:
        """`home` exists, is on btrfs, and is closed to others: whole trees lie in it."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)  # whatever the umask says
        if self._file_system() is None:
            raise Unhealthy(self.name, [f"{self.home} is not on btrfs; choose a root on one, or another driver"])
        (self.home / _WORK).mkdir(mode=0o700, exist_ok=True)
        sweep(self.home / _WORK)
        self._drop_left_accounts()
        forget_interrupted(self.home)

    def _file_system(self) -> str | None:
        place = next(each for each in (self.home, *self.home.parents) if each.is_dir())
        with opened(place, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            return ioctls.file_system_id(descriptor)

    # a layer's life

    def prepare(self, layer: Layer) -> None:
        """A snapshot of the parent, or an empty subvolume. A view of a parent needs none: nobody can write to it."""
        self.remove(layer.id)
        if layer.kind is Kind.VIEW and layer.parent is not None:
            return
        place = self._place(layer.id)
        if layer.parent is None:
            subvolume.make(place)
            place.chmod(0o755)  # whatever the umask says
        else:
            subvolume.clone(self._place(layer.parent), place)
        quota.settle(place, self.options.size if layer.writable else None)

    def commit(self, layer: Layer) -> None:
        """The subvolume is frozen by the kernel, and what was nested in it has become directories."""
        place = self._place(layer.id)
        if subvolume.info(place).read_only:
            return
        flatten(place)
        quota.settle(place, None)
        subvolume.freeze(place)

    def remove(self, layer_id: int) -> None:
        """Forget the subvolume and all that was nested in it; the kernel frees the space at its leisure."""
        place = self._place(layer_id)
        if not place.exists():
            return
        number = subvolume.info(place).id if subvolume.is_subvolume(place) else None
        subvolume.remove(place)
        if number is not None:
            self._drop_account(number)

    def _drop_account(self, number: int) -> None:
        """Linux 6.11 does it when the space is free; before, it has to be asked again then, and we take a note."""
        self._drop_left_accounts()
        if not self._account_is_dropped(number):
            (self.home / _WORK / f"{_ACCOUNT}{number}").touch(mode=0o600)

    def _drop_left_accounts(self) -> None:
        for note in (self.home / _WORK).glob(f"{_ACCOUNT}*"):
            if self._account_is_dropped(int(note.name.removeprefix(_ACCOUNT))):
                note.unlink(missing_ok=True)

    def _account_is_dropped(self, number: int) -> bool:
        """False while the kernel frees the space. What it refuses for other reasons it will always refuse."""
        with opened(self.home, os.O_RDONLY | os.O_DIRECTORY) as home:
            try:
                ioctls.drop_group(home, number)
            except OSError as error:
                return error.errno != errno.EBUSY
        return True

    def layers(self) -> set[int]:
        """Every id of which something lies here."""
        return {int(name) for name in os.listdir(self.home) if name.isdecimal()}

    # seeing a layer

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        """Show the subvolume where the user wants it."""
        seen = layer.parent if layer.kind is Kind.VIEW and layer.parent is not None else layer.id
        return (bind(self._place(seen), writable=layer.writable),)

    # what the kernel knows

    def diff(self, layer: Layer) -> Iterator[Change] | None:
        """The paths of which the metadata half of `btrfs send` speaks; None for an ordinary user, who may not ask."""
        if layer.parent is None:
            return None
        found = candidates(self._place(layer.parent), self._place(layer.id), self.home / _WORK)
        return None if found is None else (Change(path, ChangeKind.MODIFIED) for path in found)

    def usage(self, layer: Layer) -> Usage:
        """What the layer does not share with its parent. A view of a parent has nothing of its own."""
        if layer.kind is Kind.VIEW and layer.parent is not None:
            return Usage()
        return usage_of(self._place(layer.id), None if layer.parent is None else self._place(layer.parent))

    def _place(self, layer_id: int) -> Path:
        return self.home / str(layer_id)

"""Layers as plain copies: works anywhere, and is the reference that the other drivers are compared with."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from lamina.driver import Ability, Driver, Health
from lamina.layer import Kind, Layer
from lamina.mount import Mount, bind
from lamina.trees import copy_tree, remove_tree, shares_blocks

_UNFINISHED = ".new"
_DOOMED = ".old"


class VfsDriver(Driver):
    """`home/<id>` is the whole tree of layer <id>.

    A tree gets its name only when it is complete, and loses it before it is taken apart.
    """

    name: ClassVar[str] = "vfs"
    cannot: ClassVar[frozenset[Ability]] = frozenset({Ability.REBASE})

    def health(self) -> Health:
        """Always well; tells whether copies are cheap here."""
        shared = shares_blocks(self.home)
        how = "share their blocks until written" if shared else "take as much space as their originals"
        return Health(notes=(f"copies below {self.home} {how}",))

    def start(self) -> None:
        """`home` exists and is closed to others: whole trees lie in it, programs that run as root among them.

        Mounts of layers are reachable all the same; the way to them does not lead through here.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)  # whatever the umask says

    def prepare(self, layer: Layer) -> None:
        """Copy the parent. A view of a parent needs no copy: nobody can write to it."""
        self.remove(layer.id)
        if layer.kind is Kind.VIEW and layer.parent is not None:
            return
        unfinished = self._place(layer.id, _UNFINISHED)
        unfinished.mkdir()
        unfinished.chmod(0o755)  # whatever the umask says
        if layer.parent is not None:
            copy_tree(self._place(layer.parent), unfinished)
        unfinished.rename(self._place(layer.id))

    def remove(self, layer_id: int) -> None:
        """Forget the tree, and what an interrupted copy or removal has left of it."""
        doomed = self._place(layer_id, _DOOMED)
        remove_tree(doomed)
        with suppress(FileNotFoundError, PermissionError):  # the latter: somebody made the root immutable
            self._place(layer_id).rename(doomed)
        for suffix in (_DOOMED, "", _UNFINISHED):
            remove_tree(self._place(layer_id, suffix))

    def layers(self) -> set[int]:
        """Every id of which something lies here."""
        names = (name.partition(".")[0] for name in os.listdir(self.home))
        return {int(name) for name in names if name.isdecimal()}

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        """Show the tree where the user wants it."""
        seen = layer.parent if layer.kind is Kind.VIEW and layer.parent is not None else layer.id
        return (bind(self._place(seen), writable=layer.writable),)

    def _place(self, layer_id: int, suffix: str = "") -> Path:
        return self.home / f"{layer_id}{suffix}"

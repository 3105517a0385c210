"""Layers as overlayfs has them, joined by a file system of our own where the kernel may not or must not."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, ClassVar, Final

from lamina.changes import ChangesTree
from lamina.driver import Ability, Driver, Health, StoresChanges
from lamina.inheritance import adopt_root, inherit_root
from lamina.layer import Kind, Layer
from lamina.layerdirs import layers_in, remove_layer
from lamina.mount import Mount, bind, may_mount, served_by
from lamina.trees import remove_tree
from lamina_fuse import health, indexing, life, serving
from lamina_fuse.dialect import UnionWhiteouts
from lamina_fuse.index import NAME
from lamina_fuse.options import FuseOptions

_ALONE: Final = "work-alone"  # for a layer without parents, which may get one when it is committed


class FuseDriver(Driver, StoresChanges):
    """`home/<id>/fs` holds what layer <id> changes; a server shows it joined with its parents at `home/<id>/served`."""

    name: ClassVar[str] = "fuse"
    Options: ClassVar[type] = FuseOptions
    cannot: ClassVar[frozenset[Ability]] = health.lacking_in_this_kernel()

    def __init__(self, home: Path, options: Any = None) -> None:
        """Remember; touch nothing."""
        super().__init__(home, options)

    # the host

    def health(self) -> Health:
        """Look for pyfuse3, /dev/fuse and a file system that keeps marks; tells of each server."""
        return health.examine(self.home)

    def start(self) -> None:
        """`home` exists; the ways to served trees may be passed by others, but not listed."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o711)  # whatever the umask says

    def stop(self) -> None:
        """No server runs. Core asks only when nothing is mounted."""
        for layer_id in self.layers() if self.home.is_dir() else ():
            self.release(layer_id)

    # a layer's life

    def prepare(self, layer: Layer) -> None:
        """An empty directory for changes, whose own attributes are those of the parent's root."""
        self.remove(layer.id)
        place = self._place(layer.id)
        place.mkdir(mode=0o700)
        if layer.kind is Kind.VIEW and layer.parent is not None:
            return  # it has no changes; the place is for its server
        fs = place / "fs"
        fs.mkdir(mode=0o700)
        if layer.parent is None:
            fs.chmod(0o755)
            os.utime(fs, ns=(0, 0))  # the time of a root that nobody has touched
            return
        (place / "work").mkdir(mode=0o700)
        inherit_root(str(self._fs(layer.parent)), str(fs), times=True)

    def commit(self, layer: Layer) -> None:
        """Nothing moves; what never changes from now on gets its index."""
        place = self._place(layer.id)
        life.stop(place)
        with contextlib.suppress(FileNotFoundError):
            (place / NAME).unlink()
        if layer.parent is not None and not (place / "work").exists():  # prepared alone, and joined only now
            adopt_root(str(self._fs(layer.parent)), str(place / "fs"))
        for work in ("work/work", _ALONE):  # unfinished copies of a server that was killed
            remove_tree(place / work)
        indexing.build(place)

    def remove(self, layer_id: int) -> None:
        """Forget the layer. It loses its name before its files, so that a half of it is never taken for the whole."""
        self.release(layer_id)
        remove_layer(self.home, layer_id)

    def layers(self) -> set[int]:
        """Every id of which something lies here."""
        return layers_in(self.home)

    # seeing a layer

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        """A bind mount of what the layer's server shows; the server is started if none is there, or it is dead.

        For an ordinary user, who can bind nothing, a server that shows the layer only where it is mounted.
        """
        place = self._place(layer.id)
        below = self._below(layer)
        if not may_mount():
            self._index(below)
            life.clear_dead(place)
            serving.write_plan(place, self._plan(layer, below))
            return (served_by(serving.PROGRAM, place.absolute(), writable=layer.writable),)
        if not layer.writable and len(below) == 1:
            return (bind(self._fs(below[0]), writable=False),)
        if layer.writable and not below:
            return (bind(self._fs(layer.id), writable=True),)
        served = place / "served"
        if not life.is_serving(served):
            self._index(below)
            with contextlib.suppress(FileExistsError):  # a dead server's place cannot even be looked at
                os.mkdir(served, 0o700)
            serving.serve(place.absolute(), served.absolute(), self._plan(layer, below))
        return (bind(served, writable=layer.writable),)

    def _index(self, layer_ids: tuple[int, ...]) -> None:
        for each in layer_ids:
            indexing.index_of(self._place(each))

    def _below(self, layer: Layer) -> tuple[int, ...]:
        """The layers that are shown read-only, the nearest first."""
        if layer.writable or (layer.kind is Kind.VIEW and layer.parent is not None):
            return layer.parents
        return (layer.id, *layer.parents)

    def _plan(self, layer: Layer, below: tuple[int, ...]) -> serving.Plan:
        return serving.Plan(
            lowers=below,
            writable=layer.writable,
            work="work" if layer.parent is not None else _ALONE,
            prefix=health.attribute_prefix(),
            options=(*self.options.of_the_mount, *(() if layer.writable else ("ro",))),
            log_level=self.options.log_level.upper(),
            accelerate=self.options.accelerate,
            passthrough=self.options.passthrough and os.geteuid() == 0,
            look_out=self.options.look_out,
            read_ahead=self.options.read_ahead,
        )

    def release(self, layer_id: int) -> None:
        """The layer's server has ended, and its mount is gone."""
        life.stop(self._place(layer_id))

    # changes

    def changes(self, layer: Layer) -> ChangesTree:
        """The layer's own directory."""
        return ChangesTree(self._fs(layer.id), UnionWhiteouts(health.attribute_prefix()))

    def _place(self, layer_id: int) -> Path:
        return self.home / str(layer_id)

    def _fs(self, layer_id: int) -> Path:
        return self._place(layer_id) / "fs"

"""Layers as thin volumes: each a block device with a file system, sharing its blocks with its parent's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from lamina import syscalls
from lamina.changes import Change, ChangeKind
from lamina.driver import Ability, Driver, Health, Limit, NativeDiff, NativeUsage
from lamina.errors import ConfigError, InUse, NotFound
from lamina.layer import Kind, Layer, Usage
from lamina.mount import Mount
from lamina_devmapper import filesystems
from lamina_devmapper.comparing import candidates
from lamina_devmapper.health import examine
from lamina_devmapper.mapper import Device
from lamina_devmapper.options import DevmapperOptions, checked
from lamina_devmapper.pool import BASE, Pool
from lamina_devmapper.records import LayerRecord


class DevmapperDriver(Driver, NativeDiff, NativeUsage):
    """A layer is a snapshot of its parent's thin volume; `home/layers/<id>` says which number it has in the pool."""

    name: ClassVar[str] = "devmapper"
    Options: ClassVar[type] = DevmapperOptions
    cannot: ClassVar[frozenset[Ability]] = frozenset({Ability.REBASE})

    def __init__(self, home: Path, options: Any = None) -> None:
        """Remember; touch nothing."""
        super().__init__(home, options)
        self._pool = Pool(home, checked(self.options))

    # the host

    def health(self) -> Health:
        """Whether the kernel has thin provisioning, and how full the pool is."""
        return examine(self.home, self._pool)

    def start(self) -> None:
        """The pool is up."""
        self._pool.start()

    def limit(self) -> Limit:
        """A file system ends where its device does."""
        return Limit.ENFORCED

    def stop(self) -> None:
        """The pool is down, unless somebody has one of its devices open."""
        self._pool.stop()

    # a layer's life

    def prepare(self, layer: Layer) -> None:
        """A snapshot of the parent, or of the empty base; a view is nothing but another device on its parent."""
        self.remove(layer.id)
        if layer.kind is Kind.VIEW:
            return
        origin = self._record(layer.parent)
        size = self._size_above(origin)
        with self._pool.locked():
            made = self._pool.create(layer.id, origin, layer.parent or BASE, size)
        if size > origin.size:
            device = self._pool.show(layer.id, made, writable=True)
            filesystems.grow(device.node, self._filesystem, size)

    def _size_above(self, origin: LayerRecord) -> int:
        """Bytes of a new layer's file system. A file system in use grows, and never shrinks."""
        size: int = self.options.size
        if size and size < origin.size:
            raise ConfigError(
                f"drivers.devmapper.size: {size} bytes are less than the {origin.size} that the parent's"
                " file system has, and it cannot shrink; raise it, or start a new store"
            )
        return max(origin.size, size or self._pool.options.base_size)

    def commit(self, layer: Layer) -> None:
        """Everything is in its place and on the disk; from now on the device is read-only."""
        record = self._record(layer.id)
        device = self._pool.mapper.find(self._pool.name_of(layer.id))
        if device is not None and device.open_count:
            raise InUse(f"layer {layer.id} is still mounted or open somewhere; unmount it first")
        shown = self._pool.show(layer.id, record, writable=True)
        try:
            filesystems.settle(shown.node, self._filesystem)
        finally:
            self._pool.hide(layer.id)

    def remove(self, layer_id: int) -> None:
        """The layer is forgotten. If somebody still has it open, its blocks are freed when they are done."""
        if self._pool.known is None:
            return
        self.release(layer_id)
        if self._pool.records.layer(layer_id) is not None:
            with self._pool.locked():
                self._pool.remove(layer_id)

    def layers(self) -> set[int]:
        """Every id that has, or had, a volume in the pool."""
        return self._pool.records.layers()

    # seeing a layer

    def mounts(self, layer: Layer) -> tuple[Mount, ...]:
        """The layer's device is up; its file system is to be mounted as it is."""
        record = self._record(layer.parent if layer.kind is Kind.VIEW else layer.id)
        device = self._pool.show(layer.id, record, writable=layer.writable)
        how = filesystems.options(self._filesystem, writable=layer.writable)
        return (Mount(self._filesystem, device.node, (*how, *self.options.mount_options)),)

    def release(self, layer_id: int) -> None:
        """The layer's device is gone, or goes with its last user."""
        if self._pool.known is not None:
            self._pool.hide(layer_id)

    # what the kernel knows

    def diff(self, layer: Layer) -> Iterator[Change] | None:
        """The names of the inodes that ext4 has changed; None where there is no parent, or another file system."""
        if layer.parent is None or self._filesystem != "ext4":
            return None
        if layer.kind is Kind.VIEW:
            return iter(())
        own, below = self._record(layer.id), self._record(layer.parent)
        with self._pool.look(below) as old, self._opened(layer, own) as new:
            found = candidates(old.node, new.node, writable=layer.writable)
        return None if found is None else (Change(path, ChangeKind.MODIFIED) for path in found)

    def usage(self, layer: Layer) -> Usage:
        """The blocks that the layer maps beyond those of its parent, and the inodes that it has more.

        What it has written over in its parent's files counts only where the parent had nothing.
        """
        if layer.kind is Kind.VIEW:
            return Usage()
        with self._opened(layer, self._record(layer.id)) as device:
            size, inodes = self._measured(device, writable=layer.writable)
        with self._pool.look(self._record(layer.parent)) as device:
            below, inodes_below = self._measured(device, writable=False)
        return Usage(max(0, size - below), max(0, inodes - inodes_below))

    def _measured(self, device: Device, *, writable: bool) -> tuple[int, int]:
        with filesystems.detached(device.node, self._filesystem, writable=writable) as root:
            if writable:
                syscalls.syncfs(root)
            told = os.fstatvfs(root)
        return self._pool.mapped(device), told.f_files - told.f_ffree

    @contextlib.contextmanager
    def _opened(self, layer: Layer, record: LayerRecord) -> Iterator[Device]:
        """A device on the layer: the one that may be mounted, if it is written to, since only that knows all."""
        if not layer.writable:
            with self._pool.look(record) as device:
                yield device
            return
        up = self._pool.mapper.find(self._pool.name_of(layer.id)) is not None
        try:
            yield self._pool.show(layer.id, record, writable=True)
        finally:
            if not up:
                self._pool.hide(layer.id)

    def _record(self, layer_id: int | None) -> LayerRecord:
        if layer_id is None:
            return LayerRecord(BASE, self._pool.record.base_size)
        found = self._pool.records.layer(layer_id)
        if found is None:
            raise NotFound(f"layer {layer_id} has no volume in the pool")
        return found

    @property
    def _filesystem(self) -> str:
        return self._pool.record.filesystem

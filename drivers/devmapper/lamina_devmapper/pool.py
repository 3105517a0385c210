"""One thin pool: brought up on its devices, kept in step with what the home knows, watched for room."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from typing import Final

import attrs

from lamina.errors import NoSpace, StoreBroken
from lamina.syscalls import opened
from lamina_devmapper import blocks, filesystems
from lamina_devmapper.blocks import SECTOR
from lamina_devmapper.housing import PoolDevices
from lamina_devmapper.mapper import Device, Target
from lamina_devmapper.records import Intent, LayerRecord, PoolRecord

BASE: Final = 0  # the base device's number in the pool, and in place of a layer's id
_MOST_THINS: Final = 1 << 24


class Pool(PoolDevices):
    """The pool of one home. Nothing is kept in memory: several processes may use it at once."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else, of no process, changes the pool; what a dead one left half done is settled first."""
        with self._lock():
            self._settle()
            yield

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with opened(self._home / "lock", os.O_RDWR | os.O_CREAT) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # up and down

    def start(self) -> None:
        """The pool is up, as large as its devices, and the one that the home knows; its base device is made."""
        self.records.start()
        self._known = None
        with self._lock():
            if self.known is None:
                chosen = self.options
                name = f"lamina-{uuid.uuid4().hex[:12]}"
                self.records.write_pool(PoolRecord(name, chosen.filesystem, chosen.block_size, chosen.smallest))
                self.records.write_intent(Intent())
            with self.devices() as (metadata, data):
                self.bring_up(metadata, data)
            self._make_base()
            self._settle()
            self._sweep()

    def stop(self) -> None:
        """Everything that nobody has open is let go; with the last device the pool goes, and with it the loops."""
        record = self.known
        if record is None:
            return
        with self._lock():
            left = [
                name for name in self.mapper.names() if name.startswith(f"{record.name}-") and not self.removed(name)
            ]
            if not left:
                self.removed(record.name)

    # in step with the home

    def _settle(self) -> None:
        """Undo a creation, or finish a removal, that was cut short; notice if somebody else has changed the pool."""
        intent, now = self.records.intent, self.status().transaction
        if intent.number == now:
            return
        if intent.number != now + 1:
            raise StoreBroken(
                f"the pool is at transaction {now}, and {self._home} knows of {intent.number}:"
                " one of them is an old copy, or somebody else has changed the pool"
            )
        self.remove_device(self.name_of(intent.layer))
        self._delete(intent.thin)
        self.records.forget(intent.layer)
        self._finish(intent)

    def _finish(self, intent: Intent) -> None:
        self.mapper.message(self.record.name, f"set_transaction_id {intent.number - 1} {intent.number}")

    def _delete(self, thin: int) -> None:
        try:
            self._ask_to_delete(thin)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            self._end_looks(thin)
            self._ask_to_delete(thin)

    def _ask_to_delete(self, thin: int) -> None:
        try:
            self.mapper.message(self.record.name, f"delete {thin}")
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise

    def _end_looks(self, thin: int) -> None:
        """Devices of those who died while they looked at a volume are gone."""
        for name in self.mapper.names():
            if name.startswith(f"{self.name_of('look')}-{thin}-"):
                self.remove_device(name)

    def _sweep(self) -> None:
        """Forget removed layers whose devices have been closed since."""
        for layer_id, record in self.records.doomed().items():
            if self.mapper.remove(self.name_of(layer_id)):
                self._forget(layer_id, record)

    def _make_base(self) -> None:
        """The device that first layers start from, known by its UUID; never written to again."""
        record = self.record
        name, sectors = self.name_of("base"), record.base_size // SECTOR
        self.remove_device(name)
        if record.base_uuid is None:
            self._delete(BASE)
            self.mapper.message(record.name, f"create_thin {BASE}")
            device = self.mapper.create(name, [self._thin(BASE, sectors)])
            chosen = uuid.uuid4()
            filesystems.make(device.node, record.filesystem, chosen)
            self.remove_device(name)
            self.records.write_pool(attrs.evolve(record, base_uuid=str(chosen)))
            return
        device = self.mapper.create(name, [self._thin(BASE, sectors)], read_only=True)
        found = filesystems.uuid_of(device.node, record.filesystem)
        self.remove_device(name)
        if str(found) != record.base_uuid:
            raise StoreBroken(f"the pool's base has the UUID {found}, not {record.base_uuid}: this is another pool")

    # layers

    def create(self, layer_id: int, origin: LayerRecord, origin_layer: int, size: int) -> LayerRecord:
        """A new layer that shows what `origin` shows. The pool is locked."""
        self._sweep()
        self._refuse_if_full()
        intent = self._say("create", layer_id)
        with self._suspended(self.name_of(origin_layer)):
            while True:
                self.records.write_intent(intent)
                try:
                    self.mapper.message(self.record.name, f"create_snap {intent.thin} {origin.thin}")
                    break
                except OSError as error:
                    if error.errno != errno.EEXIST:
                        self.records.write_intent(attrs.evolve(intent, number=intent.number - 1))
                        raise
                    intent = attrs.evolve(intent, thin=_following(intent.thin))
        made = LayerRecord(intent.thin, size)
        self.records.write_layer(layer_id, made)
        self._finish(intent)
        return made

    def _say(self, verb: str, layer_id: int, thin: int | None = None) -> Intent:
        last = self.records.intent
        chosen = _following(last.thin) if thin is None else thin
        intent = Intent(last.number + 1, verb, layer_id, chosen)
        self.records.write_intent(intent)
        return intent

    @contextlib.contextmanager
    def _suspended(self, name: str) -> Iterator[None]:
        """The device, if it is up, stands still meanwhile, as the kernel demands of the origin of a snapshot."""
        device = self.mapper.find(name)
        if device is None:
            yield
            return
        with contextlib.suppress(OSError):  # somebody let go of it just now
            self.mapper.suspend(name)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self.mapper.resume(name)

    def remove(self, layer_id: int) -> None:
        """The layer is gone, now or as soon as the last one closes its device. The pool is locked."""
        record = self.records.layer(layer_id)
        if record is None:
            return
        if not self.removed(self.name_of(layer_id)):
            self.mapper.remove(self.name_of(layer_id), deferred=True)
            self.records.doom(layer_id)
            return
        self._forget(layer_id, record)
        self._sweep()

    def _forget(self, layer_id: int, record: LayerRecord) -> None:
        if self.options.discards:
            name = self.name_of(layer_id)
            device = self.mapper.create(name, [self._thin(record.thin, record.size // SECTOR)])
            blocks.discard(device.node, record.size)
            self.remove_device(name)
        intent = self._say("remove", layer_id, record.thin)
        self._delete(record.thin)
        self.records.forget(layer_id)
        self._finish(intent)

    def show(self, layer_id: int | str, record: LayerRecord, *, writable: bool) -> Device:
        """A device that shows a layer, under the name of `layer_id`; an earlier one that still fits is kept."""
        name = self.name_of(layer_id)
        device = self.mapper.find(name)
        if device is not None and device.to_be_removed:
            with contextlib.suppress(OSError):  # it went just now
                self.mapper.message(name, "@cancel_deferred_remove")
            device = self.mapper.find(name)
        if device is not None and device.has_table and device.read_only is not writable:
            return self.mapper.resume(name) if device.suspended else device
        if device is not None:
            self.remove_device(name)
        return self.mapper.create(name, [self._thin(record.thin, record.size // SECTOR)], read_only=not writable)

    @contextlib.contextmanager
    def look(self, record: LayerRecord) -> Iterator[Device]:
        """One more device that shows a layer, read-only, for us alone: others come and go as they like."""
        name = self.name_of(f"look-{record.thin}-{os.getpid()}-{os.urandom(4).hex()}")
        device = self.mapper.create(name, [self._thin(record.thin, record.size // SECTOR)], read_only=True)
        try:
            yield device
        finally:
            self.remove_device(name)

    def hide(self, layer_id: int | str) -> None:
        """The layer's device is gone, or goes with its last user."""
        name = self.name_of(layer_id)
        if not self.removed(name):
            self.mapper.remove(name, deferred=True)

    def mapped(self, device: Device) -> int:
        """Bytes that a device that is up maps, those it shares with others included."""
        return int(self.mapper.status(device.name).split()[0]) * SECTOR

    def _thin(self, thin: int, sectors: int) -> Target:
        pool = self.mapper.find(self.record.name)
        if pool is None:
            raise StoreBroken(f"the pool {self.record.name} is not up; start the driver first")
        return Target(sectors, "thin", f"{pool.numbers} {thin}")

    def _refuse_if_full(self) -> None:
        """NoSpace while less than the reserve is free: what is written already may still need it."""
        least = self.options.min_free_percent
        status = self.status()
        if status.mode != "rw":
            if min(status.free_percent.values()) < 1:
                raise NoSpace(f"{status}: enlarge it, and start again when nothing of it is mounted")
            raise StoreBroken(f"{status}: start again when nothing of it is mounted; then it is checked")
        for name, free in status.free_percent.items():
            if free < least:
                raise NoSpace(f"{status}; less than {least}% is free of its {name}: remove layers or enlarge the pool")
        if self.options.on_files:
            told = os.statvfs(self._home)
            if told.f_bavail * told.f_frsize < ROOM_FOR_FILES // 4:
                raise NoSpace(f"the disk below {self._home} is nearly full, and the pool's files lie on it")


# bytes that a disk has to have free before a pool is made on it: a full disk that cuts the pool's files off in the
# middle of their metadata leaves it read-only, and on btrfs no room can be set aside for them
ROOM_FOR_FILES: Final = 80 << 20


def _following(thin: int) -> int:
    return thin + 1 if thin + 1 < _MOST_THINS else BASE + 1

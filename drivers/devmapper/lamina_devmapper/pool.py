"""One thin pool: brought up on its devices, kept in step with what the home knows, watched for room."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from lamina.errors import InUse, NoSpace, StoreBroken
from lamina.programs import run
from lamina.syscalls import opened
from lamina_devmapper import blocks, filesystems
from lamina_devmapper.blocks import SECTOR
from lamina_devmapper.mapper import Device, Mapper, Target
from lamina_devmapper.options import DevmapperOptions
from lamina_devmapper.records import Intent, LayerRecord, PoolRecord, Records

BASE: Final = 0  # the base device's number in the pool, and in place of a layer's id
_MOST_THINS: Final = 1 << 24
_PATIENCE: Final = 5.0  # seconds for those who look at any new device, such as udev


@attrs.frozen
class PoolStatus:
    """What the kernel tells of a pool (Documentation/admin-guide/device-mapper/thin-provisioning.rst)."""

    transaction: int
    metadata: tuple[int, int]  # blocks used, of all
    data: tuple[int, int]
    mode: str
    needs_check: bool

    @property
    def free_percent(self) -> dict[str, float]:
        """What is left, in percent."""
        return {name: 100 - 100 * used / max(total, 1) for name, (used, total) in self._parts.items()}

    @property
    def _parts(self) -> dict[str, tuple[int, int]]:
        return {"data": self.data, "metadata": self.metadata}

    def __str__(self) -> str:
        parts = ", ".join(f"{100 - free:.0f}% of its {name}" for name, free in self.free_percent.items())
        return f"the pool has used {parts}; mode {self.mode}{', needs a check' if self.needs_check else ''}"


def parse_status(told: str) -> PoolStatus:
    """The status line of a thin pool; StoreBroken if the kernel has given the pool up."""
    words = told.split()
    if not words or words[0] in {"Fail", "Error"}:
        raise StoreBroken("the pool has failed; unmount everything, run `thin_check` on its metadata, and start again")
    used, total = zip(*(map(int, word.split("/")) for word in words[1:3]), strict=True)
    return PoolStatus(int(words[0]), (used[0], total[0]), (used[1], total[1]), words[4], "needs_check" in words)


class Pool:
    """The pool of one home. Nothing is kept in memory: several processes may use it at once."""

    def __init__(self, home: Path, options: DevmapperOptions) -> None:
        """Remember."""
        self.options = options
        self.records = Records(home)
        self.mapper = Mapper()
        self._home = home

    @property
    def record(self) -> PoolRecord:
        """What is known of the pool that is there."""
        found = self.records.pool
        if found is None:
            raise StoreBroken(f"{self._home} has no pool; start the driver first")
        return found

    def name_of(self, layer_id: int | str) -> str:
        """What a layer's device is called; a word instead of an id names a device for a purpose of our own."""
        return f"{self.record.name}-{layer_id}"

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
        with self._lock():
            if self.records.pool is None:
                chosen = self.options
                name = f"lamina-{uuid.uuid4().hex[:12]}"
                self.records.write_pool(PoolRecord(name, chosen.filesystem, chosen.block_size, chosen.base_size))
                self.records.write_intent(Intent())
            with self._devices() as (metadata, data):
                self._bring_up(metadata, data)
            self._make_base()
            self._settle()
            self._sweep()

    @contextlib.contextmanager
    def _devices(self) -> Iterator[tuple[str, str]]:
        """The two devices below the pool, as tables name them."""
        with contextlib.ExitStack() as held:
            if self.options.data_device is not None and self.options.metadata_device is not None:
                paths = (self.options.metadata_device, self.options.data_device)
                numbers = [held.enter_context(opened(path, os.O_RDWR)) for path in paths]
            else:
                sizes = (self.options.loop_metadata_size, self.options.loop_data_size)
                active = self._active_devices()
                numbers = [
                    held.enter_context(self._loop(name, size, device))
                    for name, size, device in zip(("metadata", "data"), sizes, active, strict=True)
                ]
            yield _numbers_of(numbers[0]), _numbers_of(numbers[1])

    def _active_devices(self) -> tuple[str, str] | tuple[None, None]:
        device = self.mapper.find(self.record.name)
        if device is None or not device.has_table:
            return None, None
        metadata, data = self.mapper.table(self.record.name).split()[:2]
        return metadata, data

    @contextlib.contextmanager
    def _loop(self, name: str, size: int, active: str | None) -> Iterator[int]:
        path = self._home / name
        with opened(path, os.O_RDWR | os.O_CREAT) as file:
            os.fchmod(file, 0o600)
            if os.fstat(file).st_size < size:
                os.ftruncate(file, size)
            own = os.fstat(file)
        if active is None:
            with blocks.looped(path) as device:
                yield device
            return
        with opened(blocks.node_of(active), os.O_RDWR) as device:
            if blocks.behind(device) != (own.st_dev, own.st_ino):
                raise StoreBroken(f"a pool {self.record.name} is up on other files than those in {self._home}: a copy?")
            if blocks.size_of(device) < own.st_size:
                blocks.note_new_size(device)
            yield device

    def _bring_up(self, metadata: str, data: str) -> None:
        name = self.record.name
        with opened(blocks.node_of(data), os.O_RDONLY) as device:
            length = blocks.size_of(device) // SECTOR
        wanted = Target(length, "thin-pool", self._words(metadata, data))
        device_now = self.mapper.find(name)
        if device_now is not None and not device_now.has_table:
            self.mapper.remove(name)
            device_now = None
        if device_now is None:
            self._create(metadata, wanted)
        elif self._is_larger(device_now, length, metadata):
            self.mapper.suspend(name)
            self.mapper.load(name, [wanted])
            self.mapper.resume(name)
        elif device_now.suspended:
            self.mapper.resume(name)

    def _words(self, metadata: str, data: str) -> str:
        features = ("error_if_no_space",) if self.options.when_full == "error" else ()
        return f"{metadata} {data} {self.record.block_size // SECTOR} 0 {len(features)} {' '.join(features)}".strip()

    def _create(self, metadata: str, wanted: Target) -> None:
        name = self.record.name
        if self.record.base_uuid is None:
            self._refuse_foreign(metadata)
        self.mapper.create(name, [wanted])
        if not self.status().needs_check:
            return
        # the kernel stopped writing in the middle of something: it wants to be told that all is well
        self.mapper.remove(name)
        run("thin_check", "--clear-needs-check-flag", blocks.node_of(metadata))
        self.mapper.create(name, [wanted])

    def _refuse_foreign(self, metadata: str) -> None:
        node = blocks.node_of(metadata)
        with opened(node, os.O_RDONLY) as device:
            if any(os.pread(device, 4096, 0)) and not self.options.on_files:
                raise StoreBroken(f"{node} holds something already; if nobody needs it, clear its first 4 KiB")

    def _is_larger(self, pool: Device, length: int, metadata: str) -> bool:
        with opened(pool.node, os.O_RDONLY) as device, opened(blocks.node_of(metadata), os.O_RDONLY) as below:
            block = self.record.block_size
            grown = length * SECTOR // block > blocks.size_of(device) // block
            return grown or blocks.size_of(below) // 4096 > self.status().metadata[1]

    def stop(self) -> None:
        """Everything that nobody has open is let go; with the last device the pool goes, and with it the loops."""
        record = self.records.pool
        if record is None:
            return
        with self._lock():
            left = [
                name for name in self.mapper.names() if name.startswith(f"{record.name}-") and not self._removed(name)
            ]
            if not left:
                self._removed(record.name)

    def _removed(self, name: str) -> bool:
        """Remove a device, patiently: whoever looks at new devices has it open for a moment."""
        deadline = time.monotonic() + _PATIENCE
        while not self.mapper.remove(name):
            device = self.mapper.find(name)
            if device is None:
                return True
            if time.monotonic() > deadline or self._mounted(device):
                return False
            time.sleep(0.01)
        return True

    def _mounted(self, device: Device) -> bool:
        own = f" {device.numbers} "
        return any(own in line for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines())

    # in step with the home

    def status(self) -> PoolStatus:
        """What the kernel tells now."""
        return parse_status(self.mapper.status(self.record.name))

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
        self._remove_device(self.name_of(intent.layer))
        self._delete(intent.thin)
        self.records.forget(intent.layer)
        self._finish(intent)

    def _finish(self, intent: Intent) -> None:
        self.mapper.message(self.record.name, f"set_transaction_id {intent.number - 1} {intent.number}")

    def _delete(self, thin: int) -> None:
        try:
            self.mapper.message(self.record.name, f"delete {thin}")
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise

    def _sweep(self) -> None:
        """Forget removed layers whose devices have been closed since."""
        for layer_id, record in self.records.doomed().items():
            if self.mapper.remove(self.name_of(layer_id)):
                self._forget(layer_id, record)

    def _make_base(self) -> None:
        """The device that first layers start from, known by its UUID; never written to again."""
        record = self.record
        name, sectors = self.name_of("base"), record.base_size // SECTOR
        self._remove_device(name)
        if record.base_uuid is None:
            self._delete(BASE)
            self.mapper.message(record.name, f"create_thin {BASE}")
            device = self.mapper.create(name, [self._thin(BASE, sectors)])
            chosen = uuid.uuid4()
            filesystems.make(device.node, record.filesystem, chosen)
            self._remove_device(name)
            self.records.write_pool(attrs.evolve(record, base_uuid=str(chosen)))
            return
        device = self.mapper.create(name, [self._thin(BASE, sectors)], read_only=True)
        found = filesystems.uuid_of(device.node, record.filesystem)
        self._remove_device(name)
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
        if not self._removed(self.name_of(layer_id)):
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
            self._remove_device(name)
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
            self._remove_device(name)
        return self.mapper.create(name, [self._thin(record.thin, record.size // SECTOR)], read_only=not writable)

    def hide(self, layer_id: int | str) -> None:
        """The layer's device is gone, or goes with its last user."""
        name = self.name_of(layer_id)
        if not self._removed(name):
            self.mapper.remove(name, deferred=True)

    def _remove_device(self, name: str) -> None:
        if not self._removed(name):
            raise InUse(f"the device {name} is open or mounted elsewhere; close it and try again")

    def mapped(self, layer_id: int | str) -> int:
        """Bytes that a device that is up maps, those it shares with others included."""
        return int(self.mapper.status(self.name_of(layer_id)).split()[0]) * SECTOR

    def _thin(self, thin: int, sectors: int) -> Target:
        pool = self.mapper.find(self.record.name)
        if pool is None:
            raise StoreBroken(f"the pool {self.record.name} is not up; start the driver first")
        return Target(sectors, "thin", f"{pool.numbers} {thin}")

    def _refuse_if_full(self) -> None:
        """NoSpace while less than the reserve is free: what is written already may still need it."""
        least = self.options.min_free_percent
        status = self.status()
        for name, free in status.free_percent.items():
            if free < least:
                raise NoSpace(f"{status}; less than {least}% is free of its {name}: remove layers or enlarge the pool")
        if self.options.on_files:
            told = os.statvfs(self._home)
            if told.f_bavail * told.f_frsize < ROOM_FOR_FILES // 4:
                raise NoSpace(f"the disk below {self._home} is nearly full, and the pool's files lie on it")


ROOM_FOR_FILES: Final = 64 << 20  # bytes that a disk has to have free before a pool is made on it


def _following(thin: int) -> int:
    return thin + 1 if thin + 1 < _MOST_THINS else BASE + 1


def _numbers_of(device: int) -> str:
    number = os.fstat(device).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"

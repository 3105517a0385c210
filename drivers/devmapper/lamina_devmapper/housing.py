"""A pool on its devices: brought up on them, in files if none are named, and enlarged as they grow."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lamina.errors import InUse, StoreBroken
from lamina.programs import run
from lamina.syscalls import opened
from lamina_devmapper import blocks
from lamina_devmapper.blocks import SECTOR
from lamina_devmapper.mapper import Device, Mapper, Target
from lamina_devmapper.options import DevmapperOptions
from lamina_devmapper.records import PoolRecord, Records
from lamina_devmapper.status import PoolStatus, parse_status

_PATIENCE: Final = 2.0  # seconds for those who look at any new device, such as udev


class PoolDevices:
    """The devices of one home's pool. Nothing is kept in memory but what never changes."""

    def __init__(self, home: Path, options: DevmapperOptions) -> None:
        """Remember."""
        self.options = options
        self.records = Records(home)
        self.mapper = Mapper()
        self._home = home
        self._known: PoolRecord | None = None

    @property
    def known(self) -> PoolRecord | None:
        """What is known of the pool; None in a new home. Once its base is made, none of it changes."""
        if self._known is None or self._known.base_uuid is None:
            self._known = self.records.pool
        return self._known

    @property
    def record(self) -> PoolRecord:
        """What is known of the pool that is there."""
        found = self.known
        if found is None:
            raise StoreBroken(f"{self._home} has no pool; start the driver first")
        return found

    def name_of(self, layer_id: int | str) -> str:
        """What a layer's device is called; a word instead of an id names a device for a purpose of our own."""
        return f"{self.record.name}-{layer_id}"

    def status(self) -> PoolStatus:
        """What the kernel tells now."""
        return parse_status(self.mapper.status(self.record.name))

    @contextlib.contextmanager
    def devices(self) -> Iterator[tuple[str, str]]:
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

    def bring_up(self, metadata: str, data: str) -> None:
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

    def removed(self, name: str) -> bool:
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

    def remove_device(self, name: str) -> None:
        if not self.removed(name):
            raise InUse(f"the device {name} is open or mounted elsewhere; close it and try again")


def _numbers_of(device: int) -> str:
    number = os.fstat(device).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"

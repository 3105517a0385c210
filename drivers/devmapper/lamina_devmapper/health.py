"""Whether device mapper works here, and what there is to say about the pool."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lamina.driver import Health
from lamina.errors import LaminaError
from lamina_devmapper import filesystems
from lamina_devmapper.mapper import CONTROL
from lamina_devmapper.pool import ROOM_FOR_FILES, Pool


def examine(home: Path, pool: Pool) -> Health:
    """Look, and leave no trace. Never raises for a poor host."""
    try:
        problems = tuple(_problems(home, pool))
        return Health(problems, () if problems else tuple(_notes(pool)))
    except (OSError, LaminaError) as error:
        return Health((f"device mapper cannot be used: {error}",))


def _problems(home: Path, pool: Pool) -> Iterator[str]:
    if not os.path.exists(CONTROL):
        yield "the kernel has no device mapper; load it (modprobe dm_mod), or boot a kernel that has it"
        return
    if os.geteuid() != 0:
        yield "only root may use device mapper"
        return
    if not pool.mapper.has_target("thin-pool"):
        yield "the kernel has no thin provisioning; load it (modprobe dm-thin-pool)"
    program = filesystems.program_of(pool.options.filesystem)
    if shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") is None:
        yield f"there is no {program} to make the base device with; install e2fsprogs or xfsprogs"
    yield from _device_problems(home, pool)


def _device_problems(home: Path, pool: Pool) -> Iterator[str]:
    for path in (pool.options.data_device, pool.options.metadata_device):
        if path is not None and not path.is_block_device():
            yield f"{path} is no block device"
    known = pool.known
    if known is not None and 0 < pool.options.size < known.base_size:
        yield f"size is less than the {known.base_size} bytes of the pool's base; raise it, or start a new store"
    if pool.options.on_files and known is None:
        told = os.statvfs(next(each for each in (home, *home.absolute().parents) if each.is_dir()))
        if told.f_bavail * told.f_frsize < ROOM_FOR_FILES:
            yield f"less than {ROOM_FOR_FILES >> 20} MiB are free below {home}: too little for a pool in files"
        if not os.path.exists("/dev/loop-control"):
            yield "the kernel has no loop devices; name block devices in data_device and metadata_device"


def _notes(pool: Pool) -> Iterator[str]:
    if pool.options.on_files:
        yield "the pool lies in files through loop devices: for trying out; for work, name two block devices"
    record = pool.known
    if record is not None and pool.mapper.find(record.name) is not None:
        yield str(pool.status())

"""The file system on a layer's device: made once, known by its UUID, grown, and reached without a place to mount at."""

from __future__ import annotations

import fcntl
import os
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from lamina import syscalls
from lamina.programs import run
from lamina.syscalls import opened

_UUID_AT: Final = {"ext4": 1024 + 0x68, "xfs": 32}
_EXT4_IOC_RESIZE_FS: Final = 0x40086610
_EXT4_BLOCK: Final = 4096
_COARSE: Final = 5  # CLOCK_REALTIME_COARSE, whose ticks (of 1 to 10 ms) are the times that files get

# - a thin device reads as zeros where nothing was written: neither tables nor journal have to be zeroed, now or by the
#   kernel later, which would take room in every layer;
# - every layer that is written to pays for the journal it uses.
_MAKE: Final = {
    "ext4": (
        *("mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-J", "size=8", "-E"),
        *("nodiscard,assume_storage_prezeroed=1,lazy_itable_init=1,lazy_journal_init=1", "-U"),
    ),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K", "-m"),
}


def program_of(kind: str) -> str:
    """What makes file systems of this kind."""
    return _MAKE[kind][0]


def make(node: str, kind: str, name: uuid.UUID) -> None:
    """An empty file system on the device, with this UUID, and on the disk."""
    run(*_MAKE[kind], str(name) if kind == "ext4" else f"uuid={name}", node)
    with detached(node, kind) as root, suppress(FileNotFoundError):
        os.rmdir("lost+found", dir_fd=root)
    flush(node)


def uuid_of(node: str, kind: str) -> uuid.UUID:
    """The UUID that the superblock tells."""
    with opened(node, os.O_RDONLY) as device:
        return uuid.UUID(bytes=os.pread(device, 16, _UUID_AT[kind]))


def options(kind: str, *, writable: bool) -> tuple[str, ...]:
    """How to mount it: all layers share one UUID, which xfs would refuse."""
    return ("rw" if writable else "ro", *(("nouuid",) if kind == "xfs" else ()))


@contextmanager
def detached(node: str, kind: str, *, writable: bool = True) -> Iterator[int]:
    """The root directory, mounted nowhere: it is unmounted when it is closed, also by the death of this process."""
    context = syscalls.fsopen(kind)
    try:
        syscalls.fsconfig_string(context, "source", os.fsencode(node))
        for flag in options(kind, writable=writable)[0 if not writable else 1 :]:
            syscalls.fsconfig_flag(context, flag)
        syscalls.fsconfig_create(context)
        mount = syscalls.fsmount(context)
    finally:
        os.close(context)
    try:
        with opened(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount) as root:
            yield root
    finally:
        os.close(mount)


def settle(node: str, kind: str) -> None:
    """The file system is clean and on the disk: what its journal still held, after a crash, is in its place.

    What is changed from now on, in a copy of it, has a change time that nothing in here has.
    """
    with detached(node, kind) as root:
        syscalls.syncfs(root)
    flush(node)
    last = time.clock_gettime_ns(_COARSE)
    while time.clock_gettime_ns(_COARSE) == last:
        time.sleep(0.001)


def grow(node: str, kind: str, size: int) -> None:
    """The file system fills its device of `size` bytes."""
    if kind == "xfs":
        _grow_xfs(node)
        return
    with detached(node, kind) as root:
        fcntl.ioctl(root, _EXT4_IOC_RESIZE_FS, struct.pack("<Q", size // _EXT4_BLOCK))


def _grow_xfs(node: str) -> None:
    with detached(node, "xfs") as root:
        geometry = bytearray(256)
        fcntl.ioctl(root, 0x8100587E, geometry)  # XFS_IOC_FSGEOMETRY
        block, blocks = struct.unpack_from("<I", geometry)[0], struct.unpack_from("<Q", geometry, 40)[0]
        percent = struct.unpack_from("<I", geometry, 28)[0]
        with opened(node, os.O_RDONLY) as device:
            wanted = os.lseek(device, 0, os.SEEK_END) // block
        if wanted > blocks:
            fcntl.ioctl(root, 0x4010586E, struct.pack("<QI4x", wanted, percent))  # XFS_IOC_FSGROWFSDATA


def flush(node: str) -> None:
    """What was written to the device is on the disk, and so is the pool's knowledge of it."""
    with opened(node, os.O_RDONLY) as device:
        os.fsync(device)

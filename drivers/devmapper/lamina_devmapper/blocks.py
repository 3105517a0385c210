"""Block devices: their size, files as loop devices, discarding what they hold."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lamina.syscalls import opened

SECTOR: Final = 512
_BLKGETSIZE64: Final = 0x80081272  # linux/fs.h
_BLKDISCARD: Final = 0x1277
_LOOP_CTL_GET_FREE: Final = 0x4C82  # linux/loop.h
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_SET_CAPACITY: Final = 0x4C07
_LOOP_GET_STATUS64: Final = 0x4C05
_AUTOCLEAR: Final = 4
_INFO: Final = struct.Struct("<QQQQQIIII64s64s32sQQ")  # struct loop_info64


def size_of(device: int) -> int:
    """Bytes of an open block device."""
    answer = bytearray(8)
    fcntl.ioctl(device, _BLKGETSIZE64, answer)
    return int(struct.unpack("<Q", answer)[0])


def discard(node: str, length: int) -> None:
    """The first `length` bytes of the device are free; what cannot discard is left as it is."""
    with opened(node, os.O_RDWR) as device:
        try:
            fcntl.ioctl(device, _BLKDISCARD, struct.pack("<QQ", 0, length))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise


@contextmanager
def looped(path: Path) -> Iterator[int]:
    """An open loop device on the file; the kernel takes it away when its last user closes it."""
    with opened(path, os.O_RDWR) as file:
        device = _attached(file)
        try:
            yield device
        finally:
            os.close(device)


def _attached(file: int) -> int:
    while True:
        with opened("/dev/loop-control", os.O_RDWR) as control:
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
        config = struct.pack("<II", file, 4096) + _info(flags=_AUTOCLEAR) + bytes(64)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, bytearray(config))
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:  # somebody was quicker: take another one
                raise
            continue
        return device


def _info(flags: int) -> bytes:
    return _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, b"lamina", b"", b"", 0, 0)


def behind(device: int) -> tuple[int, int] | None:
    """The file (device, inode) behind an open loop device."""
    answer = bytearray(_INFO.size)
    try:
        fcntl.ioctl(device, _LOOP_GET_STATUS64, answer)
    except OSError:
        return None
    told = _INFO.unpack(answer)
    return told[0], told[1]


def note_new_size(device: int) -> None:
    """The loop device is as large as its file has become."""
    fcntl.ioctl(device, _LOOP_SET_CAPACITY)


def node_of(numbers: str) -> str:
    """The name in /dev of a device that a table names by its numbers."""
    for line in Path(f"/sys/dev/block/{numbers}/uevent").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition("=")
        if key == "DEVNAME":
            return f"/dev/{value}"
    raise FileNotFoundError(errno.ENODEV, os.strerror(errno.ENODEV), numbers)

"""Disks of a few megabytes that can be filled, and whose power can be cut."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lamina import syscalls
from lamina.syscalls import opened

_BTRFS_IOC_SYNC: Final = 0x9408  # linux/btrfs.h


def kernel_has(kind: str) -> bool:
    """Whether this kernel can mount file systems of that kind, if need be by a module that it loads now."""
    try:
        os.close(syscalls.fsopen(kind))
    except OSError as error:
        return error.errno != errno.ENODEV
    return True


def has_loops() -> bool:
    """Whether an image can be mounted at all."""
    return Path("/dev/loop-control").exists()


@contextmanager
def tmpfs(place: Path, megabytes: int) -> Iterator[Path]:
    """A file system in memory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=711", "tmpfs", place], check=True)
    with _unmounted_afterwards(place):
        yield place


@contextmanager
def ext4(place: Path, image: Path, megabytes: int) -> Iterator[Path]:
    """An ext4 file system in the file `image`."""
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    # everything that mkfs would leave to the kernel is done now: the disk shall be idle when we look at it
    lazy = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", lazy, image], check=True)
    with mounted_image(place, image):
        (place / "lost+found").rmdir()
        yield place


@contextmanager
def btrfs(place: Path, image: Path, megabytes: int) -> Iterator[Path]:
    """A btrfs in the file `image`; data and metadata share their space, as they must on a disk so small."""
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.btrfs", "-q", "--mixed", "-m", "single", "-d", "single", image], check=True)
    with mounted_image(place, image):
        yield place


@contextmanager
def mounted_image(place: Path, image: Path) -> Iterator[Path]:
    """An image that has a file system, through a loop device that goes with the mount."""
    # no delayed allocation: a full disk says so to the one who writes
    subprocess.run(["mount", "-o", "loop,noatime", image, place], check=True)
    with _unmounted_afterwards(place):
        yield place


@contextmanager
def _unmounted_afterwards(place: Path) -> Iterator[None]:
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def cut_the_power(image: Path, copy: Path) -> None:
    """Make `copy` what would be on the disk if the machine lost its power now.

    What the file system has not yet written to its device is not in the image.
    """
    subprocess.run(["cp", "--sparse=always", image, copy], check=True)


def wake_the_cleaner(place: Path) -> None:
    """What is written is on the disk, and a btrfs begins now to free what was removed."""
    with opened(place, os.O_RDONLY | os.O_DIRECTORY) as directory:
        os.fsync(directory)
        with contextlib.suppress(OSError):  # another file system
            fcntl.ioctl(directory, _BTRFS_IOC_SYNC)


def fill(directory: Path) -> Path:
    """Write a file until the disk is full to the last block; remove it to make room again."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"\xa5" * size):
                    pass
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
        os.fsync(file.fileno())
    return ballast

"""What is kept of an inode's attributes: packed, since there are many of them."""

from __future__ import annotations

import os
import struct
from typing import Final

RECORD: Final = struct.Struct("<IIIIQQQqqq")
Record = tuple[int, int, int, int, int, int, int, int, int, int]

MODE, NLINK, UID, GID, RDEV, SIZE, BLOCKS, ATIME, MTIME, CTIME = range(10)


def record_of(status: os.stat_result) -> Record:
    """The attributes in the order of the names above; times in nanoseconds, blocks of 512 bytes."""
    return (
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_rdev,
        status.st_size,
        status.st_blocks,
        status.st_atime_ns,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )

"""btrfs's ioctls, thin and typed; no program is started (kernel: include/uapi/linux/btrfs.h).

Every function works on open descriptors and raises `OSError` with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct
import uuid
from collections.abc import Iterator
from typing import Final

import attrs

ROOT_INODE: Final = 256  # of every subvolume: BTRFS_FIRST_FREE_OBJECTID
READ_ONLY: Final = 1 << 1  # BTRFS_SUBVOL_RDONLY
LIMIT_REFERENCED: Final = 1  # BTRFS_QGROUP_LIMIT_MAX_RFER

_SUBVOL_CREATE: Final = 0x5000940E
_SNAP_DESTROY: Final = 0x5000940F
_SNAP_CREATE_V2: Final = 0x50009417
_SUBVOL_GETFLAGS: Final = 0x80089419
_SUBVOL_SETFLAGS: Final = 0x4008941A
_GET_SUBVOL_INFO: Final = 0x81F8943C
_GET_SUBVOL_ROOTREF: Final = 0xD000943D
_INO_LOOKUP_USER: Final = 0xD000943E
_INO_PATHS: Final = 0xC0389423
_TREE_SEARCH_V2: Final = 0xC0709411
_FS_INFO: Final = 0x8400941F
_SYNC: Final = 0x9408
_SEND: Final = 0x40489426
_QGROUP_CREATE: Final = 0x4010942A
_QGROUP_LIMIT: Final = 0x8030942B
_QUOTA_RESCAN_WAIT: Final = 0x942E

_OLD_NAME: Final = struct.Struct("<q4088s")  # btrfs_ioctl_vol_args
_NAME: Final = struct.Struct("<qQQ32x4040s")  # btrfs_ioctl_vol_args_v2
_INFO: Final = struct.Struct("<Q256sQQQQ16s16s16sQQQQ")  # btrfs_ioctl_get_subvol_info_args, up to rtransid
_KEY: Final = struct.Struct("<7Q4I32x")  # btrfs_ioctl_search_key
_HEADER: Final = struct.Struct("<QQQII")  # btrfs_ioctl_search_header
_SEND_ARGUMENTS: Final = struct.Struct("<qQQQQI28x")  # btrfs_ioctl_send_args
_NO_FILE_DATA: Final = 1
_MOST: Final = (1 << 64) - 1
_ROOM: Final = 1 << 16  # no item is larger than a leaf, and no leaf than 64 KiB


@attrs.frozen
class SubvolumeInfo:
    """What the kernel tells of a subvolume; transaction ids grow with time."""

    id: int
    created: int  # the transaction in which it was made (otransid)
    read_only: bool


def file_system_id(descriptor: int) -> str | None:
    """The UUID of the btrfs that holds an open file; None if it is another kind of file system."""
    told = bytearray(1024)
    try:
        fcntl.ioctl(descriptor, _FS_INFO, told)
    except OSError as error:
        if error.errno in {errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP}:
            return None
        raise
    return str(uuid.UUID(bytes=bytes(told[16:32])))


# subvolumes


def create(parent: int, name: bytes) -> None:
    """An empty subvolume in the open directory."""
    fcntl.ioctl(parent, _SUBVOL_CREATE, bytearray(_OLD_NAME.pack(0, name)))


def snapshot(source: int, parent: int, name: bytes, *, read_only: bool = False) -> None:
    """A subvolume in the open directory that is the open subvolume `source` as it is now; it shares all blocks."""
    fcntl.ioctl(parent, _SNAP_CREATE_V2, bytearray(_NAME.pack(source, 0, READ_ONLY if read_only else 0, name)))


def destroy(parent: int, name: bytes) -> None:
    """The subvolume is gone from the open directory. ENOTEMPTY while it holds other subvolumes."""
    fcntl.ioctl(parent, _SNAP_DESTROY, bytearray(_OLD_NAME.pack(0, name)))


def is_read_only(subvolume: int) -> bool:
    """Whether the open subvolume is frozen."""
    told = bytearray(8)
    fcntl.ioctl(subvolume, _SUBVOL_GETFLAGS, told)
    return bool(struct.unpack("<Q", told)[0] & READ_ONLY)


def set_read_only(subvolume: int, *, read_only: bool) -> None:
    """Freeze or thaw the open subvolume."""
    fcntl.ioctl(subvolume, _SUBVOL_SETFLAGS, bytearray(struct.pack("<Q", READ_ONLY if read_only else 0)))


def info(descriptor: int) -> SubvolumeInfo:
    """About the subvolume in which an open file lies. Any user may ask (Linux 4.18)."""
    told = bytearray(504)
    fcntl.ioctl(descriptor, _GET_SUBVOL_INFO, told)
    number, _, _, _, _, flags, _, _, _, _, made, *_ = _INFO.unpack_from(told)
    return SubvolumeInfo(number, made, bool(flags & READ_ONLY))


def nested(subvolume: int) -> Iterator[bytes]:
    """The paths of the subvolumes that lie directly in the open one. Any user may ask who could find them (4.18)."""
    first = 0
    while True:
        told = bytearray(4096)
        struct.pack_into("<Q", told, 0, first)
        more = False
        try:
            fcntl.ioctl(subvolume, _GET_SUBVOL_ROOTREF, told)
        except OSError as error:
            if error.errno != errno.EOVERFLOW:
                raise
            more = True  # those that fit are there; the rest is asked for next
        (first,) = struct.unpack_from("<Q", told, 0)
        for number in range(told[8 + 255 * 16]):
            tree, directory = struct.unpack_from("<QQ", told, 8 + 16 * number)
            yield _path_of(subvolume, tree, directory)
        if not more:
            return


def _path_of(subvolume: int, tree: int, directory: int) -> bytes:
    told = bytearray(4096)
    struct.pack_into("<QQ", told, 0, directory, tree)
    fcntl.ioctl(subvolume, _INO_LOOKUP_USER, told)
    name, way = bytes(told[16:272]), bytes(told[272:])
    return way.split(b"\0", 1)[0] + name.split(b"\0", 1)[0]


# looking inside


def names_of(subvolume: int, inode: int) -> list[bytes]:
    """Every path of an inode in the open subvolume; needs CAP_DAC_READ_SEARCH."""
    size = 4096
    while True:
        room = ctypes.create_string_buffer(size)
        arguments = bytearray(struct.pack("<QQ32xQ", inode, size, ctypes.addressof(room)))
        fcntl.ioctl(subvolume, _INO_PATHS, arguments)
        _, missing, count, missed = struct.unpack_from("<IIII", room.raw)
        if not missing and not missed:
            starts = struct.unpack_from(f"<{count}Q", room.raw, 16)  # relative to where they stand
            return [room.raw[16 + start :].split(b"\0", 1)[0] for start in starts]
        size += missing + (1 << 16)


def items(subvolume: int, tree: int, since: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Every item (inode, type, offset, content) of a subvolume in leaves written after transaction `since`.

    Needs CAP_SYS_ADMIN. Pages of the tree that are older are not read.
    """
    key = (ROOT_INODE, 0, 0)
    while True:
        arguments = bytearray(112 + _ROOM)
        _KEY.pack_into(arguments, 0, tree, key[0], _MOST, key[2], _MOST, since + 1, _MOST, key[1], 255, 1 << 20, 0)
        struct.pack_into("<Q", arguments, 104, _ROOM)
        fcntl.ioctl(subvolume, _TREE_SEARCH_V2, arguments)
        count = struct.unpack_from("<I", arguments, 64)[0]
        if not count:
            return
        position = 112
        for _ in range(count):
            _, inode, offset, kind, length = _HEADER.unpack_from(arguments, position)
            position += _HEADER.size
            yield inode, kind, offset, bytes(arguments[position : position + length])
            position += length
        key = (inode, kind, offset + 1) if offset < _MOST else (inode, kind + 1, 0)


def sync(descriptor: int) -> None:
    """Return once the running transaction of the file system is committed."""
    fcntl.ioctl(descriptor, _SYNC)


def send(subvolume: int, parent: int, sink: int) -> None:
    """Write what leads from the frozen subvolume with the id `parent` to the open one, file contents left out.

    Needs CAP_SYS_ADMIN.
    """
    sources = (ctypes.c_uint64 * 1)(parent)
    told = _SEND_ARGUMENTS.pack(sink, 1, ctypes.addressof(sources), parent, _NO_FILE_DATA, 0)
    fcntl.ioctl(subvolume, _SEND, bytearray(told))


# quota groups: each subvolume has one of its own, with its own number


def limit(descriptor: int, subvolume: int, most: int | None) -> None:
    """The subvolume may refer to so many bytes; None lifts the limit. Needs CAP_SYS_ADMIN; EINVAL without quotas."""
    # the kernel takes a limit away when it is set to the largest number there is
    value = _MOST if most is None else most
    told = struct.pack("<QQQQQQ", subvolume, LIMIT_REFERENCED, value, 0, 0, 0)
    fcntl.ioctl(descriptor, _QGROUP_LIMIT, bytearray(told))


def drop_group(descriptor: int, subvolume: int) -> None:
    """The quota group of a subvolume that is gone is gone, too."""
    fcntl.ioctl(descriptor, _QGROUP_CREATE, bytearray(struct.pack("<QQ", 0, subvolume)))


def wait_for_rescan(descriptor: int) -> None:
    """Return once no recount of quotas is running."""
    fcntl.ioctl(descriptor, _QUOTA_RESCAN_WAIT)

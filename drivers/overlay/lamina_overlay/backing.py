"""What lies below the layers: file systems that cannot carry overlay's, and why."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from lamina.mountinfo import MountPoint, mountinfo

_REFUSED: Final = {
    "aufs": "overlay's writable layer cannot lie on another union",
    "overlay": "overlay's writable layer cannot lie on another overlay",
    "ecryptfs": "names and contents change below overlay's feet",
    "nfs": "it keeps no whiteouts and no attributes of overlay's",
    "nfs4": "it keeps no whiteouts and no attributes of overlay's",
    "cifs": "it keeps no whiteouts and no attributes of overlay's",
    "smb3": "it keeps no whiteouts and no attributes of overlay's",
    "vfat": "it knows neither owners nor attributes",
    "exfat": "it knows neither owners nor attributes",
}
_UNKNOWN: Final = 0  # DT_UNKNOWN


def refusal_of(place: Path) -> str | None:
    """Why overlay is not even tried there; file systems that are not listed are tried out."""
    kind = file_system_of(place)
    if kind not in _REFUSED:
        return None
    return f"{place} lies on {kind}: {_REFUSED[kind]}; choose a root on ext4, xfs, btrfs or tmpfs"


def file_system_of(place: Path) -> str:
    """The type of the file system that holds an existing place, as mountinfo has it."""
    path = os.path.realpath(os.fsencode(place))
    holding = [point for point in mountinfo() if _holds(point, path)]
    if not holding:
        return "unknown"  # a chroot whose root is no mount point
    longest = max(len(point.target) for point in holding)
    return [point for point in holding if len(point.target) == longest][-1].type.decode()  # the last covers the others


def _holds(point: MountPoint, path: bytes) -> bool:
    return path == point.target or path.startswith(point.target.rstrip(b"/") + b"/")


class _Dirent(ctypes.Structure):
    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("length", ctypes.c_ushort),
        ("type", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


def tells_types(directory: Path) -> bool:
    """Whether reading a directory that is not empty tells the types of what is in it (d_type); overlay relies on it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = ctypes.c_void_p
    libc.readdir64.restype = ctypes.POINTER(_Dirent)
    stream = libc.opendir(os.fsencode(directory))
    if not stream:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fspath(directory))
    types = []
    while entry := libc.readdir64(ctypes.c_void_p(stream)):
        types.append(entry.contents.type)
    libc.closedir(ctypes.c_void_p(stream))
    return _UNKNOWN not in types

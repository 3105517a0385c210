"""System calls that Python does not offer: thin, typed, and with the kernel's own words when they fail.

Numbers from 424 on are the same on every architecture (see the kernel's scripts/syscall.tbl). Names are passed as
bytes. Every function raises `OSError` with the errno; mount calls add what the kernel wrote into the context's log.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_configure_call: Final = _libc["syscall"]  # a second view of it, with types: it is called for each layer of a mount
_configure_call.restype = ctypes.c_long
_configure_call.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_int,
)

_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_OPENAT2: Final = 437
_MOUNT_SETATTR: Final = 442

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MOUNT_ATTR_NOATIME: Final = 0x10

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

MS_RDONLY: Final = 0x1
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
RENAME_WHITEOUT: Final = 4

FALLOC_FL_KEEP_SIZE: Final = 1
FALLOC_FL_PUNCH_HOLE: Final = 2

CLONE_FS: Final = 0x200
CLONE_NEWNS: Final = 0x20000
CLONE_NEWUSER: Final = 0x10000000

_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_SET_FD: Final = 5
_FSCONFIG_CMD_CREATE: Final = 6
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1


def _fail(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def _call(what: str, number: int, *arguments: object) -> int:
    result = int(_syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise _fail(what)
    return result


# mounting by pieces: fsopen(2), fsconfig(2), fsmount(2), move_mount(2)


def fsopen(kind: str) -> int:
    """A new, empty context for a file system of this kind; the caller closes the descriptor."""
    return _call(f"fsopen {kind}", _FSOPEN, ctypes.c_char_p(kind.encode()), ctypes.c_uint(_FSOPEN_CLOEXEC))


def fsconfig_flag(context: int, key: str) -> None:
    """Switch an option on."""
    _configure(context, _FSCONFIG_SET_FLAG, key, None, 0)


def fsconfig_string(context: int, key: str, value: bytes) -> None:
    """Set an option to a value of up to 255 bytes; the kernel takes no longer ones (ENAMETOOLONG or EINVAL)."""
    _configure(context, _FSCONFIG_SET_STRING, key, value, 0)


def fsconfig_descriptor(context: int, key: str, descriptor: int) -> None:
    """Set an option to an open place. overlay takes layers so since Linux 6.13."""
    _configure(context, _FSCONFIG_SET_FD, key, None, descriptor)


def fsconfig_create(context: int) -> None:
    """Make the superblock; from here on options are refused."""
    _configure(context, _FSCONFIG_CMD_CREATE, None, None, 0)


def _configure(context: int, command: int, key: str | None, value: bytes | None, descriptor: int) -> None:
    name = None if key is None else key.encode()
    if _configure_call(_FSCONFIG, context, command, name, value, descriptor) < 0:
        failure = _fail(f"fsconfig {key or 'create'}")
        log = context_log(context)
        raise OSError(failure.errno, f"{failure.strerror} ({log})") if log else failure


def context_log(context: int) -> str:
    """What the kernel has written about this context, one line; reading empties it."""
    lines = []
    with contextlib.suppress(OSError):  # ENODATA ends the log
        while line := os.read(context, 4096):
            lines.append(line.decode(errors="replace").strip())
    return "; ".join(lines)


def fsmount(context: int, attributes: int = 0) -> int:
    """A mount of the context's superblock that is attached nowhere yet; the caller closes the descriptor."""
    return _call("fsmount", _FSMOUNT, ctypes.c_int(context), ctypes.c_uint(_FSMOUNT_CLOEXEC), ctypes.c_uint(attributes))


def move_mount(mount: int, target: bytes) -> None:
    """Attach a detached mount to a place."""
    _call(
        f"move_mount to {os.fsdecode(target)!r}",
        _MOVE_MOUNT,
        ctypes.c_int(mount),
        ctypes.c_char_p(b""),
        ctypes.c_int(AT_FDCWD),
        ctypes.c_char_p(target),
        ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
    )


def open_tree(path: bytes, *, recursive: bool = False, directory: int = AT_FDCWD) -> int:
    """A detached copy of the mount at `path`, as for a bind mount; the caller closes the descriptor."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    return _call(
        f"open_tree {os.fsdecode(path)!r}",
        _OPEN_TREE,
        ctypes.c_int(directory),
        ctypes.c_char_p(path),
        ctypes.c_uint(flags),
    )


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount_setattr(
    mount: int, *, attributes: int = 0, cleared: int = 0, propagation: int = 0, recursive: bool = False
) -> None:
    """Set and clear attributes of the mount behind a descriptor."""
    values = _MountAttributes(attr_set=attributes, attr_clr=cleared, propagation=propagation)
    _call(
        "mount_setattr",
        _MOUNT_SETATTR,
        ctypes.c_int(mount),
        ctypes.c_char_p(b""),
        ctypes.c_uint(AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)),
        ctypes.byref(values),
        ctypes.c_size_t(ctypes.sizeof(values)),
    )


# mounting as ever: mount(2), umount2(2)


def mount(source: bytes, target: bytes, kind: str | None, flags: int = 0, data: bytes | None = None) -> None:
    """mount(2). `data` must be shorter than a page: the kernel cuts longer ones off without a word."""
    if data is not None and len(data) >= os.sysconf("SC_PAGE_SIZE"):
        raise OSError(errno.E2BIG, f"mount data of {len(data)} bytes does not fit into one page")
    result = _libc.mount(
        ctypes.c_char_p(source),
        ctypes.c_char_p(target),
        ctypes.c_char_p(None if kind is None else kind.encode()),
        ctypes.c_ulong(flags),
        ctypes.c_char_p(data),
    )
    if result < 0:
        raise _fail(f"mount {kind} on {os.fsdecode(target)!r}")


def umount2(target: bytes, flags: int = 0) -> None:
    """umount2(2), never through a symbolic link at the end."""
    if _libc.umount2(ctypes.c_char_p(target), ctypes.c_int(flags | UMOUNT_NOFOLLOW)) < 0:
        raise _fail(f"umount {os.fsdecode(target)!r}")


# names


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): open below `directory` as `resolve` allows. EAGAIN (a rename raced with us) is tried again."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    while True:
        result = int(
            _syscall(
                ctypes.c_long(_OPENAT2),
                ctypes.c_int(directory),
                ctypes.c_char_p(path),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
        )
        if result >= 0:
            return result
        if ctypes.get_errno() != errno.EAGAIN:
            raise _fail(f"openat2 {os.fsdecode(path)!r}")


def renameat2(source_dir: int, source: bytes, target_dir: int, target: bytes, flags: int = 0) -> None:
    """renameat2(2), with RENAME_NOREPLACE, RENAME_EXCHANGE or RENAME_WHITEOUT."""
    result = _libc.renameat2(
        ctypes.c_int(source_dir),
        ctypes.c_char_p(source),
        ctypes.c_int(target_dir),
        ctypes.c_char_p(target),
        ctypes.c_uint(flags),
    )
    if result < 0:
        raise _fail(f"renameat2 {os.fsdecode(source)!r} to {os.fsdecode(target)!r}")


# the rest


def syncfs(descriptor: int) -> None:
    """Return once everything of the descriptor's file system is on disk; a write error raises since Linux 5.8."""
    if _libc.syncfs(ctypes.c_int(descriptor)) < 0:
        raise _fail("syncfs")


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2): preallocate, or punch a hole."""
    if _libc.fallocate64(ctypes.c_int(descriptor), ctypes.c_int(mode), ctypes.c_int64(offset), ctypes.c_int64(length)):
        raise _fail("fallocate")


def unshare(flags: int) -> None:
    """unshare(2) for the calling *thread*."""
    if _libc.unshare(ctypes.c_int(flags)) < 0:
        raise _fail("unshare")


def setns(descriptor: int) -> None:
    """setns(2): the calling thread joins the namespace of an open /proc/PID/ns/… file."""
    if _libc.setns(ctypes.c_int(descriptor), ctypes.c_int(0)) < 0:
        raise _fail("setns")


@contextlib.contextmanager
def opened(path: bytes | str | os.PathLike[str], flags: int, *, dir_fd: int | None = None) -> Iterator[int]:
    """A descriptor for the length of a `with`."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

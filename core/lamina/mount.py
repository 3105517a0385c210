"""How the kernel is told to show a layer: mounts as data, and the few functions that act on them."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from lamina import programs, syscalls
from lamina.boot import boot_id
from lamina.errors import NotFound, ProgramFailed
from lamina.mountinfo import MountPoint, mounted_targets, mountinfo
from lamina.mountoptions import attributes_of, file_system_options, flags_of
from lamina.overlaymount import mount_overlay

__all__ = [
    "Mount",
    "MountPoint",
    "bind",
    "boot_id",
    "depth_of",
    "is_mounted",
    "may_mount",
    "mount_all",
    "mount_one",
    "mounted_targets",
    "mountinfo",
    "served_by",
    "temporarily_mounted",
    "unmount",
]


_SERVED: Final = "fuse."
_CAP_SYS_ADMIN: Final = 21


@attrs.frozen
class Mount:
    """One mount as mount(8) would be told: data, not action.

    For overlay, `lowerdir`, `upperdir` and `workdir` are options in mount(8)'s form: `\\`, `:` and `,` inside a path
    are escaped by a backslash.
    """

    type: str
    source: str
    options: tuple[str, ...] = ()


def bind(source: Path | str, *, writable: bool) -> Mount:
    """A directory shown somewhere else."""
    return Mount("bind", os.fspath(source), ("rbind", "rw" if writable else "ro"))


def served_by(program: str, source: Path | str, *, writable: bool) -> Mount:
    """A FUSE file system that a program serves: started as `PROGRAM SOURCE TARGET -o OPTIONS`, it ends when it shows.

    The type is the one by which mount(8) and containerd know such programs. An ordinary user can mount
    nothing else.
    """
    return Mount(f"{_SERVED}{program}", os.fspath(source), ("rw" if writable else "ro",))


# acting


def may_mount() -> bool:
    """Whether this thread may do mounts of any kind, as root of the machine or of a namespace of its own."""
    status = Path("/proc/thread-self/status").read_bytes()
    return bool(int(status.partition(b"\nCapEff:")[2].split(None, 1)[0], 16) >> _CAP_SYS_ADMIN & 1)


def mount_all(mounts: Sequence[Mount], target: Path) -> None:
    """Do the mounts in order on `target`, an existing directory; a symbolic link there is not followed.

    When one fails, those before it are undone and its `OSError` is raised, with the kernel's own words.
    """
    done = 0
    try:
        for each in mounts:
            mount_one(each, target)
            done += depth_of([each])
    except BaseException:
        unmount(target, times=done, lazy=True)
        raise


def depth_of(mounts: Sequence[Mount]) -> int:
    """How many mounts lie upon each other once these are done; a remount changes the one before it."""
    return sum("remount" not in mount.options for mount in mounts)


def mount_one(mount: Mount, target: Path) -> None:
    """Do one mount on `target`."""
    if mount.type == "bind":
        _bind(mount, os.fsencode(target))
    elif mount.type == "overlay":
        mount_overlay(mount.options, os.fsencode(target))
    elif mount.type.startswith(_SERVED):
        _serve(mount, target)
    else:
        _plain(mount, os.fsencode(target))


def _bind(mount: Mount, target: bytes) -> None:
    recursive = "rbind" in mount.options
    try:
        tree = syscalls.open_tree(os.fsencode(mount.source), recursive=recursive)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        _bind_by_remount(mount, target)
        return
    try:
        if attributes := attributes_of(mount.options):
            syscalls.mount_setattr(tree, attributes=attributes, recursive=recursive)
        syscalls.move_mount(tree, target)
    finally:
        os.close(tree)


def _bind_by_remount(mount: Mount, target: bytes) -> None:
    """Before Linux 5.12 a bind mount becomes read-only only by a second call."""
    flags = syscalls.MS_BIND | (syscalls.MS_REC if "rbind" in mount.options else 0)
    syscalls.mount(os.fsencode(mount.source), target, None, flags)
    if more := flags_of(mount.options):
        try:
            syscalls.mount(b"none", target, None, syscalls.MS_REMOUNT | syscalls.MS_BIND | more)
        except BaseException:
            syscalls.umount2(target, syscalls.MNT_DETACH)
            raise


def _serve(mount: Mount, target: Path) -> None:
    name = mount.type.removeprefix(_SERVED)
    beside = Path(sys.executable).with_name(name)  # as in a virtual environment that is not on the PATH
    program = beside if os.access(beside, os.X_OK) else name
    try:
        programs.run(program, mount.source, target, "-o", ",".join(mount.options))
    except ProgramFailed as failure:
        raise OSError(errno.EIO, failure.stderr.strip() or str(failure)) from failure
    except NotFound as error:
        raise OSError(errno.ENOENT, str(error)) from error


def _plain(mount: Mount, target: bytes) -> None:
    remount = syscalls.MS_REMOUNT if "remount" in mount.options else 0
    data = ",".join(option for option in file_system_options(mount.options) if option != "remount")
    flags = flags_of(mount.options) | remount
    syscalls.mount(os.fsencode(mount.source), target, mount.type, flags, os.fsencode(data))


def unmount(target: Path, *, times: int = 1, lazy: bool = False) -> None:
    """Undo the topmost `times` mounts on `target`; where nothing is mounted this does nothing.

    Raises `OSError` (EBUSY) while somebody uses the mount, unless `lazy`: then it vanishes from the tree at once and
    for good when the last user is gone.
    """
    for _ in range(times):
        try:
            syscalls.umount2(os.fsencode(target), syscalls.MNT_DETACH if lazy else 0)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOENT}:  # not a mount point, or not there at all
                return
            if error.errno != errno.EPERM or may_mount():
                raise
            _unmount_as_user(target, lazy=lazy)


def _unmount_as_user(target: Path, *, lazy: bool) -> None:
    """An ordinary user may undo his own FUSE mounts, by a program with more rights."""
    place = os.path.realpath(os.fsencode(target))
    kinds = [point.type for point in mountinfo() if point.target == place]
    if not kinds:
        return
    if kinds[-1].partition(b".")[0] not in {b"fuse", b"fuseblk"} or not shutil.which("fusermount3"):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), os.fspath(target))
    try:
        programs.run("fusermount3", "-u", *(("-z",) if lazy else ()), "--", target)
    except ProgramFailed as failure:
        number = errno.EBUSY if "busy" in str(failure) else errno.EPERM
        raise OSError(number, str(failure), os.fspath(target)) from failure


@contextlib.contextmanager
def temporarily_mounted(mounts: Sequence[Mount], *, below: Path) -> Iterator[Path]:
    """Show the mounts at a new directory in `below`; nothing of it stays, also when the body raises."""
    target = Path(tempfile.mkdtemp(prefix="look-", dir=below))
    try:
        mount_all(mounts, target)
        try:
            yield target
        finally:
            _let_go(target, depth_of(mounts))
    finally:
        target.rmdir()


def _let_go(target: Path, times: int) -> None:
    try:
        unmount(target, times=times)
    except OSError:
        unmount(target, times=times, lazy=True)


def is_mounted(target: Path) -> bool:
    """Whether something is mounted on `target` itself, as this mount namespace sees it."""
    return os.path.realpath(os.fsencode(target)) in mounted_targets()

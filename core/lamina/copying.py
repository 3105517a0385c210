"""Copy a directory tree so that nobody can tell it from the original."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from lamina.descent import DIRECTORY, Entry, Ladder, walk
from lamina.syscalls import opened
from lamina.xattrs import at, read_xattrs, write_xattrs

_FICLONE: Final = 0x40049409  # linux/fs.h
_CHUNK: Final = 1 << 20
_WORTH_A_THREAD: Final = 256 << 10  # bytes; below, handing a file over costs more than copying it
_WORKERS: Final = 2
_CANNOT = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}


def copy_tree(source: Path, target: Path, *, checkpoint: Callable[[], None] | None = None) -> None:
    """Make `target` (missing, or an empty directory) equal to the directory `source` in all that is kept on disk.

    Types, modes, owners, times to the nanosecond, attributes of all namespaces that the caller may write, hard links,
    devices, sockets, holes. Data is shared (FICLONE) where the file system can, else copied in the kernel. What is
    mounted inside the tree is not entered. `checkpoint` is called for each entry and may raise to stop.

    On failure a part of the copy stays in `target`, and the `OSError` names the file.
    """
    os.makedirs(target, mode=0o700, exist_ok=True)
    with opened(source, DIRECTORY) as old, opened(target, DIRECTORY) as new, _Copy(old, new) as copy:
        copy.run(checkpoint or (lambda: None))


class _Copy:
    """One run: the two trees, what was linked, and the large files still on their way."""

    def __init__(self, old: int, new: int) -> None:
        self._old = old
        self._new = new
        self._linked: dict[tuple[int, int], bytes] = {}
        self._ladder = Ladder(new)
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="lamina-copy")
        self._pending: set[Future[None]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)
        self._ladder.__exit__()

    def run(self, checkpoint: Callable[[], None]) -> None:
        for entry in walk(self._old, entered=self._enter, left=self._leave):
            checkpoint()
            with _named(entry.path):
                self._copy(entry)
        self._collect(0)
        copy_metadata(self._old, self._new, os.fstat(self._old))

    def _enter(self, entry: Entry) -> None:
        self._ladder.down(entry.name)

    def _leave(self, entry: Entry) -> None:
        # now, not before: making entries has changed the directory's times
        copy_metadata(entry.directory, self._ladder.here, entry.status)
        self._ladder.up()

    def _copy(self, entry: Entry) -> None:
        status = entry.status
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(entry.name, 0o700, dir_fd=self._ladder.here)
            return
        if status.st_nlink > 1 and self._link(entry):
            return
        if stat.S_ISREG(status.st_mode):
            self._copy_file(entry)
            return
        copy_special(entry, self._ladder.here)

    def _link(self, entry: Entry) -> bool:
        identity = entry.status.st_dev, entry.status.st_ino
        first = self._linked.setdefault(identity, entry.path)
        if first is entry.path:
            return False
        directory, name = os.path.split(first)
        with _descended(self._new, directory) as there:
            os.link(name, entry.name, src_dir_fd=there, dst_dir_fd=self._ladder.here, follow_symlinks=False)
        return True

    def _copy_file(self, entry: Entry) -> None:
        large = entry.status.st_size >= _WORTH_A_THREAD
        if large:
            self._collect(_WORKERS * 2)
        source = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=entry.directory)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(entry.name, flags, 0o600, dir_fd=self._ladder.here)
        except BaseException:
            os.close(source)
            raise
        if large:
            self._pending.add(self._pool.submit(_fill, source, target, entry))
        else:
            _fill(source, target, entry)

    def _collect(self, allowed: int) -> None:
        """Wait until at most `allowed` files are on their way; raise what went wrong with one."""
        while len(self._pending) > allowed:
            done, self._pending = wait(self._pending, return_when=FIRST_COMPLETED)
            for each in done:
                each.result()


@contextmanager
def _named(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error


@contextmanager
def _descended(root: int, path: bytes) -> Iterator[int]:
    """The directory `path` below `root`, however long the path is."""
    if len(path) < os.pathconf("/", "PC_PATH_MAX"):
        with opened(path or b".", DIRECTORY, dir_fd=root) as there:
            yield there
        return
    with Ladder(root) as ladder:
        for name in path.split(b"/"):
            ladder.down(name)
        yield ladder.here


def _fill(source: int, target: int, entry: Entry) -> None:
    try:
        with _named(entry.path):
            copy_data(source, target, entry.status)
            copy_metadata(source, target, entry.status)
    finally:
        os.close(source)
        os.close(target)


# content

_no_clone: set[tuple[int, int]] = set()  # pairs of file systems that share no blocks: asked once


def copy_data(source: int, target: int, status: os.stat_result) -> None:
    """Give the empty file `target` the content of `source`, holes included."""
    if not status.st_size or _clone(source, target):
        return
    os.ftruncate(target, status.st_size)
    for start, end in extents(source, status):
        _copy_range(source, target, start, end)


def _clone(source: int, target: int) -> bool:
    pair = os.fstat(source).st_dev, os.fstat(target).st_dev
    if pair in _no_clone:
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        if error.errno != errno.ETXTBSY:
            _no_clone.add(pair)
        return False
    return True


def extents(descriptor: int, status: os.stat_result) -> Iterator[tuple[int, int]]:
    """The ranges (start, end) of an open file that hold data, in order; the rest are holes, which read as zeros."""
    size = status.st_size
    if status.st_blocks * 512 >= size:
        yield 0, size
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no data any more
                raise
            return
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        if start < end:
            yield start, end


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    try:
        while start < end:
            copied = os.copy_file_range(source, target, end - start, start, start)
            if not copied:
                break  # some file systems copy nothing and do not say why; or the file shrank
            start += copied
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    while start < end:
        data = os.pread(source, min(_CHUNK, end - start), start)
        if not data:
            return  # the file shrank meanwhile
        start += os.pwrite(target, data, start)


# everything but content


def copy_metadata(source: int, target: int, status: os.stat_result) -> None:
    """Give an open file or directory the owner, mode, attributes and times of another.

    In the order in which the kernel lets them stand: a change of owner clears setuid and capabilities, and
    any change moves the times.
    """
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    if wanted := read_xattrs(source):
        write_xattrs(target, wanted, skip_forbidden=True)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def copy_special(entry: Entry, directory: int) -> None:
    """Make a symbolic link, device, fifo or socket like `entry` in the open `directory`."""
    name, status = entry.name, entry.status
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=entry.directory), name, dir_fd=directory)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=directory)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=directory)  # mknod minds the umask
    if wanted := read_xattrs(at(entry.directory, name)):
        write_xattrs(at(directory, name), wanted, skip_forbidden=True)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=directory, follow_symlinks=False)

"""Copy a directory tree so that nobody can tell it from the original."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import attrs

from lamina.descent import DIRECTORY, Entry, Ladder, bare, descended, walk
from lamina.filling import Filler
from lamina.likeness import clear_attributes, copy_entry, copy_metadata
from lamina.syscalls import opened

_WORKERS: Final = 2
_QUEUE: Final = 8  # batches that may wait, each with two open directories
_BATCH: Final = 128  # files that one worker takes at a time
_FEW: Final = 64  # files; a smaller tree is copied sooner than threads are started
_PATIENCE: Final = 0.2  # seconds between two calls of `checkpoint` while only waiting


def copy_tree(source: Path, target: Path, *, checkpoint: Callable[[], None] | None = None) -> None:
    """Make `target` (missing, or an empty directory) equal to the directory `source` in all that is kept on disk.

    Types, modes, owners, times to the nanosecond, attributes of all namespaces that the caller may write, hard links,
    devices, sockets, holes. Data is shared (FICLONE) where the file system can, else copied in the kernel. Of what is
    mounted inside `source` nothing is copied, but what lies beneath. `checkpoint` is called again and again and may
    raise to stop.

    On failure a part of the copy stays in `target`, and the `OSError` names the file, relative to the tree.
    """
    os.makedirs(target, mode=0o700, exist_ok=True)
    with bare(source) as old, opened(target, DIRECTORY) as new, _Copy(old, new, checkpoint or (lambda: None)) as copy:
        copy.run()


@attrs.define
class _Directory:
    """A directory that is being filled: the files still to be copied into it, and those on their way."""

    path: bytes
    waiting: list[Entry] = attrs.field(factory=list)
    under_way: list[Future[None]] = attrs.field(factory=list)


class _Copy:
    """One run: this thread walks and makes directories; workers fill them.

    A directory's own times are set when nothing in it will change any more, by whoever comes last.
    """

    def __init__(self, old: int, new: int, checkpoint: Callable[[], None]) -> None:
        self._old = old
        self._new = new
        self._checkpoint = checkpoint
        self._filler = Filler()
        self._top = os.fstat(new)
        self._linked: dict[tuple[int, int], bytes] = {}
        self._ladder = Ladder(new)
        self._directories = [_Directory(b"")]
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="lamina-copy")
        self._pending: set[Future[None]] = set()
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is not None:
            self._filler.stop()
        self._pool.shutdown(wait=True)
        self._ladder.__exit__()

    def run(self) -> None:
        root = os.fstat(self._old)
        clear_attributes(self._new)
        for entry in walk(self._old, entered=self._enter, left=self._leave, barred=_refuse):
            self._checkpoint()
            if not stat.S_ISDIR(entry.status.st_mode):
                with _named(entry.path):
                    self._take(entry)
        self._hand_over(self._old, last=root)
        self._collect(0)

    def _enter(self, entry: Entry) -> None:
        with _named(entry.path):
            os.mkdir(entry.name, 0o700, dir_fd=self._ladder.here)
            self._ladder.down(entry.name)
            if os.path.samestat(self._top, entry.status):
                raise OSError(errno.EINVAL, "a directory cannot be copied into itself")
        self._directories.append(_Directory(entry.path))

    def _leave(self, entry: Entry) -> None:
        self._hand_over(entry.directory, last=entry.status)
        self._directories.pop()
        self._ladder.up()

    def _take(self, entry: Entry) -> None:
        if entry.status.st_nlink > 1:  # at once, in this thread: a second name needs the first one
            if not self._link(entry):
                copy_entry(entry, self._ladder.here, self._filler)
            return
        directory = self._directories[-1]
        directory.waiting.append(entry)
        if len(directory.waiting) >= _BATCH:
            self._hand_over(entry.directory)

    def _link(self, entry: Entry) -> bool:
        identity = entry.status.st_dev, entry.status.st_ino
        first = self._linked.setdefault(identity, entry.path)
        if first is entry.path:
            return False
        directory, name = os.path.split(first)
        with descended(self._new, directory) as there:
            os.link(name, entry.name, src_dir_fd=there, dst_dir_fd=self._ladder.here, follow_symlinks=False)
        return True

    def _hand_over(self, source: int, last: os.stat_result | None = None) -> None:
        """Have the waiting files copied; `last` is the directory's own status once it will get no more."""
        directory = self._directories[-1]
        self._seen += len(directory.waiting)
        batch = _Batch(directory.path, tuple(directory.waiting), tuple(directory.under_way), last)
        directory.waiting.clear()
        if self._seen < _FEW:
            batch.run(self._filler, source, self._ladder.here)
            return
        self._collect(_QUEUE)
        future = self._pool.submit(_run_and_close, batch, self._filler, os.dup(source), os.dup(self._ladder.here))
        directory.under_way.append(future)
        self._pending.add(future)

    def _collect(self, allowed: int) -> None:
        """Wait until at most `allowed` batches are on their way; raise what went wrong with one."""
        while len(self._pending) > allowed:
            done, self._pending = wait(self._pending, timeout=_PATIENCE, return_when=FIRST_COMPLETED)
            for each in done:
                each.result()
            self._checkpoint()


@attrs.frozen
class _Batch:
    """Files of one directory; with `last`, the directory's own metadata too, once the `earlier` batches are done."""

    path: bytes
    files: tuple[Entry, ...]
    earlier: tuple[Future[None], ...]
    last: os.stat_result | None

    def run(self, filler: Filler, source: int, target: int) -> None:
        for entry in self.files:
            filler.check()
            with _named(entry.path):
                copy_entry(attrs.evolve(entry, directory=source), target, filler)
        for each in self.earlier:
            each.result()
        if self.last is not None:
            with _named(self.path or b"."):
                copy_metadata(source, target, self.last)


def _run_and_close(batch: _Batch, filler: Filler, source: int, target: int) -> None:
    try:
        batch.run(filler, source, target)
    finally:
        os.close(source)
        os.close(target)


def _refuse(entry: Entry) -> None:
    raise OSError(errno.EBUSY, "something was mounted here while it was being copied", os.fsdecode(entry.path))


@contextmanager
def _named(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error

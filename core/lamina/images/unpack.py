"""Layers to snapshots named by chain id: what is there is not unpacked again, what is not comes in parallel."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import BinaryIO, TypeVar

import attrs

from lamina.driver import Ability
from lamina.errors import AlreadyExists, BadArchive, DigestMismatch, NeedsParent, NotFound
from lamina.images.blobs import Blob
from lamina.images.progress import LayerProgress, Progress, Status, watched
from lamina.images.work import Work
from lamina.snapshotter import Applied

T = TypeVar("T")

LABEL = "lamina.images"  # marks our snapshots, so that `prune` knows which it may judge
THREADS = 4  # layers at once; inflating and hashing run beside the interpreter, creating files does not


@attrs.frozen
class Wanted:
    """One layer that should be a snapshot. `fetch` brings its blob into the store, if it is not there."""

    diff_id: str
    chain_id: str
    fetch: Callable[[], Blob]
    coming: Coming | None = None  # it need not be whole to be unpacked


@attrs.frozen
class Coming:
    """A blob that can be read while it comes in; the stream's end is reached only by a blob that was checked."""

    size: int
    open: Callable[[], BinaryIO]
    abandon: Callable[[], None]  # whoever reads it gets an error


def unpack(work: Work, stack: Sequence[Wanted], progress: Progress) -> frozenset[str]:
    """Afterwards there is a committed snapshot for each layer of the stack, the lowest first.

    Returns the diff ids of those that were unpacked, and so checked, now; the others' blobs were not looked at. If one
    fails, those below it may have become snapshots: the end of `work` removes them unless somebody else wants them.
    """
    keys = [f"unpack-{secrets.token_hex(8)}" for _ in stack]
    work.hold(work.shelves.snapshot(name) for name in (*(layer.chain_id for layer in stack), *keys))
    jobs = [
        _Job(work, layer, key, parent.chain_id if parent else None, progress)
        for layer, key, parent in zip(stack, keys, (None, *stack), strict=False)
    ]
    missing = [job for job in jobs if not job.exists()]
    snapshots = work.shelves.snapshots
    if len(missing) > 1 and snapshots.union and snapshots.can(Ability.REBASE):
        _in_parallel(missing)
    elif any(job.layer.coming for job in missing):
        _in_turn(missing)
    else:
        for job in missing:
            job.apply_onto_parent()
    return frozenset(job.layer.diff_id for job in missing)


def _in_parallel(jobs: Sequence[_Job]) -> None:
    gate = _Gate()
    with ThreadPoolExecutor(min(THREADS, (os.cpu_count() or 1) + 1), "unpack") as pool:
        running: list[tuple[_Job, Future[bool]]] = []
        try:
            for job in jobs:
                running.append((job, pool.submit(gate.pass_by, job.apply_alone)))  # noqa: PERF401  # half of it counts
            for job, applied in running:
                job.finish(applied)
        except BaseException:
            for _, applied in running:
                applied.cancel()
            _abandon(jobs)
            gate.close()
            raise


def _in_turn(jobs: Sequence[_Job]) -> None:
    """In another thread, since this one is where interrupts come in: what reads from the network is told of them."""
    gate = _Gate()
    with ThreadPoolExecutor(1, "unpack") as pool:
        try:
            for job in jobs:
                pool.submit(gate.pass_by, job.apply_onto_parent).result()
        except BaseException:
            _abandon(jobs)
            gate.close()
            raise


class _Gate:
    """Once it is closed nobody works behind it, and nobody will.

    The end of a pool does not promise that: it knows nothing of a thread in whose start an interrupt came.
    """

    def __init__(self) -> None:
        self._guard = threading.Condition()
        self._inside = 0
        self._closed = False

    def pass_by(self, job: Callable[[], T]) -> T:
        """Do the job; CancelledError if the gate is closed."""
        with self._guard:
            if self._closed:
                raise CancelledError
            self._inside += 1
        try:
            return job()
        finally:
            with self._guard:
                self._inside -= 1
                self._guard.notify_all()

    def close(self) -> None:
        """Wait for those who are inside."""
        with self._guard:
            self._closed = True
            self._guard.wait_for(lambda: not self._inside)


def _abandon(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.layer.coming is not None:
            job.layer.coming.abandon()


@attrs.frozen
class _Job:
    work: Work
    layer: Wanted
    key: str
    parent: str | None
    progress: Progress

    def exists(self) -> bool:
        """Whether the snapshot is there already; whoever watches is told."""
        try:
            self.work.shelves.snapshots.stat(self.layer.chain_id)
        except NotFound:
            self._tell(Status.WAITING)
            return False
        self._tell(Status.EXISTS)
        return True

    def apply_alone(self) -> bool:
        """Unpack without a parent; False if the layer leans on one."""
        snapshots = self.work.shelves.snapshots
        snapshots.prepare(self.key, None, self._labels())
        try:
            self._apply(self.key, alone=self.parent is not None)  # the lowest layer leans on nothing
        except NeedsParent:
            snapshots.remove(self.key)
            return False
        return True

    def finish(self, applied: Future[bool]) -> None:
        """The parent is committed by now: put what was unpacked onto it."""
        if applied.result():
            self._commit(self.parent)
        else:
            self.apply_onto_parent()

    def apply_onto_parent(self) -> None:
        """Unpack on top of the parent, which is committed."""
        self.work.shelves.snapshots.prepare(self.key, self.parent, self._labels())
        self._apply(self.key)
        self._commit(None)

    def _apply(self, key: str, *, alone: bool = False) -> None:
        size, packed = self._open()
        event = LayerProgress(self.layer.diff_id, Status.UNPACKING, 0, size)
        with packed:
            applied = self._checked(key, watched(packed, event, self.progress), alone=alone)
        blob = self.layer.fetch()
        if applied.diff_id != self.layer.diff_id:
            raise DigestMismatch("a layer", self.layer.diff_id, applied.diff_id)
        if applied.digest != blob.digest:
            raise DigestMismatch(f"blob {blob.digest} on disk", blob.digest, applied.digest)

    def _open(self) -> tuple[int, BinaryIO]:
        if self.layer.coming is not None:
            return self.layer.coming.size, self.layer.coming.open()
        blob = self.layer.fetch()
        return blob.size, self.work.shelves.blobs.open(blob.digest)

    def _checked(self, key: str, packed: BinaryIO, *, alone: bool) -> Applied:
        try:
            return self.work.shelves.snapshots.apply(key, packed, alone=alone)
        except NeedsParent:
            raise
        except BadArchive:
            self.layer.fetch()  # if it is not the blob that was promised, then that is what went wrong
            raise

    def _commit(self, parent: str | None) -> None:
        snapshots, name = self.work.shelves.snapshots, self.layer.chain_id
        try:
            if parent is None:
                snapshots.commit(name, self.key, labels=self._labels())
            else:
                snapshots.commit(name, self.key, parent=parent, labels=self._labels())
        except AlreadyExists:  # another process was quicker; both have checked the same diff id
            snapshots.remove(self.key)
            self._tell(Status.EXISTS)
            return
        self._tell(Status.DONE)

    def _labels(self) -> dict[str, str]:
        return {LABEL: self.layer.diff_id}

    def _tell(self, status: Status) -> None:
        self.progress(LayerProgress(self.layer.diff_id, status))

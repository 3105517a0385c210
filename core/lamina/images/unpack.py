"""Layers to snapshots named by chain id: what is there is not unpacked again, what is not comes in parallel."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import attrs

from lamina.driver import Ability
from lamina.errors import AlreadyExists, DigestMismatch, NeedsParent, NotFound
from lamina.images.blobs import Blob
from lamina.images.progress import LayerProgress, Progress, Status, watched
from lamina.images.work import Work

LABEL = "lamina.images"  # marks our snapshots, so that `prune` knows which it may judge
THREADS = 4  # layers at once; inflating and hashing run beside the interpreter, creating files does not


@attrs.frozen
class Wanted:
    """One layer that should be a snapshot. `fetch` brings its blob into the store, if it is not there."""

    diff_id: str
    chain_id: str
    fetch: Callable[[], Blob]


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
    else:
        for job in missing:
            job.apply_onto_parent()
    return frozenset(job.layer.diff_id for job in missing)


def _in_parallel(jobs: Sequence[_Job]) -> None:
    with ThreadPoolExecutor(min(THREADS, (os.cpu_count() or 1) + 1), "unpack") as pool:
        running = [(job, pool.submit(job.apply_alone)) for job in jobs]
        try:
            for job, applied in running:
                job.finish(applied)
        finally:
            for _, applied in running:
                applied.cancel()


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
        blob = self.layer.fetch()
        event = LayerProgress(self.layer.diff_id, Status.UNPACKING, 0, blob.size)
        with self.work.shelves.blobs.open(blob.digest) as packed:
            applied = self.work.shelves.snapshots.apply(key, watched(packed, event, self.progress), alone=alone)
        if applied.diff_id != self.layer.diff_id:
            raise DigestMismatch("a layer", self.layer.diff_id, applied.diff_id)
        if applied.digest != blob.digest:
            raise DigestMismatch(f"blob {blob.digest} on disk", blob.digest, applied.digest)

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

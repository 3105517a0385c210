"""The ten calls of containerd's snapshots API: unwrap, call, wrap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import attrs
from google.protobuf.empty_pb2 import Empty

from lamina.containerd import wire
from lamina.containerd.api import snapshots_pb2 as api
from lamina.filters import choose

if TYPE_CHECKING:
    from lamina.snapshotter import Snapshotter

NAME: Final = "containerd.services.snapshots.v1.Snapshots"


@attrs.frozen
class Service:
    """One store. Each method takes a message and gives one; what it raises is told by its code, see status.py."""

    snapshots: Snapshotter

    def prepare(self, request: api.PrepareSnapshotRequest) -> api.PrepareSnapshotResponse:
        """A new active snapshot, and how to mount it."""
        mounts = self.snapshots.prepare(request.key, request.parent or None, wire.given(request.labels))
        return api.PrepareSnapshotResponse(mounts=wire.mounts(mounts))

    def view(self, request: api.ViewSnapshotRequest) -> api.ViewSnapshotResponse:
        """A new view, and how to mount it."""
        mounts = self.snapshots.view(request.key, request.parent or None, wire.given(request.labels))
        return api.ViewSnapshotResponse(mounts=wire.mounts(mounts))

    def mounts(self, request: api.MountsRequest) -> api.MountsResponse:
        """How to mount an active snapshot or a view; what that needs is brought up again."""
        return api.MountsResponse(mounts=wire.mounts(self.snapshots.mounts(request.key)))

    def commit(self, request: api.CommitSnapshotRequest) -> Empty:
        """An active snapshot is committed under its name."""
        self.snapshots.commit(request.name, request.key, labels=wire.given(request.labels))
        return Empty()

    def remove(self, request: api.RemoveSnapshotRequest) -> Empty:
        """The snapshot is gone."""
        self.snapshots.remove(request.key)
        return Empty()

    def stat(self, request: api.StatSnapshotRequest) -> api.StatSnapshotResponse:
        """What is known of a snapshot."""
        return api.StatSnapshotResponse(info=wire.info(self.snapshots.stat(request.key)))

    def update(self, request: api.UpdateSnapshotRequest) -> api.UpdateSnapshotResponse:
        """The labels that the mask names are as the message has them."""
        labels, replace = wire.updated_labels(request.info, request.update_mask.paths)
        snapshot = self.snapshots.label(request.info.name, labels, replace=replace)
        return api.UpdateSnapshotResponse(info=wire.info(snapshot))

    def list(self, request: api.ListSnapshotsRequest) -> Iterable[api.ListSnapshotsResponse]:
        """The snapshots that match any of the filters."""
        chosen = choose(request.filters, any_field=True)
        return wire.batches(one for one in self.snapshots.list() if chosen(one))

    def usage(self, request: api.UsageRequest) -> api.UsageResponse:
        """What a snapshot occupies without its parents."""
        usage = self.snapshots.usage(request.key)
        return api.UsageResponse(size=usage.size, inodes=usage.inodes)

    def cleanup(self, _: api.CleanupRequest) -> Empty:
        """What was left half done is finished or undone: containerd asks after it has collected garbage."""
        self.snapshots.settle()
        return Empty()

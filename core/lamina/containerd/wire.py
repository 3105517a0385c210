"""Snapshots, mounts and masks as containerd's messages have them, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from lamina import mount
from lamina.containerd.api import mount_pb2
from lamina.containerd.api import snapshots_pb2 as api
from lamina.errors import BadRequest
from lamina.layer import Kind
from lamina.snapshot import Snapshot

_BATCH: Final = 100  # snapshots in one message of a listing
_KINDS: Final = {Kind.ACTIVE: api.ACTIVE, Kind.VIEW: api.VIEW, Kind.COMMITTED: api.COMMITTED}
_LABEL: Final = "labels."


def info(snapshot: Snapshot) -> api.Info:
    """A snapshot as a message."""
    return api.Info(
        name=snapshot.name,
        parent=snapshot.parent or "",
        kind=_KINDS[snapshot.kind],
        created_at=_timestamp(snapshot.created),
        updated_at=_timestamp(snapshot.updated),
        labels=snapshot.labels,
    )


def mounts(found: Iterable[mount.Mount]) -> list[mount_pb2.Mount]:
    """Mounts as messages."""
    return [mount_pb2.Mount(type=one.type, source=one.source, options=one.options) for one in found]


def batches(snapshots: Iterable[Snapshot]) -> Iterable[api.ListSnapshotsResponse]:
    """A listing, in messages that stay small."""
    rest = iter(snapshots)
    while some := list(islice(rest, _BATCH)):
        yield api.ListSnapshotsResponse(info=[info(one) for one in some])


def given(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels as they are kept: one without a value is none."""
    return {key: value for key, value in labels.items() if value}


def updated_labels(message: api.Info, mask: Iterable[str]) -> tuple[dict[str, str | None], bool]:
    """What an update does to the labels, and whether it replaces them all.

    A mask names `labels`, or single ones as `labels.KEY`; what it names and the message lacks is to go. An empty mask
    means everything that can be changed: the labels. BadRequest for any other field.
    """
    paths = list(mask)
    for path in paths:
        if path != "labels" and not path.startswith(_LABEL):
            raise BadRequest(f"{path!r} of snapshot {message.name!r} cannot be changed; only its labels can")
    if not paths or "labels" in paths:
        return dict(given(message.labels)), True
    keys = [path.removeprefix(_LABEL) for path in paths]
    return {key: message.labels.get(key) or None for key in keys}, False


def _timestamp(when: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(when)
    return stamp

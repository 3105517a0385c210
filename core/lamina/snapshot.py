"""What users name: a snapshot is a layer with a name, labels and times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs

from lamina.layer import Kind, Usage


@attrs.frozen
class Snapshot:
    """One row of the store as users see it; drivers never do.

    Keys of active snapshots and views, and names of committed ones, share one key space.
    """

    name: str
    kind: Kind
    parent: str | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict)
    usage: Usage | None = None  # known once committed
    created: datetime = attrs.field(kw_only=True)  # aware, UTC
    updated: datetime = attrs.field(kw_only=True)

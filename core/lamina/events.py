"""What observers are told."""

from __future__ import annotations

import attrs


@attrs.frozen
class Event:
    """One change of a store, after it was made."""

    verb: str  # prepare, view, commit, remove, label, mount, unmount, apply
    name: str  # the snapshot's key or name, after the change
    driver: str
    about: str = ""  # commit: the key that became free; mount and unmount: the target

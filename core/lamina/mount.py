"""How the kernel is told to show a layer: mounts as data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pathlib import Path


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

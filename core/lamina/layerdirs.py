"""Layers as directories named by their ids, for drivers that keep each in one: gone at once, and never half there."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import Final

from lamina.trees import remove_tree

_DOOMED: Final = ".gone"
_PATIENCE: Final = 5.0  # seconds
_PAUSE: Final = 0.05


def remove_layer(home: Path, layer_id: int) -> None:
    """Nothing of the layer is left. It loses its name before its files: a half of it is never taken for the whole.

    The kernel may still be at work in what was unmounted a moment ago; it is given some seconds, then EBUSY is raised.
    """
    place = home / str(layer_id)
    doomed = home / f"{layer_id}{_DOOMED}"
    remove_tree(doomed)
    with contextlib.suppress(FileNotFoundError):
        _rename_patiently(place, doomed)
        remove_tree(doomed)


def layers_in(home: Path) -> set[int]:
    """Every id of which something lies here, what is on its way out included."""
    names = (name.removesuffix(_DOOMED) for name in os.listdir(home))
    return {int(name) for name in names if name.isdecimal()}


def _rename_patiently(place: Path, target: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            place.rename(target)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > until:
                raise
        time.sleep(_PAUSE)

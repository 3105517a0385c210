"""Layers written without a single flush, and what may still be believed of them.

The kernel skips every fsync of a mount with `volatile`, and afterwards refuses to mount the same directories again
(`work/work/incompat/volatile`), since it cannot know whether the machine stopped meanwhile. We can: before the first
such mount the name of this boot is written beside the layer. While it is the same boot, all that was written is in the
page cache or on disk, and the kernel's mark is taken away. In another boot nothing of the layer can be trusted: it can
only be removed. Commit flushes, and from then on the layer is like any other.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from lamina.errors import StoreBroken
from lamina.mount import boot_id
from lamina.trees import remove_tree, sync_tree

_NOTE: Final = "volatile"
_INCOMPATIBLE: Final = "work/work/incompat"


def begin(place: str) -> None:
    """From now on the layer at `place` may be written without flushing, in this boot."""
    note = Path(place, _NOTE)
    if not note.exists():
        note.write_text(boot_id(), encoding="ascii")


def check(place: str) -> None:
    """Raise `StoreBroken` if the machine has stopped since the layer was written so; else let it be mounted again."""
    written_in = _boot_noted(place)
    marked = os.path.exists(f"{place}/{_INCOMPATIBLE}")
    if written_in is None and not marked:
        return
    if written_in != boot_id():  # a note that was lost, or lost its text, tells the same
        raise StoreBroken(
            f"layer {os.path.basename(place)} was being written without flushing (volatile) when the machine stopped;"
            " its contents cannot be trusted: remove it"
        )
    if marked:
        remove_tree(Path(place, _INCOMPATIBLE))


def settle(place: str) -> None:
    """Afterwards the layer's bytes are on disk and nothing is volatile about it; raises as `check` does."""
    check(place)
    if _boot_noted(place) is not None:
        sync_tree(Path(place))
        Path(place, _NOTE).unlink()


def _boot_noted(place: str) -> str | None:
    # asked whenever a layer is mounted: no more than one system call
    note = f"{place}/{_NOTE}"
    return Path(note).read_text(encoding="ascii") if os.path.exists(note) else None

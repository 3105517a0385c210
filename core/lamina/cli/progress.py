"""How far a long job is: bars on a terminal, one quiet line per layer elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lamina.images.familiar import short_id
from lamina.images.progress import LayerProgress, Progress, Status, silent

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_ENDS = {
    Status.DONE,
    Status.EXISTS,
    Status.PULLED,
    Status.PUSHED,
    Status.THERE,
    Status.MOUNTED,
    Status.SKIPPED,
}


@contextmanager
def shown(*, quiet: bool = False, lasting: bool = False) -> Iterator[Progress]:
    """Somebody to tell of progress. It speaks on stderr, so that stdout stays what was asked for.

    What is `lasting` stays to be read: bars on a terminal, lines elsewhere. Else bars vanish and nobody sees lines.
    """
    if not quiet and sys.stderr.isatty():
        with _bars(lasting=lasting) as bars:
            yield _OnTerminal(bars)
    else:
        yield _Lines() if lasting and not quiet else silent


class _Lines:
    """A line when a layer is through; said once for each layer, from whatever thread."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, event: LayerProgress) -> None:
        if event.status not in _ENDS:
            return
        with self._lock:
            if event.layer not in self._told:
                self._told.add(event.layer)
                with contextlib.suppress(OSError):  # nobody can be told any more; the work goes on
                    sys.stderr.write(f"{short_id(event.layer)}: {event.words}\n")


class _OnTerminal:
    """A bar for each layer."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __call__(self, event: LayerProgress) -> None:
        with self._lock:
            if event.layer not in self._tasks:
                self._tasks[event.layer] = self._bars.add_task("", total=None, layer=short_id(event.layer))
            task = self._tasks[event.layer]
        if event.status in _ENDS:
            self._bars.update(task, description=event.words, total=1, completed=1)
        else:
            self._bars.update(task, description=event.words, total=event.total, completed=event.current)


def _bars(*, lasting: bool) -> Bars:
    from rich.console import Console  # noqa: PLC0415  # slow to import, and only a terminal shows it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (TextColumn("{task.fields[layer]}: {task.description}"), BarColumn(bar_width=30), DownloadColumn())
    return Progress(*columns, console=Console(stderr=True), transient=not lasting)

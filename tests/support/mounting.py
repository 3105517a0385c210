"""Mount what containerd is told, by mount(8), as somebody who knows nothing of lamina."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lane import Client

_PAGE: Final = 4000  # bytes of options that mount(2) takes, but for a little
_LOWERS: Final = "lowerdir="


def mount(answer: Any, place: Path) -> Path:
    """The mounts of an answer are to be seen at `place`."""
    place.mkdir(exist_ok=True)
    for each in answer.mounts:
        kind = ["-t", each.type] if each.type != "bind" else []
        options, where = _compact(list(each.options))
        subprocess.run(["mount", *kind, "-o", ",".join(options), each.source, place], check=True, cwd=where)
    return place


def _compact(options: Sequence[str]) -> tuple[list[str], str | None]:
    """As containerd does it: lower directories with long names are told relative to the one that holds them all."""
    if len(",".join(options)) < _PAGE:
        return list(options), None
    number = next(number for number, option in enumerate(options) if option.startswith(_LOWERS))
    lowers = options[number].removeprefix(_LOWERS).split(":")
    above = os.path.commonpath(lowers)
    short = _LOWERS + ":".join(os.path.relpath(lower, above) for lower in lowers)
    return [*options[:number], short, *options[number + 1 :]], above


def unmount(place: Path) -> None:
    """They are not."""
    subprocess.run(["umount", place], check=True)


@contextmanager
def mounted(answer: Any, place: Path) -> Iterator[Path]:
    """Both, one after the other."""
    mount(answer, place)
    try:
        yield place
    finally:
        unmount(place)


def grow(ask: Client, name: str, parent: str, place: Path, work: Callable[[Path], object]) -> None:
    """A committed snapshot with what `work` makes of its parent."""
    with mounted(ask("Prepare", key=f"{name}-key", parent=parent), place) as root:
        work(root)
    ask("Commit", name=name, key=f"{name}-key")

"""Mount what containerd is told, by mount(8), as somebody who knows nothing of lamina."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from grounds import Ground
from lane import Client

_PAGE: Final = 4000  # bytes of options that mount(2) takes, but for a little
_LOWERS: Final = "lowerdir="


@attrs.frozen
class Mounter:
    """Mounts where a ground's mounts can be seen."""

    ground: Ground | None = None  # None: here

    def mount(self, answer: Any, place: Path) -> Path:
        """The mounts of an answer are to be seen at `place` there; where that is from here."""
        place.mkdir(exist_ok=True)
        for each in answer.mounts:
            kind = ["-t", each.type] if each.type != "bind" else []
            options, where = _compact(list(each.options))
            self._run("mount", *kind, "-o", ",".join(options), each.source, place, where=where)
        return place if self.ground is None else self.ground.root / place.relative_to("/")

    def unmount(self, place: Path) -> None:
        """They are not."""
        self._run("umount", place)

    def _run(self, *argv: str | Path, where: str | None = None) -> None:
        subprocess.run(argv if self.ground is None else self.ground.inside(argv), check=True, cwd=where)

    @contextmanager
    def mounted(self, answer: Any, place: Path) -> Iterator[Path]:
        """Both, one after the other."""
        root = self.mount(answer, place)
        try:
            yield root
        finally:
            self.unmount(place)

    def grow(self, ask: Client, name: str, parent: str, place: Path, work: Callable[[Path], object]) -> None:
        """A committed snapshot with what `work` makes of its parent."""
        with self.mounted(ask("Prepare", key=f"{name}-key", parent=parent), place) as root:
            work(root)
        ask("Commit", name=name, key=f"{name}-key")


def _compact(options: Sequence[str]) -> tuple[list[str], str | None]:
    """As containerd does it: lower directories with long names are told relative to the one that holds them all."""
    if len(",".join(options)) < _PAGE:
        return list(options), None
    number = next(number for number, option in enumerate(options) if option.startswith(_LOWERS))
    lowers = options[number].removeprefix(_LOWERS).split(":")
    above = os.path.commonpath(lowers)
    short = _LOWERS + ":".join(os.path.relpath(lower, above) for lower in lowers)
    return [*options[:number], short, *options[number + 1 :]], above


mounted, grow = Mounter().mounted, Mounter().grow

"""Stacks deeper than the kernel takes: runs of lower layers are joined by mounts of their own.

The kernel takes 500 lower layers, and lets overlays stand on overlays one level deep. So the bottom of a deep stack is
cut, from the bottom up, into runs of 400 layers. Each run is an overlay mount, read-only, that is a single layer for
those above; below it goes what the run removes (see `removals`), unless it is the lowest run.

A run is kept inside its topmost layer, whose parents never change, so all stacks that stand on it share it:

    <top>/run-400/tree     where the run is mounted
    <top>/run-400/gone     what it removes from below
    <top>/run-400/users/   an empty file for each layer whose mounts need it
    <id>/runs/             in a layer that needs runs: an empty file named after each one's top
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from lamina.mount import Mount, mount_one, unmount
from lamina.overlaydialect import OverlayWhiteouts
from lamina.overlaymount import overlay_options
from lamina.trees import remove_tree, sync_tree
from lamina_overlay.pinned import attribute_prefix, pinned_options
from lamina_overlay.removals import write_removals

MOST: Final = 500  # OVL_MAX_STACK of the kernel
LENGTH: Final = 400  # of a run; less than MOST, so that a stack that is too deep always has a whole one to spare
_RUN: Final = f"run-{LENGTH}"


class Joints:
    """The runs of one driver's home. Nothing is kept in memory: several processes may work on the same runs."""

    def __init__(self, home: Path) -> None:
        """Remember the home."""
        self._home = home

    def needed(self, below: Sequence[int]) -> bool:
        """Whether a stack is too deep for one mount."""
        return len(below) > MOST

    def bring_up(self, user: int, below: Sequence[int]) -> list[str]:
        """Mount the runs that `user` needs to stand on the layers `below`; the places that make up its own mount."""
        above, runs = _cut(below)
        for run in runs:
            self._note(user, run[0])
        places = [f"{self._home}/{each}/fs" for each in above]
        for run in runs:
            places += self._bring_up_run(run, lowest=run is runs[-1])
        return places

    def let_go(self, user: int) -> None:
        """`user` needs its runs no more; those that nobody else needs are unmounted. Repeating it is harmless."""
        noted = f"{self._home}/{user}/runs"
        try:
            tops = os.listdir(noted)
        except FileNotFoundError:
            return
        for top in tops:
            with contextlib.suppress(FileNotFoundError), _locked(self._home / top):
                (self._run(int(top)) / "users" / str(user)).unlink(missing_ok=True)
                self._unmount_if_idle(self._run(int(top)))
        shutil.rmtree(noted, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(f"{self._home}/{user}")  # a view has nothing else; any other layer stays

    def unmount(self, place: Path) -> None:
        """Unmount the run inside a layer that is being removed; its users are gone."""
        tree = place / _RUN / "tree"
        if tree.exists():
            unmount(tree, times=9, lazy=True)

    def _run(self, top: int) -> Path:
        return self._home / str(top) / _RUN

    def _note(self, user: int, top: int) -> None:
        """Who needs what, on both sides; our own side first, so that `let_go` finds all there is."""
        mine = self._home / str(user) / "runs"
        mine.parent.mkdir(mode=0o700, exist_ok=True)
        mine.mkdir(mode=0o700, exist_ok=True)
        (mine / str(top)).touch()
        with _locked(self._home / str(top)):
            users = self._run(top) / "users"
            users.mkdir(mode=0o700, parents=True, exist_ok=True)
            (users / str(user)).touch()

    def _bring_up_run(self, run: Sequence[int], *, lowest: bool) -> list[str]:
        place = self._run(run[0])
        tree, gone = place / "tree", place / "gone"
        layers = [f"{self._home}/{each}/fs" for each in run]
        with _locked(place.parent):
            if not lowest and not gone.exists():
                _make_removals(layers, gone)
            if not _is_mounted(tree):
                tree.mkdir(mode=0o700, exist_ok=True)
                mount_one(_joined(layers), tree)
        return [os.fspath(tree)] if lowest else [os.fspath(tree), os.fspath(gone)]

    def _unmount_if_idle(self, run: Path) -> None:
        if os.listdir(run / "users"):
            return
        unmount(run / "tree", lazy=True)


def _cut(below: Sequence[int]) -> tuple[Sequence[int], list[Sequence[int]]]:
    """The layers that are mounted one by one, and the runs, the upper first; as few runs as will do."""
    rest = below
    runs: list[Sequence[int]] = []
    while rest and (len(rest) + 2 * len(runs) - 1 > MOST or not runs):
        runs.insert(0, rest[-LENGTH:])
        rest = rest[:-LENGTH]
    return rest, runs


def _joined(layers: Sequence[str]) -> Mount:
    return Mount("overlay", "overlay", overlay_options(layers, extra=("ro", *pinned_options())))


def _make_removals(layers: Sequence[str], gone: Path) -> None:
    """Removals are complete, and on disk, when they get their name: they are made once and then believed."""
    unfinished = gone.with_suffix(".new")
    remove_tree(unfinished)
    unfinished.mkdir(mode=0o700)
    write_removals(layers, os.fspath(unfinished), OverlayWhiteouts(attribute_prefix()))
    sync_tree(unfinished)
    unfinished.rename(gone)


def _is_mounted(tree: Path) -> bool:
    try:
        return tree.stat().st_dev != tree.parent.stat().st_dev
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One thread or process at a time; the kernel lets go when its holder dies."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

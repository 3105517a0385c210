"""Layers of the fuse driver for tests: made, served, and removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina.layer import Kind, Layer
from lamina_fuse.driver import FuseDriver
from lamina_fuse.options import FuseOptions


@contextmanager
def started(home: Path, options: FuseOptions) -> Iterator[FuseDriver]:
    """A driver; its layers and servers are gone afterwards."""
    driver = FuseDriver(home, options)
    driver.start()
    try:
        yield driver
    finally:
        for layer_id in sorted(driver.layers(), reverse=True):
            driver.remove(layer_id)


def grow(driver: FuseDriver, *fills: Callable[[Path], object]) -> tuple[int, ...]:
    """Committed layers 1, 2, …, each filled in its own directory of changes; the ids, the topmost first."""
    parents: tuple[int, ...] = ()
    for number, fill in enumerate(fills, start=1):
        driver.prepare(Layer(number, Kind.ACTIVE, parents))
        fill(driver.changes(Layer(number, Kind.ACTIVE, parents)).root)
        driver.commit(Layer(number, Kind.COMMITTED, parents))
        parents = (number, *parents)
    return parents


def served(driver: FuseDriver, layer: Layer) -> Path:
    """The place where the layer's own server shows it; the mount itself, not a bind mount of it."""
    driver.mounts(layer)
    return driver.home / str(layer.id) / "served"


def active(driver: FuseDriver, parents: tuple[int, ...]) -> tuple[Layer, Path]:
    layer = Layer(len(parents) + 1, Kind.ACTIVE, parents)
    driver.prepare(layer)
    return layer, served(driver, layer)


def many(directories: int, files: int) -> Callable[[Path], None]:
    def fill(root: Path) -> None:
        for number in range(directories):
            (root / f"dir{number}").mkdir()
            for each in range(files):
                (root / f"dir{number}/file{each}").write_text(f"{number} {each}")

    return fill


def until(true: Callable[[], bool]) -> bool:
    """Whether it becomes true soon: the kernel does not wait for the answer to a last close."""
    deadline = time.monotonic() + 20
    while not true():
        if time.monotonic() > deadline:
            return False
    return True

"""Random reads, writes, mappings, holes and truncations of one file, compared with a model in memory (as fsx does)."""

from __future__ import annotations

import mmap
import os
import random
import time
from pathlib import Path

import pytest

from lamina import syscalls
from lamina.layer import Kind, Layer
from lamina_fuse.driver import FuseDriver

pytestmark = pytest.mark.needs_root

SECONDS = float(os.environ.get("LAMINA_FUSE_SOAK", "60"))
LARGEST = 1 << 18
PUNCH = syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE


class Fsx:
    """The file and what it should hold."""

    def __init__(self, path: Path, seed: int) -> None:
        self.model = bytearray(path.read_bytes())
        self.chance = random.Random(seed)  # noqa: S311  # to be played again
        self.path = path
        self.file = os.open(path, os.O_RDWR)

    def step(self) -> None:
        self.chance.choice((self.read, self.write, self.truncate, self.punch, self.mapped, self.copy, self.reopen))()

    def span(self) -> tuple[int, int]:
        start = self.chance.randrange(LARGEST)
        return start, self.chance.randrange(1, min(65_536, LARGEST - start) + 1)

    def read(self) -> None:
        start, length = self.span()
        assert os.pread(self.file, length, start) == self.model[start : start + length]

    def write(self) -> None:
        start, length = self.span()
        data = self.chance.randbytes(length)
        self._grow(start)
        assert os.pwrite(self.file, data, start) == length
        self.model[start : start + length] = data

    def truncate(self) -> None:
        size = self.chance.randrange(LARGEST)
        os.ftruncate(self.file, size)
        self._grow(size)
        del self.model[size:]

    def punch(self) -> None:
        start, length = self.span()
        syscalls.fallocate(self.file, PUNCH, start, length)
        end = min(start + length, len(self.model))
        if start < end:
            self.model[start:end] = bytes(end - start)

    def mapped(self) -> None:
        if not self.model:
            return
        start = self.chance.randrange(len(self.model))
        data = self.chance.randbytes(min(5000, len(self.model) - start))
        with mmap.mmap(self.file, len(self.model)) as shared:
            assert shared[start : start + 100] == self.model[start : start + 100]
            shared[start : start + len(data)] = data
        self.model[start : start + len(data)] = data

    def copy(self) -> None:
        length = min(10_000, len(self.model) // 3)
        target = len(self.model) - length
        if length and os.copy_file_range(self.file, self.file, length, 0, target) == length:
            self.model[target:] = self.model[:length]

    def reopen(self) -> None:
        os.close(self.file)
        assert self.path.read_bytes() == self.model
        self.file = os.open(self.path, os.O_RDWR)

    def _grow(self, size: int) -> None:
        if size > len(self.model):
            self.model += bytes(size - len(self.model))


@pytest.mark.timeout(SECONDS + 120)
def test_random_io_leaves_what_a_model_says(tmp_path: Path) -> None:
    driver = FuseDriver(tmp_path / "layers")
    driver.start()
    try:
        driver.prepare(Layer(1, Kind.ACTIVE))
        (driver.changes(Layer(1, Kind.ACTIVE)).root / "file").write_bytes(os.urandom(100_000))
        driver.commit(Layer(1, Kind.COMMITTED))
        layer = Layer(2, Kind.ACTIVE, (1,))
        driver.prepare(layer)
        driver.mounts(layer)
        seed = int.from_bytes(os.urandom(4))
        fsx = Fsx(driver.home / "2/served/file", seed)
        deadline, steps = time.monotonic() + SECONDS, 0
        while time.monotonic() < deadline:
            fsx.step()
            steps += 1
        fsx.reopen()
        os.close(fsx.file)
        assert steps > 100, f"seed {seed}"
        assert (driver.changes(layer).root / "file").read_bytes() == fsx.model
    finally:
        for layer_id in (2, 1):
            driver.remove(layer_id)

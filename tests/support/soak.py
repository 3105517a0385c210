"""Random reads, writes, mappings, holes and truncations of files on the union, compared with models (as fsx does).

A program, since it runs beside other tests and takes what processor time they leave: `soak.py PLACE SECONDS STEPS` ends
after this time, but not before it has made so many steps, and then tells in JSON how many there were. One file each is
passed through to the kernel, served by the accelerator, and served by Python. Now and then a server is killed.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Final

from lamina import syscalls
from lamina.layer import Kind, Layer
from lamina_fuse import life
from lamina_fuse.driver import FuseDriver
from lamina_fuse.options import FuseOptions

SECONDS: Final = float(os.environ.get("LAMINA_FUSE_SOAK", "300"))
LEAST: Final = int(SECONDS * 20)  # steps, so that it is no empty promise on a machine that is busy with other things
LARGEST: Final = 1 << 18
PUNCH: Final = syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE
BETWEEN_KILLS: Final = 500  # steps, on the average
MODES: Final = {
    "passed-through": FuseOptions(),
    "accelerated": FuseOptions(passthrough=False),
    "by-python": FuseOptions(accelerate=False),
}


class Union:
    """A layer with one file of a lower layer, and its server."""

    def __init__(self, home: Path, options: FuseOptions) -> None:
        self.driver = FuseDriver(home, options)
        self.layer = Layer(2, Kind.ACTIVE, (1,))
        self.kills = 0

    def begin(self, content: bytes) -> None:
        self.driver.start()
        self.driver.prepare(Layer(1, Kind.ACTIVE))
        (self.driver.changes(Layer(1, Kind.ACTIVE)).root / "file").write_bytes(content)
        self.driver.commit(Layer(1, Kind.COMMITTED))
        self.driver.prepare(self.layer)
        self.driver.mounts(self.layer)

    def kill(self) -> None:
        """Another server takes over; nothing of the file is open meanwhile."""
        pid = life.pid_of(self.driver.home / "2")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with life._ended(self.driver.home / "2", 60) as ended:  # noqa: SLF001  # what the driver waits with
            assert ended
        self.driver.mounts(self.layer)
        self.kills += 1

    @property
    def file(self) -> Path:
        return self.driver.home / "2/served/file"

    @property
    def stored(self) -> Path:
        return self.driver.changes(self.layer).root / "file"

    def end(self) -> None:
        for layer_id in (2, 1):
            self.driver.remove(layer_id)


class Fsx:
    """The file and what it should hold."""

    def __init__(self, union: Union, chance: random.Random) -> None:
        self.union = union
        self.chance = chance
        self.model = bytearray(union.file.read_bytes())
        self.file = os.open(union.file, os.O_RDWR)
        self.verbs = [self.read, self.write, self.truncate, self.mapped, self.copy, self.reopen]
        if union.driver.options.accelerate:
            self.verbs.append(self.punch)

    def step(self) -> None:
        if self.chance.randrange(BETWEEN_KILLS):
            self.chance.choice(self.verbs)()
        else:
            self.killed()

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
        assert self.union.file.read_bytes() == self.model
        self.file = os.open(self.union.file, os.O_RDWR)

    def killed(self) -> None:
        os.close(self.file)
        self.union.kill()
        assert self.union.file.read_bytes() == self.model
        self.file = os.open(self.union.file, os.O_RDWR)

    def end(self) -> None:
        self.reopen()
        os.close(self.file)
        assert self.union.stored.read_bytes() == self.model

    def _grow(self, size: int) -> None:
        if size > len(self.model):
            self.model += bytes(size - len(self.model))


def soak(place: Path, seconds: float, least: int) -> dict[str, int]:
    """How many steps were made, and how many servers killed; AssertionError if a file is not what it should be."""
    chance = random.Random(seed := int.from_bytes(os.urandom(4)))  # noqa: S311  # to be played again
    unions = [Union(place / name, options) for name, options in MODES.items()]
    deadline, steps = time.monotonic() + seconds, 0
    try:
        for union in unions:
            union.begin(chance.randbytes(100_000))
        files = [Fsx(union, chance) for union in unions]
        while time.monotonic() < deadline or steps < least:
            files[steps % len(files)].step()
            steps += 1
        for file in files:
            file.end()
    except BaseException:
        print(f"seed {seed}, step {steps}, {unions[steps % len(unions)].driver.home.name}", file=sys.stderr)  # noqa: T201
        raise
    finally:
        for union in unions:
            union.end()
    return {"steps": steps, "kills": sum(union.kills for union in unions), "seed": seed}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was begun is undone
    os.nice(19)
    print(json.dumps(soak(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))))  # noqa: T201  # to whoever waits

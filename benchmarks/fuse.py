"""`make bench-fuse`: our union beside fuse-overlayfs and the kernel's overlay, in turn, on the same layers.

Each round mounts each contender afresh on a writable layer of its own, over the same two lower ones, and plays all
works; the medians of the rounds are told, relative to fuse-overlayfs. "Cold" is cold for the mount: the page cache of
the layers below is warm for everybody alike.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from lamina.layer import Kind, Layer
from lamina.mount import Mount, mount_all, unmount
from lamina.overlaymount import overlay_options
from lamina.trees import remove_tree
from lamina_fuse.driver import FuseDriver

MIB = 1 << 20
Work = Callable[[Path], object]


def main() -> None:
    """Play the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the file that is read; half of it is written")
    parser.add_argument("--share", default="/usr/share/doc", help="a tree of many files to copy into the lowest layer")
    parser.add_argument("--works", default="", help="a regular expression: only works whose names it finds")
    asked = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="lamina-bench-fuse-"))
    try:
        Bench(place, asked.size, asked.share, asked.works).run(asked.rounds)
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", place], check=True)


class Bench:
    """Layers, contenders and works."""

    def __init__(self, place: Path, size: int, share: str, works: str = "") -> None:
        self._place = place
        self._size = size
        self._share = share
        self._wanted = re.compile(works)
        self._driver = FuseDriver(place / "layers")
        self._archive = place / "files.tar"
        self._numbers = iter(range(10, 10_000))

    def run(self, rounds: int) -> None:
        """All contenders in turn, round by round."""
        self._fill()
        times: dict[str, dict[str, list[float]]] = {}
        for number in range(rounds):
            for name, contender in self._contenders().items():
                with contender() as root:
                    for work, seconds in self._play(root):
                        times.setdefault(work, {}).setdefault(name, []).append(seconds)
            print(f"round {number + 1} of {rounds} done", file=sys.stderr)
        _tell(times)

    def _fill(self) -> None:
        """A real tree of many thousand files below, and big files; the second layer covers some of the first."""
        self._driver.start()
        parents: tuple[int, ...] = ()
        for number, fill in enumerate((self._first, self._second), start=1):
            layer = Layer(number, Kind.ACTIVE, parents)
            self._driver.prepare(layer)
            fill(self._driver.changes(layer).root)
            self._driver.commit(Layer(number, Kind.COMMITTED, parents))
            parents = (number, *parents)
        with tarfile.open(self._archive, "w") as tar:
            made = self._place / "made"
            for each in range(5000):
                path = made / f"d{each // 100}" / f"f{each}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x" * (each % 64 * 100))
            tar.add(made, "made")

    def _first(self, root: Path) -> None:
        subprocess.run(["cp", "-a", self._share, root / "share"], check=True)
        subprocess.run(["cp", "-a", f"/usr/lib/python3.{sys.version_info.minor}", root / "python"], check=True)
        with (root / "big").open("wb") as big:
            for _ in range(self._size):
                big.write(os.urandom(4096) * 256)
        (root / "hundred").write_bytes(os.urandom(4096) * (256 * 100))

    def _second(self, root: Path) -> None:
        subprocess.run(["cp", "-a", f"/usr/lib/python3.{sys.version_info.minor}", root / "removed"], check=True)
        (root / "share").mkdir()
        (root / "share/own").write_text("x")

    # contenders

    def _contenders(self) -> dict[str, Callable[[], AbstractContextManager[Path]]]:
        found: dict[str, Callable[[], AbstractContextManager[Path]]] = {"lamina": self._ours, "kernel": self._kernel}
        if shutil.which("fuse-overlayfs"):
            found["fuse-overlayfs"] = self._theirs
        return found

    @contextmanager
    def _ours(self) -> Iterator[Path]:
        layer = Layer(next(self._numbers), Kind.ACTIVE, (2, 1))
        self._driver.prepare(layer)
        self._driver.mounts(layer)
        try:
            yield self._driver.home / str(layer.id) / "served"
        finally:
            self._driver.remove(layer.id)

    @contextmanager
    def _bare(self) -> Iterator[tuple[Path, Path, Path]]:
        place = Path(tempfile.mkdtemp(dir=self._place))
        parts = place / "upper", place / "work", place / "merged"
        for each in parts:
            each.mkdir()
        try:
            yield parts
        finally:
            unmount(parts[2], lazy=True)
            remove_tree(place)

    @property
    def _lowers(self) -> list[Path]:
        return [self._driver.home / "2/fs", self._driver.home / "1/fs"]

    @contextmanager
    def _kernel(self) -> Iterator[Path]:
        with self._bare() as (upper, work, merged):
            options = (*overlay_options(self._lowers, upper, work), "redirect_dir=on")
            mount_all([Mount("overlay", "overlay", options)], merged)
            yield merged

    @contextmanager
    def _theirs(self) -> Iterator[Path]:
        with self._bare() as (upper, work, merged):
            lowers = ":".join(map(str, self._lowers))
            options = f"lowerdir={lowers},upperdir={upper},workdir={work}"
            subprocess.run(["fuse-overlayfs", "-o", options, merged], check=True)
            yield merged

    # works

    def _play(self, root: Path) -> Iterator[tuple[str, float]]:
        for name, work in self._works().items():
            if not self._wanted.search(name):
                continue
            begun = time.perf_counter()
            work(root)
            yield name, time.perf_counter() - begun

    def _works(self) -> dict[str, Work]:
        half = self._size // 2
        return {
            "cold walk": _walk,
            "warm walk": _walk,
            "lstat storm": _lstat,
            "import, cold": _import,
            "import, warm": _import,
            "4k random reads, cold": lambda root: _random(root / "big", 5000),
            "read the big file, cold": lambda root: _read(root / "big"),
            "read the big file, warm": lambda root: _read(root / "big"),
            "4k random reads, warm": lambda root: _random(root / "big", 50_000),
            "write half as much": lambda root: _write(root / "written", half),
            "extract 5000 files": lambda root: _run("tar", "-xf", self._archive, "-C", root),
            "remove them": lambda root: _run("rm", "-rf", root / "made"),
            "remove a lower tree": lambda root: _run("rm", "-rf", root / "removed"),
            "copy-up of 100 MiB": lambda root: _touch_a_byte(root / "hundred"),
            "eight threads": _threads,
        }


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True)


def _walk(root: Path) -> None:
    subprocess.run(["du", "-s", root / "share"], check=True, stdout=subprocess.DEVNULL)


def _lstat(root: Path) -> None:
    for directory, _, names in os.walk(root / "python"):
        for name in names:
            os.lstat(os.path.join(directory, name))


def _import(root: Path) -> None:
    code = "import asyncio, json, http.client, unittest, xml.dom.minidom, sqlite3, email, decimal, logging, argparse"
    environ = {"PYTHONPATH": str(root / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(["/usr/bin/python3", "-S", "-c", code], check=True, env=environ)


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(MIB)
        while file.readinto(buffer):
            pass


def _random(path: Path, times: int) -> None:
    chance = random.Random(7)  # noqa: S311  # the same places for everybody
    pages = path.stat().st_size // 4096
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for _ in range(times):
            os.pread(descriptor, 4096, chance.randrange(pages) * 4096)
    finally:
        os.close(descriptor)


def _write(path: Path, mebibytes: int) -> None:
    block = b"w" * MIB
    with path.open("wb", buffering=0) as file:
        for _ in range(mebibytes):
            file.write(block)


def _touch_a_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x")


def _threads(root: Path) -> None:
    def work(number: int) -> None:
        for turn in range(100):
            path = root / f"thread{number}-{turn}"
            path.write_bytes(b"x" * 1000)
            path.read_bytes()
            path.unlink()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _tell(times: dict[str, dict[str, list[float]]]) -> None:
    names = list(next(iter(times.values())))
    print(f"{'median, relative to fuse-overlayfs':<36}" + "".join(f"{name:>16}" for name in (*names, "1.00x is")))
    for work, measured in times.items():
        medians = {name: statistics.median(each) for name, each in measured.items()}
        base = medians.get("fuse-overlayfs", medians["lamina"])
        print(f"{work:<36}" + "".join(f"{medians[name] / base:>15.2f}x" for name in names) + f"{base * 1000:>13.1f} ms")


if __name__ == "__main__":
    main()

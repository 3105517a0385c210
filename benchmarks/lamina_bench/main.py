"""The order of play: build the images, see who is there, run the rounds, print the ratios."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import attrs

from lamina_bench import report
from lamina_bench.cleaning import lacking, room
from lamina_bench.engines.containerd import Containerd
from lamina_bench.engines.engine import Engine
from lamina_bench.engines.lamina import Lamina
from lamina_bench.engines.runc import Runc
from lamina_bench.engines.storage import Storage
from lamina_bench.engines.umoci import Umoci
from lamina_bench.image import Image, images, runnable
from lamina_bench.inprocess import DEPTHS, Life, measure_life
from lamina_bench.measuring import CommandFailed
from lamina_bench.registry import PROGRAMS, give, registry
from lamina_bench.results import Results
from lamina_bench.works import IN_STORE, START, WORDS, Round

MICRO = "micro"


@attrs.frozen
class Wishes:
    """What the command line asks for."""

    rounds: int
    work: Path | None
    cache: Path
    wanted: frozenset[str]
    drivers: frozenset[str]
    json: Path | None


def main() -> NoReturn:
    """The program; ends with 1 if something could not be measured that should have been."""
    if os.geteuid() != 0:
        sys.exit("the benchmarks mount, so they need root")
    wishes = parse(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="lamina-bench.", dir=wishes.work) as place:
        Path(place).chmod(0o711)
        sys.exit(play(wishes, Path(place).resolve()))


def play(wishes: Wishes, place: Path) -> int:
    """Everything that is wished, and the report; how many engines failed."""
    tell(report.machine(place))
    results, lives, failed = Results(), list[Life](), dict[str, str]()
    if MICRO in wishes.wanted:
        lives = list(_lives(wishes, place))
        tell(report.lives(lives))
    if wishes.wanted - {MICRO}:
        large, tiny = images(wishes.cache, tell)
        small = runnable(wishes.cache, tell)
        tell(report.image(large))
        present = list(_present(wishes, _everybody(place)))
        starters = list(_present(wishes, _starters(place))) if START in wishes.wanted else []
        with room(place / "spare") as spare, _hub(wishes, spare, large) as hub:
            one = Round(results, large, tiny, wishes.wanted, spare)
            for number in range(wishes.rounds):
                tell(f"round {number + 1} of {wishes.rounds}")
                if wishes.wanted & IN_STORE:
                    _play(_turned(present, number), failed, one.play)
                if hub:
                    _play(_turned(present, number), failed, functools.partial(one.exchange, host=hub))
                if starters:
                    _play(_turned(starters, number), failed, functools.partial(one.begin, image=small))
        tell(report.everything(results, {one.name: one for one in (*present, *starters)}.values()))
    for engine, why in failed.items():
        tell(f"FAILED: {engine}: {why}")
    if wishes.json is not None:
        lived = [attrs.asdict(life) for life in lives]
        wishes.json.write_text(json.dumps({"works": results.plain(), "lives": lived}, indent=1))
    return min(len(failed), 1)


@contextlib.contextmanager
def _hub(wishes: Wishes, place: Path, large: Image) -> Iterator[str]:
    """A registry that has the large image, if one is wanted and can be had; HOST:PORT."""
    missing = lacking(*PROGRAMS)
    if not wishes.wanted & {"pull", "push"} or missing:
        tell(f"NOTE: without a registry: {', '.join(missing)} not installed") if missing else None
        yield ""
        return
    with registry(place / "hub") as host:
        give(large, host)
        yield host


def _play(engines: Sequence[Engine], failed: dict[str, str], play: Callable[[Engine], None]) -> None:
    for engine in engines:
        if engine.name in failed:
            continue
        try:
            play(engine)
        except (CommandFailed, OSError) as error:
            failed[engine.name] = str(error)
            tell(f"  {engine.name} failed and is left out: {error}")


def _turned(engines: Sequence[Engine], number: int) -> Sequence[Engine]:
    """Each round begins with another one, so that nobody always runs on what somebody else has left."""
    start = number % len(engines)
    return [*engines[start:], *engines[:start]]


def _present(wishes: Wishes, engines: Iterable[Engine]) -> Iterator[Engine]:
    for engine in engines:
        if engine.stores not in wishes.drivers:
            continue
        if missing := lacking(*engine.programs):
            tell(f"NOTE: without {engine.name}: {', '.join(missing)} not installed")
            continue
        yield engine


def _everybody(place: Path) -> Iterator[Engine]:
    yield Lamina(place / "lamina")
    yield Lamina(place / "lamina-none", level="none")
    yield Storage(place / "storage")
    yield Containerd(place / "containerd")
    yield Lamina(place / "lamina-vfs", "vfs")
    yield Storage(place / "storage-vfs", "vfs")
    yield Containerd(place / "containerd-native", "native")
    yield Umoci(place / "umoci")


def _starters(place: Path) -> Iterator[Engine]:
    yield Lamina(place / "lamina")
    yield Storage(place / "storage")
    yield Containerd(place / "containerd")
    yield Runc(place / "runc")


def _lives(wishes: Wishes, place: Path) -> Iterator[Life]:
    for stores, driver in (("overlay", "overlay"), ("copies", "vfs")):
        if stores not in wishes.drivers:
            continue
        for depth in DEPTHS[driver]:
            with room(place / "micro") as here:
                yield measure_life(here, driver, depth)


def parse(argv: Sequence[str]) -> Wishes:
    """The options; ends the program for --help and for what makes no sense."""
    parser = argparse.ArgumentParser("benchmarks/run.py", description="Run lamina beside the tools that are installed.")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default: 5)")
    parser.add_argument("--work", type=Path, help="where the stores lie, on a file system with 10 GB (default: TMPDIR)")
    parser.add_argument("--cache", type=Path, help="where the images are kept (default: WORK/lamina-bench-cache)")
    parser.add_argument("--only", default=",".join((MICRO, *WORDS)), help=f"some of {MICRO},{','.join(WORDS)}")
    parser.add_argument("--stores", default="overlay,copies", help="kinds of stores to compare (default: both)")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    given = parser.parse_args(argv)
    wanted, drivers = frozenset(given.only.split(",")), frozenset(given.stores.split(","))
    if unknown := wanted - {MICRO, *WORDS} or drivers - {"overlay", "copies"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    cache = given.cache or (given.work or Path(tempfile.gettempdir())) / "lamina-bench-cache"
    return Wishes(max(given.rounds, 1), given.work, cache.resolve(), wanted, drivers, given.json)


def tell(line: str) -> None:
    """A line for whoever watches."""
    print(line, flush=True)

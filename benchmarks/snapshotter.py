"""`make bench-containerd`: lamina's overlay beside containerd's own overlayfs, in one daemon, in turn.

Told are medians of ratios, taken round by round: the import of a real image with its unpacking, the unpacking alone,
and the life of a container's layer (prepare, mounts, remove), asked of the daemon and of our socket directly by the Go
client that containerd itself uses.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import grpc
from lamina_bench import report
from lamina_bench.cleaning import clear
from lamina_bench.daemons import running
from lamina_bench.image import TAG, Image, images
from lamina_bench.measuring import CommandFailed, flush, run
from lamina_bench.works import read_ahead

OURS, THEIRS = "lamina", "overlayfs"
DIRECT = "lamina, asked directly"
_SPACE = "bench"
_CONFIG = """\
version = 2
root = "{room}/root"
state = "{room}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{room}/c.sock"
[ttrpc]
address = "{room}/c.ttrpc"
[proxy_plugins.lamina]
type = "snapshot"
address = "{room}/lamina.sock"
"""
_PATIENCE: Final = 120.0  # seconds for containerd to remove an image's files
_TURNS: Final = 5  # of each snapshotter, in which its layers live

Took = dict[str, dict[str, list[float]]]  # seconds, by work and snapshotter


def main() -> None:
    """Play the rounds and print the table."""
    parser = argparse.ArgumentParser("benchmarks/snapshotter.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often the image is imported")
    parser.add_argument("--lives", type=int, default=500, help="how many layers live")
    parser.add_argument(
        "--durability", default="ordered", help="of lamina; containerd's own flushes no file of a layer"
    )
    parser.add_argument("--work", type=Path, help="where everything lies (default: TMPDIR)")
    parser.add_argument("--cache", type=Path, help="where the images are kept (default: WORK/lamina-bench-cache)")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("containerd mounts, so it needs root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # not before the servers are
    above = asked.work or Path(tempfile.gettempdir())
    image, _ = images(asked.cache or above / "lamina-bench-cache", lambda line: print(line, flush=True))
    place = Path(tempfile.mkdtemp(prefix="lamina-bench.", dir=above))
    try:
        print(report.machine(place), report.image(image), sep="\n", flush=True)
        with both(place, asked.durability) as bench:
            bench.live(asked.lives)
            for number in range(asked.rounds):
                bench.play(image, turned(number))
        bench.tell()
    finally:
        clear(place)


def turned(number: int) -> Sequence[str]:
    """Each round begins with the other one."""
    return (OURS, THEIRS) if number % 2 else (THEIRS, OURS)


@contextlib.contextmanager
def both(room: Path, durability: str) -> Iterator[Bench]:
    """Our service, and containerd with it."""
    config, ours = room / "config.toml", room / "lamina.toml"
    config.write_text(_CONFIG.format(room=room))
    ours.write_text(f'durability = "{durability}"\n')
    bench = Bench(room)
    with contextlib.ExitStack() as stack:
        for name in ("lamina", "direct"):
            serve = [sys.executable, "-m", "lamina.cli.main", "--config", str(ours), "--driver", "overlay", "--root"]
            serve += [f"{room}/{name}", "serve", "--address", f"{room}/{name}.sock"]
            stack.enter_context(running(serve, room / f"{name}.log", partial(answers, room / f"{name}.sock")))
        daemon = ("containerd", "--config", str(config))
        stack.enter_context(running(daemon, room / "log", lambda: run(bench.ctr("version"))))
        yield bench


def answers(address: Path) -> None:
    """CommandFailed unless somebody listens there."""
    try:
        with grpc.insecure_channel(f"unix:{address}") as channel:
            grpc.channel_ready_future(channel).result(timeout=0.2)
    except grpc.FutureTimeoutError as error:
        raise CommandFailed(f"nobody listens at {address}") from error


@attrs.frozen
class Bench:
    """One daemon, and what was measured."""

    room: Path
    took: Took = attrs.field(factory=lambda: defaultdict(lambda: defaultdict(list)))

    def ctr(self, *words: str) -> list[str]:
        """The words that run containerd's client."""
        return ["ctr", "--address", f"{self.room}/c.sock", "--namespace", _SPACE, *words]

    def play(self, image: Image, order: Sequence[str]) -> None:
        """The image comes in and goes again, for each; then it is unpacked alone."""
        name = f"example.com/{image.name}:{TAG}"
        load = ("images", "import", "--base-name", name.rpartition(":")[0])
        for snapshotter in order:
            read_ahead(image)
            self._clock("import", snapshotter, *load, "--snapshotter", snapshotter, str(image.oci_archive))
            self._forget(name)
        run(self.ctr(*load, "--no-unpack", str(image.oci_archive)))
        digest = next(word for word in run(self.ctr("images", "ls")).split() if word.startswith("sha256:"))
        for snapshotter in order:
            self._clock("unpack", snapshotter, "snapshots", "unpack", "--snapshotter", snapshotter, digest)
        self._forget(name)

    def _forget(self, name: str) -> None:
        """The image is gone, and its files, too, which containerd's own snapshotter removes in its own time."""
        run(self.ctr("images", "rm", "--sync", name))
        theirs = self.room / "root/io.containerd.snapshotter.v1.overlayfs/snapshots"
        deadline = time.monotonic() + _PATIENCE
        while any(theirs.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _clock(self, work: str, snapshotter: str, *words: str) -> None:
        """Until the client ends, and until all is on disk."""
        flush()
        started = time.perf_counter()
        run(self.ctr(*words))
        seconds = time.perf_counter() - started
        self.took[work][snapshotter].append(seconds)
        lasting = seconds + flush()
        self.took[f"{work}, until on disk"][snapshotter].append(lasting)
        print(f"  {work} by {snapshotter}: {seconds:.2f} s, on disk after {lasting:.2f} s", flush=True)

    def live(self, times: int) -> None:
        """A layer on a small base is prepared, asked for and removed, by each in turn."""
        client = _built(self.room)
        asked = {
            THEIRS: (f"{self.room}/c.sock", THEIRS),
            OURS: (f"{self.room}/c.sock", OURS),
            # a store that the daemon does not know, and so does not clean
            DIRECT: (f"{self.room}/direct.sock", ""),
        }
        for _ in range(_TURNS):
            for name, (address, snapshotter) in asked.items():
                told = run([str(client), address, snapshotter, str(times // _TURNS)]).split()
                self.took["prepare, mounts, remove"][name] += [float(life) / 1000 for life in told]

    def tell(self) -> None:
        """The table."""
        print(f"\n{'work':24} {'containerd':>11} {'lamina':>11} {'ratio':>7}")
        for work, took in self.took.items():
            for ours in (OURS, DIRECT):
                if ours in took:
                    ratios = [a / b for a, b in zip(took[ours], took[THEIRS], strict=True)]
                    mine, theirs = (_shown(statistics.median(took[name])) for name in (ours, THEIRS))
                    spread = f"{min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) < 20 else ""
                    print(
                        f"{work:24} {theirs:>11} {mine:>11} {statistics.median(ratios):7.2f} {spread}"
                        f"{'  ' + ours if ours != OURS else ''}"
                    )


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def _built(room: Path) -> Path:
    """The client, compiled from Debian's sources of containerd."""
    place = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": f"{room}/gocache"}
    source = Path(__file__).with_name("life") / "main.go"
    built = room / "life"
    subprocess.run(["go", "build", "-o", built, source], check=True, env={**os.environ, **place})
    return built


if __name__ == "__main__":
    try:
        main()
    except (CommandFailed, subprocess.CalledProcessError) as error:
        sys.exit(str(error))

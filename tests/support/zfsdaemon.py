"""A zfs-fuse of our own in a mount namespace of its own: one socket path is compiled in, and others use it, too."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

# the namespace begins as a copy of ours: without the first lines others' loop devices would be busy as long as it lives
_START = """
findmnt -rnlo SOURCE,TARGET | tac | while read -r source target; do
    case "$source" in /dev/loop*) umount -l "$(printf %b "$target")" || true ;; esac
done
mkdir -p /var/lib/zfs
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib/zfs && mkdir -p /run/zfs /run/lock
exec zfs-fuse -n --no-kstat-mount -x -a 3600 -e 3600
"""
_PATIENCE = 20.0  # seconds


@attrs.frozen
class ZfsHouse:
    """A daemon, and a pool in a file."""

    pid: int
    pool: str

    def inside(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The words that run a program where the daemon's mounts are to be seen."""
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", *(os.fspath(word) for word in argv)]

    def run(self, *argv: str | os.PathLike[str]) -> str:
        """Run a program there; what it told."""
        return subprocess.run(self.inside(argv), check=True, capture_output=True, text=True).stdout


@contextmanager
def zfs_house(where: Path, *, megabytes: int = 2048) -> Iterator[ZfsHouse]:
    """A running daemon with one pool; both are gone afterwards, and no other daemon has noticed."""
    image, pool = where / "zfs.img", f"lamina{os.getpid()}x{os.urandom(3).hex()}"
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    daemon = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _START],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    house = ZfsHouse(daemon.pid, pool)
    try:
        _wait_for(house, daemon)
        house.run("zpool", "create", "-m", "none", pool, image)
        yield house
    finally:
        daemon.kill()  # its mounts go with its namespace, its pool with the file
        daemon.wait()
        image.unlink()


def _wait_for(house: ZfsHouse, daemon: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    while daemon.poll() is None and time.monotonic() < until:
        # asked only once it stands in its own namespace: before that it would be somebody else's daemon that answers
        if Path(f"/proc/{daemon.pid}/comm").read_text().strip() == "zfs-fuse":
            asked = subprocess.run(house.inside(["zpool", "list", "-H"]), capture_output=True, check=False)
            if asked.returncode == 0:
                return
        time.sleep(0.02)
    raise RuntimeError("zfs-fuse did not start")

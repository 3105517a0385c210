"""A btrfs in a file, for tests that need a real one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PATIENCE = 20.0  # seconds


@contextmanager
def btrfs_on_a_loop(where: Path, *, megabytes: int = 512, options: str = "") -> Iterator[Path]:
    """The directory `where/btrfs` with a new btrfs mounted on it; unmounted afterwards, and the loop device is free."""
    image, place = where / "btrfs.img", where / "btrfs"
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    place.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
    words = ["loop", *([options] if options else [])]
    subprocess.run(["mount", "-o", ",".join(words), image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        _wait_until_free(image)
        image.unlink()


def _wait_until_free(image: Path) -> None:
    """The kernel lets go of the loop device with the last mount, which may be in a namespace that just ends."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if not subprocess.run(["losetup", "--associated", image], check=True, capture_output=True).stdout:
            return
        time.sleep(0.02)

"""Every driver that this machine's kernel can carry passes the suite, by the command that a third party would use."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest
from lanes import LANES, Outcome, cut_for, outcome_of, record
from loops import btrfs_on_a_loop
from zfsdaemon import zfs_house

from lamina.syscalls import opened

Argv = list[str]
_QUOTA_CTL, _ENABLE_SIMPLE_QUOTA = 0xC0109428, 4


@contextmanager
def _anywhere(argv: Argv, _place: Path) -> Iterator[Argv]:
    yield argv


@contextmanager
def _on_btrfs(argv: Argv, _place: Path) -> Iterator[Argv]:
    # a short name: the suite makes very long ones below it, and SQLite takes 512 bytes. In memory, since on btrfs every
    # change of the database is flushed; what was removed is given back
    with (
        TemporaryDirectory(prefix="lamina-", dir="/dev/shm") as short,
        btrfs_on_a_loop(Path(short), megabytes=4096, options="discard") as root,
    ):
        yield [*argv, "--driver-root", str(root)]


@contextmanager
def _beside_zfs(argv: Argv, place: Path) -> Iterator[Argv]:
    with zfs_house(place) as house:
        yield house.inside([*argv, "--driver-option", f"dataset={house.pool}/layers"])


# what a driver needs to be there, and the words that run the suite in it
SETTINGS: dict[str, Callable[[Argv, Path], AbstractContextManager[Argv]]] = {"btrfs": _on_btrfs, "zfs": _beside_zfs}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("driver", LANES["host"])
def test_the_driver_conforms(
    driver: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    record(request.node, Outcome(driver, "host"))
    report = Path(os.environ.get("LAMINA_REPORTS", tmp_path)) / f"conformance-{driver}.xml"
    argv = [sys.executable, "-m", "lamina.cli.main", "conformance", driver, "--must-run"]
    cut = cut_for("host", driver)
    argv += ["--junitxml", str(report), *cut.words]

    with SETTINGS.get(driver, _anywhere)(argv, tmp_path) as words:
        told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    with capfd.disabled():
        _, found, summary = told.stdout.partition(f"conformance of the driver {driver!r}")
        print(f"\n{found}{summary}" if found else told.stdout)  # noqa: T201  # the table is the point of it
    if report.exists():
        outcome = outcome_of(driver, "host", report)
        record(request.node, attrs.evolve(outcome, why="; ".join(filter(None, (cut.told, outcome.why)))))
    assert told.returncode == 0, told.stdout + told.stderr
    assert report.exists()


@pytest.mark.parametrize("kind", ["full", "simple"])
def test_a_size_on_btrfs_is_enforced_where_quotas_are_on(kind: str, tmp_path: Path) -> None:
    """The lane's own btrfs has none, and there a size is refused; both answers have to be true."""
    argv = [
        sys.executable,
        "-m",
        "lamina.cli.main",
        "conformance",
        "btrfs",
        "--must-run",
        "lamina.conformance.test_limits",
    ]

    with btrfs_on_a_loop(tmp_path, options="discard") as root:
        _switch_quotas_on(root, simple=kind == "simple")
        told = subprocess.run([*argv, "--driver-root", root], capture_output=True, text=True, check=False)

    assert told.returncode == 0, told.stdout + told.stderr
    assert "2 skipped: it is enforced here" in told.stdout  # of six: what is said of refused and accounted ones


def _switch_quotas_on(root: Path, *, simple: bool) -> None:
    """As an administrator does; Debian's btrfs-progs are too old to ask for simple ones (linux/btrfs.h, Linux 6.7)."""
    if not simple:
        subprocess.run(["btrfs", "quota", "enable", root], check=True)
        subprocess.run(["btrfs", "quota", "rescan", "-w", root], check=True, capture_output=True)
        return
    with opened(root, os.O_RDONLY | os.O_DIRECTORY) as directory:
        try:
            fcntl.ioctl(directory, _QUOTA_CTL, struct.pack("<QQ", _ENABLE_SIMPLE_QUOTA, 0))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            pytest.skip("this kernel has no simple quotas")

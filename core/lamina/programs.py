"""Run another program: its output comes back, its failures are ours."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from typing import Final

from lamina.errors import NotFound, ProgramFailed

# what Debian calls the package; a program that is not here is its own package
_PACKAGES: Final = {
    "blkid": "util-linux",
    "btrfs": "btrfs-progs",
    "dmsetup": "dmsetup",
    "fusermount3": "fuse3",
    "losetup": "mount",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "setpriv": "util-linux",
    "thin_delta": "thin-provisioning-tools",
    "thin_dump": "thin-provisioning-tools",
    "zfs": "zfsutils-linux or zfs-fuse",
    "zpool": "zfsutils-linux or zfs-fuse",
}

_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"  # not on the PATH of an ordinary user, yet where our programs live


def run(
    *argv: str | os.PathLike[str],
    input: str | None = None,  # noqa: A002  # as subprocess calls it
    timeout: float | None = None,
    mortal: bool = False,
) -> str:
    """Run a program to its end and return what it wrote to its standard output.

    It speaks English whatever the user's language, and reads `input` or nothing, never the terminal. Bytes that are
    not UTF-8 come and go as surrogates (`os.fsencode` restores them). Raises `ProgramFailed` with its words when it
    ends badly or takes longer than `timeout` seconds, and `NotFound`, saying what to install, when there is no such
    program. In no case is it, or a child of it that stays in its session, left running after a failure. A `mortal` one
    is killed by the kernel when we die, or the thread that called does; else it ends what it began.
    """
    words = tuple(os.fspath(word) for word in argv)
    environment = os.environ | {"LC_ALL": "C", "PATH": f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"}
    found = _find(words[0], environment["PATH"])
    try:
        process = subprocess.Popen(
            [*_dying_with_us(environment["PATH"]), found, *words[1:]] if mortal else words,
            executable=None if mortal else found,
            env=environment,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="surrogateescape",
            start_new_session=True,  # so that its children can be ended with it
        )
    except OSError as error:  # it is there, yet cannot be run: no interpreter, another machine's binary
        raise ProgramFailed(words, 126, f"cannot be run: {error.strerror}") from error
    output, complaints = _talk(process, words, input, timeout)
    if process.returncode:
        raise ProgramFailed(words, process.returncode, complaints)
    return output


def _dying_with_us(path: str) -> tuple[str, ...]:
    """Words to put before a command. A program, since nothing of ours may run in a child of threads before its exec."""
    return (_find("setpriv", path), "--pdeathsig", "KILL", "--")


def _find(program: str, path: str) -> str:
    found = shutil.which(program, path=path)
    if found is None:
        package = _PACKAGES.get(program, os.path.basename(program))
        raise NotFound(f"there is no program {program!r} on this machine; install the package {package}")
    return found


def _talk(
    process: subprocess.Popen[str], argv: tuple[str, ...], words: str | None, timeout: float | None
) -> tuple[str, str]:
    try:
        return process.communicate(words, timeout)
    except subprocess.TimeoutExpired as late:
        _end(process)
        raise ProgramFailed(argv, -signal.SIGKILL, f"ended by us: not done after {timeout:g} seconds") from late
    except BaseException:  # a signal to us: do not leave it behind
        _end(process)
        raise


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the program with its session, and reap it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(BrokenPipeError):  # what was not yet read to it
                pipe.close()

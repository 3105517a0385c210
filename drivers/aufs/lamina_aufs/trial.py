"""What this kernel's aufs takes and can, asked by a mount that nobody else sees."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from lamina import syscalls
from lamina.driver import Ability
from lamina.mount import Mount, mount_all, unmount
from lamina.syscalls import opened
from lamina.trees import remove_tree
from lamina_aufs.abilities import PROBES, lacking_in, make_lower

OPTIONS: Final = ("acl", "dirperm1")  # wanted where they are known
_PREFIX: Final = ".trial-"
_BRANCHES: Final = "br:upper=rw:lower=ro+wh"


@attrs.frozen
class Trial:
    """What was found; `problem` tells why nothing could be."""

    options: tuple[str, ...] = ()
    lacking: frozenset[Ability] = frozenset(PROBES)
    problem: str = ""


@functools.cache
def try_out(directory: str) -> Trial:
    """Ask, once a process, on the file system of an existing directory; nothing stays there."""
    try:
        with _locked(directory):
            place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=directory)).absolute()
            try:
                return _asked_apart(place)
            finally:
                remove_tree(place)
    except OSError as error:
        return Trial(problem=str(error))


def forget_interrupted(home: Path) -> None:
    """Nothing is left of a trial whose process died."""
    if left := list(home.glob(f"{_PREFIX}*")):
        with _locked(home):  # nobody is at a trial now
            for place in left:
                remove_tree(place)


@contextlib.contextmanager
def _locked(directory: str | Path) -> Iterator[None]:
    with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _asked_apart(place: Path) -> Trial:
    answers: list[Trial] = []
    thread = threading.Thread(target=lambda: answers.append(_answer(place)), name="lamina-aufs-trial")
    thread.start()
    thread.join()
    return answers[0]


def _answer(place: Path) -> Trial:
    try:
        return _ask(place)
    except OSError as error:
        return Trial(problem=str(error))


def _ask(place: Path) -> Trial:
    syscalls.unshare(syscalls.CLONE_FS | syscalls.CLONE_NEWNS)  # of this thread, which ends soon
    syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    make_lower(place / "lower")
    joined = place / "joined"
    for each in (place / "upper", joined):
        each.mkdir()
    os.chdir(place)
    known = tuple(option for option in OPTIONS if _takes(joined, option))
    mount_all([Mount("aufs", "none", (_BRANCHES, *known, "xino=xino"))], joined)
    try:
        return Trial(known, lacking_in(joined))
    finally:
        unmount(joined, lazy=True)


def _takes(joined: Path, option: str) -> bool:
    try:
        mount_all([Mount("aufs", "none", (_BRANCHES, option, "xino=xino"))], joined)
    except OSError:
        return False
    unmount(joined)
    return True

"""Whether a FUSE union can be served here, and who serves at the moment."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from lamina.driver import Ability, Health
from lamina.syscalls import opened
from lamina.trees import remove_tree
from lamina_fuse import life
from lamina_fuse.dialect import UnionWhiteouts

_DEVICE: Final = "/dev/fuse"


def attribute_prefix() -> str:
    """Where marks are kept: only root may write `trusted`."""
    return "trusted.overlay." if os.geteuid() == 0 and _initial_namespace() else "user.overlay."


def _initial_namespace() -> bool:
    try:
        return Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", "4294967295"]
    except FileNotFoundError:
        return True


def lacking_in_this_kernel() -> frozenset[Ability]:
    """What its FUSE learned only later; Debian 12 has Linux 6.1."""
    version = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    return frozenset() if version >= (6, 2) else frozenset({Ability.TMPFILE})


def examine(home: Path) -> Health:
    """Never raises for a poor host, and leaves nothing behind."""
    problems = [problem for problem in (_module(), _device(), _helper(), _file_system(home)) if problem]
    return Health(tuple(problems), () if problems else (*_notes(), *_servers(home)))


def _module() -> str | None:
    if importlib.util.find_spec("pyfuse3") is None:
        return "pyfuse3 is not installed; install libfuse3-dev, pkg-config and gcc, then: pip install 'lamina[fuse]'"
    return None


def _device() -> str | None:
    try:
        os.close(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "there is no /dev/fuse; load the module (modprobe fuse)"
    except OSError as error:
        return f"/dev/fuse cannot be opened ({error.strerror}); root may do: chmod 666 /dev/fuse"
    return None


def _helper() -> str | None:
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "only root mounts without fusermount3; install fuse3"
    return None


def _file_system(home: Path) -> str | None:
    place = next(each for each in (home, *home.absolute().parents) if each.is_dir())
    try:
        directory = Path(tempfile.mkdtemp(prefix=".probe-", dir=place))
    except OSError as error:
        return f"{place} cannot be written ({error.strerror}); choose another root"
    try:
        dialect = UnionWhiteouts(attribute_prefix())
        with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            dialect.write_opaque(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return f"the file system of {place} keeps no attributes {attribute_prefix()}*; choose another root"
        return f"the file system of {place} cannot be used: {error.strerror}"
    finally:
        remove_tree(directory)
    return None


def _notes() -> tuple[str, ...]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    how = (
        "with the accelerator" if compiler else "without the accelerator (no C compiler): no fallocate, slower listings"
    )
    return (f"served by pyfuse3, {how}; marks are kept as {attribute_prefix()}*",)


def _servers(home: Path) -> tuple[str, ...]:
    """One note for each layer that has, or had, a server."""
    notes = []
    for lock in sorted(home.glob("*/server.lock")):
        place = lock.parent
        pid = life.pid_of(place)
        if pid is not None:
            served = life.target_of(place) or place / "served"
            state = "answers" if life.is_serving(served) else "is not mounted here"
            notes.append(f"layer {place.name}: process {pid} serves and {state}; log in {place / 'server.log'}")
        elif life.device_of(place / "served") is not None:
            notes.append(f"layer {place.name}: its server died; mounting the layer again clears that")
    return tuple(notes)

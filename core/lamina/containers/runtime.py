"""The OCI runtime, crun or runc: found, asked, and understood when it refuses."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from lamina.containers.cgroups import cgroups
from lamina.errors import CannotRun, CommandNotFound, CommandRefused, LaminaError, ProgramFailed
from lamina.programs import run

KNOWN: Final = ("crun", "runc")
_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"

# crun refuses to work where the second version of cgroups lies beside the first, so it is not shown that one
_WITHOUT_SECOND: Final = 'umount "$0" 2>/dev/null; exec "$@"'

_WITHOUT_ANY: Final = 'mount -t tmpfs none "$0"; exec "$@"'  # nor may an ordinary user unmount that one


@attrs.frozen
class Runtime:
    """A runtime, and where it keeps its own notes."""

    program: str
    state: Path
    rootless: bool = False

    @property
    def name(self) -> str:
        """Crun or runc."""
        return os.path.basename(self.program)

    @property
    def command(self) -> tuple[str, ...]:
        """How it is called; the first word is a path."""
        words, here = [*self._bare], cgroups()
        if self.name == "crun" and here.hybrid is not None:
            alone = (find_program("unshare", ["util-linux"]), "-m", "--propagation", "slave")
            words = [*alone, "sh", "-c", _WITHOUT_SECOND, str(here.hybrid), *words]
        elif self.name == "crun" and self.rootless:
            words = [find_program("unshare", ["util-linux"]), "-m", "sh", "-c", _WITHOUT_ANY, "/sys/fs/cgroup", *words]
        return tuple(words)

    @property
    def _bare(self) -> tuple[str, ...]:
        words = [self.program, "--root", str(self.state)]
        if self.name == "crun" and not cgroups().version:
            words.append("--cgroup-manager=disabled")
        if self.name == "runc" and self.rootless:
            words.append("--rootless=true")
        return tuple(words)

    def start(self, container: str) -> None:
        """The process that was created runs."""
        # what is only let go needs no cgroups: three programs fewer where crun must not see some of them
        words = self.command if self.rootless else self._bare
        try:
            run(*words, "start", container)
        except ProgramFailed as failed:
            raise refusal(failed.stderr) from failed

    def pause(self, container: str) -> None:
        """It stands still. CannotRun where there is no freezer."""
        self._freeze("pause", container)

    def resume(self, container: str) -> None:
        """It goes on."""
        self._freeze("resume", container)

    def delete(self, container: str) -> None:
        """The runtime knows nothing of it any more, and whatever lived in it is dead. Repeating it is harmless."""
        if (self.state / container).exists():
            run(*self.command, "delete", "--force", container)

    def _freeze(self, verb: str, container: str) -> None:
        if not cgroups().freezer:
            raise CannotRun(f"cannot {verb}: there is no freezer here, since there are no cgroups that we may use")
        try:
            run(*self.command, verb, container)
        except ProgramFailed as failed:
            raise CannotRun(f"cannot {verb}: {failed.stderr.strip() or failed}") from failed


def find_runtime(wanted: Sequence[str], state: Path, *, rootless: bool = False) -> Runtime:
    """The first of these programs that is on PATH (or is a path); CannotRun says what to install."""
    for name in wanted or KNOWN:
        found = _which(name)
        if found is not None:
            directory = state / os.path.basename(found)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Runtime(found, directory, rootless)
    names = " or ".join(wanted or KNOWN)
    raise CannotRun(f"there is no {names} on PATH to run containers with; install the package {names}")


def find_program(name: str, packages: Sequence[str]) -> str:
    """The path of a program; CannotRun says what to install."""
    found = _which(name)
    if found is None:
        raise CannotRun(f"there is no {name} on PATH; install the package {' or '.join(packages) or name}")
    return found


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def refusal(words: str) -> LaminaError:
    """What a runtime means when it refuses to create or start something."""
    text = _cleaned(words)
    missing = re.search(r"executable file.* not found|no such file or directory", text, re.IGNORECASE)
    if missing and re.search(r"exec|stat ", text, re.IGNORECASE):
        return CommandNotFound(text)
    if re.search(r"permission denied|operation not permitted|is a directory|exec format error", text, re.IGNORECASE):
        return CommandRefused(text)
    return CannotRun(text or "the runtime ended without a word")


def _cleaned(words: str) -> str:
    """Without times and levels, which only a log wants."""
    lines = []
    for line in words.splitlines():
        found = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
        text = found[1].replace('\\"', '"') if found else re.sub(r"^\S+Z: ", "", line)
        lines.append(text.strip())
    return "; ".join(dict.fromkeys(filter(None, lines)))

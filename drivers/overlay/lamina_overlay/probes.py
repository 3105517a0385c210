"""Whether overlay works here: asked once per boot, and remembered."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lamina.driver import Health
from lamina.overlaymount import has_lowerdir_plus
from lamina.trees import nearest_existing, remove_tree
from lamina_overlay import memory
from lamina_overlay.backing import file_system_of, refusal_of, tells_types
from lamina_overlay.memory import Answer
from lamina_overlay.pinned import attribute_prefix, in_user_namespace
from lamina_overlay.trial import Found, try_out

_PREFIX: Final = ".probe-"


def examine(home: Path, *, volatile: bool) -> Answer:
    """What layers in `home` would meet.

    Nothing stays outside of `home`; inside, where it exists, only the answer for the next time. Never raises for a
    poor host.
    """
    try:
        place = nearest_existing(home)
        question = memory.question(place, volatile=volatile)
        if place == home and (known := memory.recall(home, question)) is not None:
            return known
        answer = _ask(place, volatile=volatile)
        if place == home and answer.health.ok:  # a problem may be solved in a minute
            memory.remember(home, question, answer)
    except OSError as error:
        return Answer(Health(problems=(f"overlay cannot be tried out: {error}",)))
    return answer


def _ask(place: Path, *, volatile: bool) -> Answer:
    if (refusal := refusal_of(place)) is not None:
        return Answer(Health(problems=(refusal,)))
    if not os.access(place, os.W_OK | os.X_OK):
        return Answer(Health(problems=(f"this user cannot write to {place}; choose another root",)))
    with _probe_directory(place) as directory:
        problem = _type_problem(directory) or _attribute_problem(directory)
        found = Found((problem,)) if problem else try_out(directory, volatile=volatile)
    return Answer(Health(found.problems, _notes(place)), found.lacking)


def _type_problem(directory: Path) -> str | None:
    (directory / "something").mkdir()
    if tells_types(directory):
        return None
    return "the file system does not tell types in directories (d_type); an xfs has to be made with ftype=1"


def _attribute_problem(directory: Path) -> str | None:
    name = attribute_prefix() + "probe"
    try:
        os.setxattr(directory, name, b"y")
        os.removexattr(directory, name)
    except OSError as error:
        if error.errno == errno.EPERM:
            return "only root may write overlay's attributes; run as root, or inside a user namespace (unshare -Urm)"
        return f"the file system cannot keep the attribute {name}: {error.strerror}"
    return None


def _notes(place: Path) -> tuple[str, ...]:
    kernel = "gives" if has_lowerdir_plus() else "lacks"
    return (
        f"layers lie on {file_system_of(place)}",
        f"Linux {os.uname().release} {kernel} lowerdir+; up to 500 layers in one mount, deeper stacks are joined",
        *(("in a user namespace: overlay's attributes are kept as user.overlay.*",) if in_user_namespace() else ()),
    )


@contextlib.contextmanager
def _probe_directory(place: Path) -> Iterator[Path]:
    """A directory that is locked while in use, so that `forget_interrupted` leaves it alone."""
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield directory
    finally:
        remove_tree(directory)
        os.close(descriptor)


def forget_interrupted(home: Path) -> None:
    """Remove what a probe that was killed has left in `home`."""
    for name in os.listdir(home):
        if name.startswith(_PREFIX):
            with contextlib.suppress(FileNotFoundError, BlockingIOError):  # somebody else is at it
                _remove_unlocked(home / name)


def _remove_unlocked(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(directory)
    finally:
        os.close(descriptor)

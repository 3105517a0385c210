"""Does the kernel do on this file system what the driver builds on? A small overlay, mounted and worked with.

It is mounted in a mount namespace of a thread's own, which the kernel takes apart when the thread ends, whatever
happens: nothing of it can stay mounted.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from lamina import syscalls
from lamina.driver import Ability
from lamina.mount import Mount, mount_all
from lamina.overlaydialect import OverlayWhiteouts
from lamina.overlaymount import overlay_options
from lamina.syscalls import opened
from lamina.trees import remove_tree
from lamina_overlay.pinned import attribute_prefix, pinned_options


@attrs.frozen
class Stage:
    """Two lower layers and a writable one, joined at `merged`."""

    upper: Path
    merged: Path
    mount: Mount


@attrs.frozen
class Found:
    """What does not hold, one sentence each, and what layers can do without."""

    problems: tuple[str, ...] = ()
    lacking: frozenset[Ability] = frozenset()


def try_out(directory: Path, *, volatile: bool) -> Found:
    """Mount and work in the empty `directory`."""
    problems: list[str] = []
    lacking: list[Ability] = []

    def act() -> None:
        stage = _set_up(directory / "plain")
        mount_all([stage.mount], stage.merged)
        lacking.extend(ability for check, ability in _ABILITIES.items() if not _holds(check, stage))
        problems.extend(why for check, why in _CHECKS.items() if not _holds(check, stage))
        if volatile and (why := _volatile_problem(directory / "volatile")):
            problems.append(why)

    try:
        _in_own_namespace(act)
    except OSError as error:
        problems.append(_why_no_mount(error))
    return Found(tuple(problems), frozenset(lacking))


def _set_up(root: Path, *more: str) -> Stage:
    for name in ("first", "second/dir", "second/replaced", "upper", "work", "merged"):
        (root / name).mkdir(parents=True)
    (root / "first/file").write_bytes(b"x" * 8192)
    for name in ("removed", "replaced/below", "dir/file"):
        (root / "second" / name).touch()
    options = overlay_options(
        (root / "first", root / "second"), root / "upper", root / "work", (*pinned_options(), *more)
    )
    return Stage(root / "upper", root / "merged", Mount("overlay", "overlay", options))


def _volatile_problem(root: Path) -> str | None:
    stage = _set_up(root, "volatile")
    try:
        mount_all([stage.mount], stage.merged)
    except OSError as error:
        return f"volatile = true, and this kernel cannot ({os.strerror(error.errno or 0)}); Linux 5.10 and later can"
    return None


def _why_no_mount(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "this user may not mount; run as root, or inside a user namespace (unshare -Urm)"
    if error.errno == errno.ENODEV:
        return "the kernel has no overlay file system; load its module (modprobe overlay)"
    return f"a test mount failed: {error.strerror or error}"


# what has to hold


def _shows_all(stage: Stage) -> bool:
    return sorted(os.listdir(stage.merged)) == ["dir", "file", "removed", "replaced"]


def _writes_whiteouts(stage: Stage) -> bool:
    (stage.merged / "removed").unlink()
    with opened(stage.upper, os.O_RDONLY) as upper:
        return _dialect().is_whiteout(upper, b"removed", (stage.upper / "removed").lstat())


def _writes_opaque(stage: Stage) -> bool:
    remove_tree(stage.merged / "replaced")
    (stage.merged / "replaced").mkdir()
    with opened(stage.upper / "replaced", os.O_RDONLY) as replaced:
        return _dialect().is_opaque(replaced) and not os.listdir(stage.merged / "replaced")


def _copies_whole_files(stage: Stage) -> bool:
    (stage.merged / "file").chmod(0o600)
    return (stage.upper / "file").read_bytes() == b"x" * 8192


def _does_not_redirect(stage: Stage) -> bool:
    try:
        (stage.merged / "dir").rename(stage.merged / "renamed")
    except OSError as error:
        return error.errno == errno.EXDEV
    return False


def _copies_directories_open(stage: Stage) -> bool:
    """Before Linux 4.8 a directory made below an opaque one was marked opaque as well."""
    (stage.merged / "dir/new").touch()
    with opened(stage.upper / "dir", os.O_RDONLY) as copied:
        return not _dialect().is_opaque(copied)


def _links_keep_numbers(stage: Stage) -> bool:
    """Where a file came from is noted as a file handle, which only those who may open such handles can write and read.

    CAP_DAC_READ_SEARCH of the machine it takes, not of a user namespace: ovl_can_decode_fh in fs/overlayfs/namei.c.
    """
    os.link(stage.merged / "dir/file", stage.merged / "dir/link")
    return (stage.merged / "dir/file").stat().st_ino == (stage.merged / "dir/link").stat().st_ino


def _opens_unnamed_files(stage: Stage) -> bool:
    """Since Linux 6.3; Debian 12 has 6.1."""
    os.close(os.open(stage.merged, os.O_TMPFILE | os.O_RDWR, 0o600))
    return True


def _dialect() -> OverlayWhiteouts:
    return OverlayWhiteouts(attribute_prefix())


def _holds(check: Callable[[Stage], bool], stage: Stage) -> bool:
    try:
        return check(stage)
    except OSError:
        return False


_CHECKS: Final[dict[Callable[[Stage], bool], str]] = {
    _shows_all: "a mount of two lower layers does not show both",
    _writes_whiteouts: "a removal leaves no whiteout (character device 0:0) in the layer's directory",
    _writes_opaque: "a directory that replaces another is not marked opaque",
    _copies_whole_files: "a change of mode does not copy the file whole, although metacopy=off is asked for",
    _does_not_redirect: "a directory of a lower layer can be renamed, although redirect_dir=nofollow is asked for",
    _copies_directories_open: "a directory that is only added to is marked opaque",
}

_ABILITIES: Final[dict[Callable[[Stage], bool], Ability]] = {
    _links_keep_numbers: Ability.LOWER_LINK_NUMBERS,
    _opens_unnamed_files: Ability.TMPFILE,
}


# apart from everybody


def _in_own_namespace(action: Callable[[], None]) -> None:
    """Run `action` in a thread that sees, and makes, mounts of its own."""
    failure: list[BaseException] = []

    def work() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_FS | syscalls.CLONE_NEWNS)
            syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            action()
        except BaseException as error:  # noqa: BLE001  # raised again below, in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=work, name="lamina-overlay-trial")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]

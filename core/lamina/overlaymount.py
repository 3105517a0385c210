"""Mounting overlay: many layers, long names, and a page that is too small for them.

The kernel takes layers in two ways. The new one (fsopen and `lowerdir+`, Linux 6.5) has no limit but its own 500
layers, keeps names readable in mountinfo and costs a system call a layer. The old one, mount(2), takes all options in
one page (4,095 bytes); with names relative to the layers' common directory that holds some 500 short ones and is about
twice as fast at that depth. So: few layers go the new way, many the old one if they fit, and what one refuses
for want of a feature the other tries.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence

import attrs

from lamina import syscalls
from lamina.mountinfo import mounted_with_upper
from lamina.mountoptions import attributes_of, file_system_options, flags_of

MANY = 24  # from here on one mount(2) beats a system call for each layer
_LONGEST_STRING = 255  # fsconfig(2) takes no longer value
_SPECIAL = re.compile(rb"[\\:,]")

Place = str | os.PathLike[str]


def overlay_options(
    lowers: Sequence[Place], upper: Place | None = None, work: Place | None = None, extra: Sequence[str] = ()
) -> tuple[str, ...]:
    """Options of an overlay mount, the nearest lower first, names escaped as mount(8) wants them."""
    places = [b"lowerdir=" + _listed(os.fsencode("\0".join([os.fspath(lower) for lower in lowers])))]
    if upper is not None and work is not None:
        places += [b"upperdir=" + _listed(os.fsencode(upper)), b"workdir=" + _listed(os.fsencode(work))]
    return (*map(os.fsdecode, places), *extra)


def _listed(names: bytes) -> bytes:
    """Names that were separated by NUL, now escaped and separated by colons. All at once: there may be 500."""
    return _SPECIAL.sub(rb"\\\g<0>", names).replace(b"\0", b":")


@attrs.frozen
class Overlay:
    """An overlay mount's options, taken apart: names as bytes, without escapes."""

    lowers: tuple[bytes, ...]
    upper: bytes | None
    work: bytes | None
    others: tuple[str, ...]
    attributes: int  # MOUNT_ATTR_
    flags: int  # the same as MS_


def parse_options(options: Sequence[str]) -> Overlay:
    """The inverse of `overlay_options`."""
    lowers: tuple[bytes, ...] = ()
    upper = work = None
    others = []
    for option in file_system_options(options):
        key, _, value = option.partition("=")
        if key == "lowerdir":
            lowers = tuple(_split(os.fsencode(value)))
        elif key == "upperdir":
            upper = b"".join(_split(os.fsencode(value), separator=None))
        elif key == "workdir":
            work = b"".join(_split(os.fsencode(value), separator=None))
        else:
            others.append(option)
    return Overlay(lowers, upper, work, tuple(others), attributes_of(options), flags_of(options))


def _split(value: bytes, separator: bytes | None = b":") -> Iterator[bytes]:
    if b"\\" not in value:
        yield from value.split(separator) if separator else (value,)
        return
    part = bytearray()
    letters = iter(value[i : i + 1] for i in range(len(value)))
    for letter in letters:
        if letter == b"\\":
            part += next(letters, b"")
        elif letter == separator:
            yield bytes(part)
            part.clear()
        else:
            part += letter
    yield bytes(part)


def mount_overlay(options: Sequence[str], target: bytes) -> None:
    """Mount an overlay on `target`; `OSError` says what the kernel did not like.

    A writable layer that is mounted already is EBUSY: two mounts that write to one directory corrupt it, and with
    `index=off` the kernel only mutters in its log. A mount that this mount namespace does not show is not noticed.
    """
    overlay = parse_options(options)
    if overlay.upper is not None and (other := mounted_with_upper(overlay.upper)) is not None:
        raise OSError(errno.EBUSY, f"this writable layer is mounted at {os.fsdecode(other)} already; bind that one")
    if not has_lowerdir_plus():
        _mount_in_one_call(overlay, _relative_page(overlay), target)
        return
    if len(overlay.lowers) >= MANY and (page := _relative_page(overlay)) is not None:
        with contextlib.suppress(OSError):  # mount(2) has no words: ask again in the way that has
            _mount_relative(overlay, page, target)
            return
    _mount_by_pieces(overlay, target)


@functools.cache
def has_lowerdir_plus() -> bool:
    """Whether this kernel takes overlay's layers one by one (Linux 6.5 and later)."""
    try:
        context = syscalls.fsopen("overlay")
    except OSError:
        return False
    try:
        # before, the context took whatever it was given, and said no only when the mount was made
        return not _takes(context, "no-such-key") and _takes(context, "lowerdir+")
    finally:
        os.close(context)


def _takes(context: int, key: str) -> bool:
    try:
        syscalls.fsconfig_string(context, key, b"/")
    except OSError:
        return False
    return True


# the new way


def _mount_by_pieces(overlay: Overlay, target: bytes) -> None:
    context = syscalls.fsopen("overlay")
    try:
        syscalls.fsconfig_string(context, "source", b"overlay")
        for lower in overlay.lowers:
            _set_place(context, "lowerdir+", lower)
        if overlay.upper is not None and overlay.work is not None:
            _set_place(context, "upperdir", overlay.upper)
            _set_place(context, "workdir", overlay.work)
        for option in overlay.others:
            _set_option(context, option)
        syscalls.fsconfig_create(context)
        mount = syscalls.fsmount(context, overlay.attributes)
    finally:
        os.close(context)
    try:
        syscalls.move_mount(mount, target)
    finally:
        os.close(mount)  # while it is open, unmounting would be EBUSY


def _set_place(context: int, key: str, path: bytes) -> None:
    if len(path) <= _LONGEST_STRING:
        # upperdir and workdir are still parsed with escapes; lowerdir+ is taken as it stands
        syscalls.fsconfig_string(context, key, path if key == "lowerdir+" else path.replace(b"\\", b"\\\\"))
        return
    with syscalls.opened(path, os.O_PATH | os.O_DIRECTORY) as place:
        syscalls.fsconfig_descriptor(context, key, place)


def _set_option(context: int, option: str) -> None:
    key, equals, value = option.partition("=")
    if equals:
        syscalls.fsconfig_string(context, key, os.fsencode(value))
    else:
        syscalls.fsconfig_flag(context, key)


# the old way


def _mount_in_one_call(overlay: Overlay, page: tuple[bytes, bytes] | None, target: bytes) -> None:
    if page is None:
        _mount_by_numbers(overlay, target)
    else:
        _mount_relative(overlay, page, target)


def _relative_page(overlay: Overlay) -> tuple[bytes, bytes] | None:
    """The lower layers' common directory and all options, the lower ones relative to it, if they fit into a page.

    The writable layer keeps its whole name, so that mountinfo tells which one it is.
    """
    first, last = min(overlay.lowers), max(overlay.lowers)  # what these two share, all share
    if not (first.startswith(b"/") and last.startswith(b"/")):
        return None
    common = os.path.commonpath((first, last))
    names = [lower[len(common.rstrip(b"/")) + 1 :] for lower in overlay.lowers]
    if b"" in names:
        return None  # one of the layers lies around the others
    page = _page(overlay, names)
    return (common, page) if len(page) < os.sysconf("SC_PAGE_SIZE") else None


def _page(overlay: Overlay, lowers: Sequence[bytes]) -> bytes:
    """All options in the form of mount(2), with these names for the lower layers."""
    words = [b"lowerdir=" + _listed(b"\0".join(lowers))]
    if overlay.upper is not None and overlay.work is not None:
        words += [b"upperdir=" + _listed(overlay.upper), b"workdir=" + _listed(overlay.work)]
    return b",".join([*words, *(os.fsencode(option) for option in overlay.others)])


def _mount_relative(overlay: Overlay, page: tuple[bytes, bytes], target: bytes) -> None:
    common, data = page
    _in_directory(common, lambda: syscalls.mount(b"overlay", target, "overlay", overlay.flags, data))


def _mount_by_numbers(overlay: Overlay, target: bytes) -> None:
    """Name every lower layer by the number of an open descriptor: five bytes each, whatever its path."""
    numbers: list[int] = []
    try:
        for lower in overlay.lowers:
            numbers.append(os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))  # noqa: PERF401  # closed below
        data = _page(overlay, [b"%d" % number for number in numbers])
        _in_directory(b"/proc/self/fd", lambda: syscalls.mount(b"overlay", target, "overlay", overlay.flags, data))
    finally:
        for number in numbers:
            os.close(number)


def _in_directory(directory: bytes, action: Callable[[], None]) -> None:
    """Run `action` in a thread whose working directory is its own, so that the process's never changes."""
    failure: list[BaseException] = []

    def work() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_FS)
            os.chdir(directory)
            action()
        except BaseException as error:  # noqa: BLE001  # raised again below, in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=work, name="lamina-mount")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def is_too_deep(error: OSError) -> bool:
    """Whether the kernel refused because of its limit of 500 layers."""
    return error.errno == errno.EINVAL and "too many lower" in str(error)

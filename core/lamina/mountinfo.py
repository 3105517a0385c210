"""What is mounted where, as the kernel tells it."""

from __future__ import annotations

import os
import re
from typing import Final

import attrs

_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


@attrs.frozen
class MountPoint:
    """One line of /proc/self/mountinfo (proc(5)); names are raw bytes."""

    id: int
    parent: int
    device: tuple[int, int]
    root: bytes
    target: bytes
    options: frozenset[bytes]
    type: bytes
    source: bytes
    super_options: bytes


def mountinfo() -> tuple[MountPoint, ...]:
    """Every mount of this mount namespace, in the kernel's order."""
    return tuple(_parse(line) for line in read_table().splitlines())


def mounted_targets() -> frozenset[bytes]:
    """Every place on which something is mounted: `mountinfo` for those in a hurry."""
    lines = read_table().split(b"\n")
    return frozenset(_unescape(line.split(b" ", 5)[4]) for line in lines if line)


def read_table() -> bytes:
    """The table as it stands, line by line in the order of proc(5)."""
    descriptor = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts)


def _parse(line: bytes) -> MountPoint:
    first, _, second = line.partition(b" - ")
    number, parent, device, root, target, options = first.split(b" ")[:6]
    kind, source, super_options = [*second.split(b" "), b""][:3]
    major, minor = device.split(b":")
    return MountPoint(
        id=int(number),
        parent=int(parent),
        device=(int(major), int(minor)),
        root=_unescape(root),
        target=_unescape(target),
        options=frozenset(options.split(b",")),
        type=kind,
        source=_unescape(source),
        super_options=super_options,
    )


def _unescape(name: bytes) -> bytes:
    """Undo the octal escapes that the kernel writes for space, tab, newline, backslash and some others."""
    return _OCTAL.sub(lambda found: bytes((int(found[1], 8),)), name) if b"\\" in name else name


def mounted_with_upper(upper: bytes) -> bytes | None:
    """Where an overlay that writes to the directory `upper` is mounted already, if it is known by this name."""
    for line in read_table().splitlines():
        if b",upperdir=" in line and upper == _upper_of(line):
            return _unescape(line.split(b" ", 5)[4])
    return None


def _upper_of(line: bytes) -> bytes:
    name = next(option for option in line.split(b",") if option.startswith(b"upperdir="))
    # mount(2) was given the name with backslashes before colons and commas, fsconfig(2) without; both are shown so
    return re.sub(rb"\\(.)", rb"\1", _unescape(name.removeprefix(b"upperdir=")), flags=re.DOTALL)

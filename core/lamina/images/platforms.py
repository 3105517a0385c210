"""For which machine an image is: choosing among several."""

from __future__ import annotations

import os
from collections.abc import Iterable

from lamina.errors import BadRequest
from lamina.images.manifest import Descriptor, Platform

# what uname says, and what Go calls it, with the variant that Go leaves out
_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "riscv64": ("riscv64", ""),
    "s390x": ("s390x", ""),
    "loongarch64": ("loong64", ""),
}
_IMPLIED = {"arm64": "v8", "arm": "v7", "amd64": "v1"}  # what an architecture means when no variant is given
_ARM_ORDER = ("v8", "v7", "v6", "v5")


def here() -> Platform:
    """This machine."""
    machine = os.uname().machine
    return Platform("linux", *_MACHINES.get(machine, (machine, "")))


def parse_platform(text: str | None) -> Platform:
    """`os/arch[/variant]` or `arch`; None is this machine."""
    if text is None:
        return here()
    parts = text.lower().split("/")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise BadRequest(f"{text!r} is not a platform (linux/arm64/v8)")
    if len(parts) == 1:
        parts = ["linux", *parts]
    system, machine, *variant = parts
    architecture, implied = _MACHINES.get(machine, (machine, ""))
    return Platform(system, architecture, variant[0] if variant else implied)


def choose(entries: Iterable[Descriptor], wanted: str | None) -> tuple[Descriptor, ...]:
    """Those that fit the platform, the best first. One that names none fits any; what is no image fits none."""
    platform = parse_platform(wanted)
    ranked = [(rank, place, entry) for place, entry in enumerate(entries) if (rank := _rank(entry, platform)) >= 0]
    return tuple(entry for _, _, entry in sorted(ranked, key=lambda each: each[:2]))


def fits(has: str, wanted: str | None) -> bool:
    """Whether an image for the one platform is one for the other; one that names none fits any."""
    return not has or _rank_platform(parse_platform(has), parse_platform(wanted)) >= 0


def _rank(entry: Descriptor, wanted: Platform) -> int:
    """0 is best, -1 does not fit."""
    has = entry.platform
    if "vnd.docker.reference.type" in entry.annotations:
        return -1  # an attestation, about an image
    if has is None or not has.os:
        return 9
    return _rank_platform(has, wanted)


def _rank_platform(has: Platform, wanted: Platform) -> int:
    if (has.os, has.architecture) != (wanted.os, wanted.architecture):
        return -1
    return _rank_variant(has.variant, wanted)


def _rank_variant(has: str, wanted: Platform) -> int:
    implied = _IMPLIED.get(wanted.architecture, "")
    ours, theirs = wanted.variant or implied, has or implied
    if ours == theirs:
        return 0
    if wanted.architecture == "arm" and ours in _ARM_ORDER and theirs in _ARM_ORDER:
        older = _ARM_ORDER.index(theirs) - _ARM_ORDER.index(ours)
        return older if older > 0 else -1  # a v7 runs what was made for v6, not the reverse
    if wanted.architecture == "amd64" and ours[1:].isdigit() and theirs[1:].isdigit():
        older = int(ours[1:]) - int(theirs[1:])
        return older if older > 0 else -1
    return -1

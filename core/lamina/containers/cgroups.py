"""What the kernel lets us limit and freeze here: cgroups of the first or second version, both, or none."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Final

import attrs

from lamina.containers.options import Options
from lamina.mountinfo import mountinfo

_ROOT: Final = b"/sys/fs/cgroup"


@attrs.frozen
class Cgroups:
    """How this machine has them, as far as we may use them."""

    version: int  # 0: none that we could make groups in
    controllers: frozenset[str]
    hybrid: Path | None = None  # where the second version lies beside the first

    @property
    def freezer(self) -> bool:
        """Whether a container can be paused."""
        return self.version == 2 or "freezer" in self.controllers  # v2 has it built in

    def unlimited(self, options: Options) -> tuple[str, ...]:
        """What was to be limited and cannot be; a sentence for each."""
        wanted = (("memory", options.memory), ("cpu", options.cpus), ("pids", options.pids > 0))
        why = "this kernel has no such controller" if self.version else "there are no cgroups that we may use"
        return tuple(
            f"{name} is not limited: {why}" for name, limit in wanted if limit and name not in self.controllers
        )


@functools.cache
def cgroups() -> Cgroups:
    """Look, once."""
    points = [point for point in mountinfo() if point.target == _ROOT or point.target.startswith(_ROOT + b"/")]
    first = {
        os.fsdecode(word): point.target
        for point in points
        if point.type == b"cgroup" and os.access(point.target, os.W_OK)
        for word in point.super_options.split(b",")
        if word not in {b"rw", b"ro", b"xattr"} and not word.startswith(b"name=")
    }
    second = next((point.target for point in points if point.type == b"cgroup2"), None)
    if first:
        return Cgroups(1, frozenset(first), Path(os.fsdecode(second)) if second else None)
    if second is not None and os.access(second, os.W_OK):
        return Cgroups(2, frozenset((Path(os.fsdecode(second)) / "cgroup.controllers").read_text().split()))
    return Cgroups(0, frozenset())

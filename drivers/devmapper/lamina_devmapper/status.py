"""What the kernel tells of a pool, read."""

from __future__ import annotations

import attrs

from lamina.errors import StoreBroken


@attrs.frozen
class PoolStatus:
    """What the kernel tells of a pool (Documentation/admin-guide/device-mapper/thin-provisioning.rst)."""

    transaction: int
    metadata: tuple[int, int]  # blocks used, of all
    data: tuple[int, int]
    mode: str
    needs_check: bool

    @property
    def free_percent(self) -> dict[str, float]:
        """What is left, in percent."""
        return {name: 100 - 100 * used / max(total, 1) for name, (used, total) in self._parts.items()}

    @property
    def _parts(self) -> dict[str, tuple[int, int]]:
        return {"data": self.data, "metadata": self.metadata}

    def __str__(self) -> str:
        parts = ", ".join(f"{100 - free:.0f}% of its {name}" for name, free in self.free_percent.items())
        return f"the pool has used {parts}; mode {self.mode}{', needs a check' if self.needs_check else ''}"


def parse_status(told: str) -> PoolStatus:
    """The status line of a thin pool; StoreBroken if the kernel has given the pool up."""
    words = told.split()
    if not words or words[0] in {"Fail", "Error"}:
        raise StoreBroken("the pool has failed; unmount everything, run `thin_check` on its metadata, and start again")
    used, total = zip(*(map(int, word.split("/")) for word in words[1:3]), strict=True)
    return PoolStatus(int(words[0]), (used[0], total[0]), (used[1], total[1]), words[4], "needs_check" in words)

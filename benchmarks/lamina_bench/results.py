"""What was measured, and what it says: medians of ratios, taken round by round."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import attrs

from lamina_bench.measuring import Cost


@attrs.frozen
class Comparison:
    """How much of what the other one costs we cost: 0.5 means that we need half."""

    work: str
    other: str
    ours: str
    wall: float
    cpu: float
    memory: float
    others_seconds: float  # medians, to give the ratios a scale
    our_seconds: float


class Results:
    """Costs by work and engine; one of each a round."""

    def __init__(self) -> None:
        """Empty."""
        self._costs: dict[str, dict[str, list[Cost]]] = defaultdict(lambda: defaultdict(list))

    def add(self, work: str, engine: str, cost: Cost) -> None:
        """Note one measurement. Those of one round have to have the same place in their lists."""
        self._costs[work][engine].append(cost)

    def works(self) -> Iterator[str]:
        """In the order in which they were first measured."""
        return iter(self._costs)

    def engines(self, work: str) -> tuple[str, ...]:
        """Who has done it."""
        return tuple(self._costs[work])

    def compare(self, work: str, ours: str, other: str) -> Comparison | None:
        """One to the other, round by round, then the median; None unless both have done it."""
        mine, theirs = self._costs[work].get(ours), self._costs[work].get(other)
        if not mine or not theirs:
            return None
        pairs = list(zip(mine, theirs, strict=False))
        return Comparison(
            work,
            other,
            ours,
            statistics.median(one.wall / two.wall for one, two in pairs),
            statistics.median(one.cpu / max(two.cpu, 1e-6) for one, two in pairs),
            statistics.median(one.memory / two.memory for one, two in pairs),
            statistics.median(cost.wall for cost in theirs),
            statistics.median(cost.wall for cost in mine),
        )

    def ratios(self, engine: str, work: str, other: str) -> tuple[float, float]:
        """One engine's work to another work of its own: time and CPU."""
        pairs = list(zip(self._costs[work][engine], self._costs[other][engine], strict=False))
        return (
            statistics.median(one.wall / two.wall for one, two in pairs),
            statistics.median(one.cpu / max(two.cpu, 1e-6) for one, two in pairs),
        )

    def plain(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        return {
            work: {engine: [attrs.asdict(cost) for cost in costs] for engine, costs in engines.items()}
            for work, engines in self._costs.items()
        }

"""What Prometheus can ask: calls, errors, latency, snapshots and bytes by kind; all by driver."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lamina.errors import BadRequest, LaminaError
from lamina.layer import Kind

if TYPE_CHECKING:
    from lamina.snapshot import Snapshot
    from lamina.snapshotter import Snapshotter

_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 20, 60)
_OLD: Final = 60.0  # seconds after which the size of an active snapshot is measured again


class Metrics:
    """The numbers of one service."""

    def __init__(self, snapshots: Snapshotter) -> None:
        """All at zero."""
        self.registry = CollectorRegistry()
        self._driver = snapshots.driver.name
        self._calls = Counter(
            "lamina_calls", "Calls answered, by their gRPC code.", ("driver", "call", "code"), registry=self.registry
        )
        self._seconds = Histogram(
            "lamina_call_seconds",
            "How long calls took.",
            ("driver", "call"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.registry.register(Stock(snapshots))

    def note(self, call: str, code: str, seconds: float) -> None:
        """Count a call."""
        self._calls.labels(self._driver, call, code).inc()
        self._seconds.labels(self._driver, call).observe(seconds)

    @contextlib.contextmanager
    def served(self, host: str, port: int) -> Iterator[int]:
        """They can be had by HTTP for the length of a `with`; the port, which was chosen now if 0 was given."""
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise BadRequest(f"metrics: cannot listen at {host}:{port}: {error.strerror}") from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class Stock(Collector):
    """What is stored. Sizes of committed snapshots are known; those of active ones are measured once a minute."""

    def __init__(self, snapshots: Snapshotter) -> None:
        """Nothing is measured yet."""
        self._snapshots = snapshots
        self._guard = threading.Lock()
        self._measured: dict[str, tuple[float, int]] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Count now."""
        numbers, sizes = Tally[Kind](), Tally[Kind]()
        with self._guard:
            found = list(self._snapshots.list())
            self._measured = {one.name: self._measured[one.name] for one in found if one.name in self._measured}
            for one in found:
                numbers[one.kind] += 1
                sizes[one.kind] += self._size(one)
        yield self._gauge("lamina_snapshots", "Snapshots, by kind.", numbers)
        yield self._gauge("lamina_bytes", "Bytes that snapshots occupy without their parents, by kind.", sizes)

    def _size(self, one: Snapshot) -> int:
        if one.usage is not None:
            return one.usage.size
        then, size = self._measured.get(one.name, (-_OLD, 0))
        if time.monotonic() - then >= _OLD:
            with contextlib.suppress(LaminaError):  # it was removed meanwhile
                size = self._snapshots.usage(one.name).size
            self._measured[one.name] = (time.monotonic(), size)
        return size

    def _gauge(self, name: str, about: str, values: Tally[Kind]) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, about, labels=("driver", "kind"))
        for kind in Kind:
            family.add_metric((self._snapshots.driver.name, kind.value), values[kind])
        return family

"""The standard health service: whether the driver can be used, and the database answers, when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
import grpc
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from lamina.containerd.service import NAME
from lamina.errors import NotFound

if TYPE_CHECKING:
    from lamina.snapshotter import Snapshotter

_SERVICES: Final = ("", NAME)


@attrs.frozen
class Health:
    """Answers `Check` by a look, and tells those who `Watch` of what it found."""

    snapshots: Snapshotter
    _servicer: Any = attrs.field(factory=HealthServicer, init=False)

    def add_to(self, server: grpc.Server) -> None:
        """The server answers for its health."""
        plain = self._servicer.Check

        def check(request: Any, context: Any) -> Any:
            self.look()
            return plain(request, context)

        self._servicer.Check = check
        self.look()
        add_HealthServicer_to_server(self._servicer, server)

    def look(self) -> None:
        """What is told is true now."""
        status = HealthCheckResponse.SERVING if self._sound() else HealthCheckResponse.NOT_SERVING
        for service in _SERVICES:
            self._servicer.set(service, status)

    def leave(self) -> None:
        """From now on we are not to be used."""
        self._servicer.enter_graceful_shutdown()

    def _sound(self) -> bool:
        try:
            self.snapshots.stat("\0")  # no snapshot is called so, but the database has to say it
        except NotFound:
            return self.snapshots.health().ok
        except Exception:  # noqa: BLE001  # whatever it is, we are not well
            return False
        return False

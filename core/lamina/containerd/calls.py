"""How a call reaches the service: its messages, its code if it fails, and what is counted of it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn, Protocol

import attrs
import grpc
from google.protobuf.message import Message

from lamina.containerd.api import snapshots_pb2 as api
from lamina.containerd.service import NAME, Service
from lamina.containerd.status import code_of, message_of
from lamina.errors import LaminaError

_REQUESTS: Final[dict[str, type[Message]]] = {
    "Prepare": api.PrepareSnapshotRequest,
    "View": api.ViewSnapshotRequest,
    "Mounts": api.MountsRequest,
    "Commit": api.CommitSnapshotRequest,
    "Remove": api.RemoveSnapshotRequest,
    "Stat": api.StatSnapshotRequest,
    "Update": api.UpdateSnapshotRequest,
    "List": api.ListSnapshotsRequest,
    "Usage": api.UsageRequest,
    "Cleanup": api.CleanupRequest,
}
_STREAMS: Final = "List"
# what an operator has to hear of, beside the caller
_OUR_FAULT: Final = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.RESOURCE_EXHAUSTED}
)


class Counter(Protocol):
    """Who counts calls."""

    def note(self, call: str, code: str, seconds: float) -> None:
        """A call of that name ended with that code after so many seconds."""


@attrs.frozen
class Desk:
    """Where calls come in."""

    service: Service
    counter: Counter
    tell: Callable[[str], object]  # a line for the operator

    def handlers(self) -> grpc.GenericRpcHandler:
        """All calls, as grpc wants them."""
        table = {name: self._handler(name, request) for name, request in _REQUESTS.items()}
        return grpc.method_handlers_generic_handler(NAME, table)

    def _handler(self, name: str, request: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
        verb: Callable[[Message], Any] = getattr(self.service, name.lower())
        kind = grpc.unary_stream_rpc_method_handler if name == _STREAMS else grpc.unary_unary_rpc_method_handler
        answer = self._streamed(name, verb) if name == _STREAMS else self._single(name, verb)
        return kind(answer, request_deserializer=request.FromString, response_serializer=_serialized)

    def _single(self, name: str, verb: Callable[[Message], Any]) -> Callable[..., Any]:
        def answer(request: Message, context: grpc.ServicerContext) -> Any:
            started = time.perf_counter()
            try:
                given = verb(request)
            except Exception as error:  # noqa: BLE001  # whatever it is, the caller has to hear of it
                self._fail(name, error, context, started)
            self._count(name, grpc.StatusCode.OK, started)
            return given

        return answer

    def _streamed(self, name: str, verb: Callable[[Message], Any]) -> Callable[..., Iterator[Any]]:
        def answer(request: Message, context: grpc.ServicerContext) -> Iterator[Any]:
            started = time.perf_counter()
            try:
                yield from verb(request)
            except Exception as error:  # noqa: BLE001
                self._fail(name, error, context, started)
            self._count(name, grpc.StatusCode.OK, started)

        return answer

    def _fail(self, name: str, error: Exception, context: grpc.ServicerContext, started: float) -> NoReturn:
        code = code_of(error)
        self._count(name, code, started)
        if code in _OUR_FAULT:
            self.tell(f"{name}: {message_of(error)}")
        if not isinstance(error, LaminaError):
            self.tell("".join(traceback.format_exception(error)))
        context.abort(code, message_of(error))

    def _count(self, name: str, code: grpc.StatusCode, started: float) -> None:
        self.counter.note(name, code.name, time.perf_counter() - started)


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()

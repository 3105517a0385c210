"""A real containerd with a root, a state and a socket of its own, and our service beside it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from lamina.containerd.api import snapshots_pb2 as api
from lamina.containerd.service import NAME

_PATIENCE: Final = 60.0
_CONFIG: Final = """\
version = 2
root = "{room}/root"
state = "{room}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
address = "{room}/c.sock"
[ttrpc]
address = "{room}/c.ttrpc"
[proxy_plugins.lamina]
type = "snapshot"
address = "{room}/lamina.sock"
"""
ANSWERS: Final[dict[str, tuple[type[Message], type[Message]]]] = {
    "Prepare": (api.PrepareSnapshotRequest, api.PrepareSnapshotResponse),
    "View": (api.ViewSnapshotRequest, api.ViewSnapshotResponse),
    "Mounts": (api.MountsRequest, api.MountsResponse),
    "Commit": (api.CommitSnapshotRequest, Empty),
    "Remove": (api.RemoveSnapshotRequest, Empty),
    "Stat": (api.StatSnapshotRequest, api.StatSnapshotResponse),
    "Update": (api.UpdateSnapshotRequest, api.UpdateSnapshotResponse),
    "Usage": (api.UsageRequest, api.UsageResponse),
    "Cleanup": (api.CleanupRequest, Empty),
}


def until(holds: Callable[[], Any], what: str) -> Any:
    """Ask again and again until it holds; what it gave then."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.01)  # there is nothing to wait on
    raise AssertionError(f"waited in vain until {what}")


class Client:
    """Calls through a socket, as containerd's own client makes them."""

    def __init__(self, address: Path) -> None:
        self.channel = grpc.insecure_channel(f"unix:{address}")

    def __call__(self, call: str, **fields: Any) -> Any:
        request, answer = ANSWERS[call]
        method = self.channel.unary_unary(
            f"/{NAME}/{call}", request_serializer=request.SerializeToString, response_deserializer=answer.FromString
        )
        return method(request(**fields), timeout=_PATIENCE)

    def list(self, *filters: str) -> list[Any]:
        """All snapshots, in one list."""
        method = self.channel.unary_stream(
            f"/{NAME}/List",
            request_serializer=api.ListSnapshotsRequest.SerializeToString,
            response_deserializer=api.ListSnapshotsResponse.FromString,
        )
        answers = method(api.ListSnapshotsRequest(filters=filters), timeout=_PATIENCE)
        return [one for answer in answers for one in answer.info]


@attrs.define
class Lane:
    """Both servers; each can be killed and started again."""

    room: Path
    driver: str
    service: subprocess.Popen[bytes] | None = None
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.room / "lamina.sock"

    def serve(self, *options: str) -> None:
        argv: list[str | Path] = [
            sys.executable,
            "-m",
            "lamina.cli.main",
            "--driver",
            self.driver,
            "--root",
            self.room / "store",
        ]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}
        self.service = self._start(
            [*argv, "serve", "--address", self.socket, *options], environ | {"LAMINA_CONFIG": "/dev/null"}
        )
        until(self._serves, "the service answers")

    def _serves(self) -> bool:
        assert self.service is not None
        assert self.service.poll() is None, (self.room / "log").read_text()
        return self.socket.exists() and self._answers()

    def _answers(self) -> bool:
        with self.client() as ask, contextlib.suppress(grpc.RpcError):
            ask.list()
            return True
        return False

    def contain(self) -> None:
        (self.room / "config.toml").write_text(_CONFIG.format(room=self.room))
        self.daemon = self._start(["containerd", "--config", self.room / "config.toml"], dict(os.environ))
        until(lambda: self.tries("version").returncode == 0, "containerd answers")

    def _start(self, argv: Sequence[str | Path], environ: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.room / "log").open("ab") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        ask = Client(self.socket)
        try:
            yield ask
        finally:
            ask.channel.close()

    def tries(self, *words: str | Path, namespace: str | None = None) -> subprocess.CompletedProcess[bytes]:
        # the namespace is a part of the path of cgroups, which are the whole machine's
        where: list[str | Path] = [
            "--address",
            self.room / "c.sock",
            "--namespace",
            namespace or f"lamina-{os.getpid()}",
        ]
        return subprocess.run(
            ["ctr", *where, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=120
        )

    def octets(self, *words: str | Path, namespace: str | None = None) -> bytes:
        told = self.tries(*words, namespace=namespace)
        assert told.returncode == 0, f"{words}: {told.stderr!r}\n{(self.room / 'log').read_text()[-3000:]}"
        return told.stdout

    def ctr(self, *words: str | Path, namespace: str | None = None) -> str:
        return self.octets(*words, namespace=namespace).decode()

    def kill(self, server: subprocess.Popen[bytes] | None) -> None:
        assert server is not None
        server.kill()
        server.wait()

    def end(self) -> None:
        """Nothing of either is left: servers, shims, mounts."""
        for server in (self.daemon, self.service):
            if server is not None and server.poll() is None:
                server.send_signal(signal.SIGTERM)
                server.wait(_PATIENCE)
        self._end_shims()
        for target in reversed(self.mounted()):
            subprocess.run(["umount", "--lazy", target], check=True)

    def _end_shims(self) -> None:
        ours = os.fsencode(self.room)
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
                if b"containerd-shim" in line and ours in line:
                    os.kill(int(entry.name), signal.SIGKILL)

    def mounted(self) -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        return [target for line in lines if (target := line.split()[4]).startswith(f"{self.room}/")]

    def stored(self) -> set[str]:
        """What lies in the driver's home."""
        return {path.name for path in (self.room / "store" / self.driver / "layers").iterdir() if path.name.isdecimal()}

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
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grounds import Ground

from lamina.containerd.api import snapshots_pb2 as api
from lamina.containerd.service import NAME

_PATIENCE: Final = 60.0
_CONFIG: Final = """\
version = 2
root = "{room}/root"
state = "{room}/state"
disabled_plugins = [
  {without} "io.containerd.internal.v1.opt",
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


def refused(code: str, call: Callable[..., Any], *words: Any, **fields: Any) -> str:
    """The call fails with this code; what is told beside it."""
    with pytest.raises(grpc.RpcError) as told:
        call(*words, **fields)
    assert told.value.code().name == code
    return str(told.value.details())


class Client:
    """Calls through a socket, as containerd's own client makes them: of us, or of a containerd and its snapshotter."""

    def __init__(self, address: Path, namespace: str = "", snapshotter: str = "") -> None:
        self._metadata = (("containerd-namespace", namespace),) if namespace else ()
        self._whose = {"snapshotter": snapshotter} if snapshotter else {}
        self.channel = grpc.insecure_channel(f"unix:{address}")
        self._calls = {
            call: self.channel.unary_unary(
                f"/{NAME}/{call}",
                request_serializer=request.SerializeToString,
                response_deserializer=answer.FromString,
            )
            for call, (request, answer) in ANSWERS.items()
        }

    def __call__(self, call: str, **fields: Any) -> Any:
        request, _ = ANSWERS[call]
        return self._calls[call](request(**self._whose, **fields), timeout=_PATIENCE, metadata=self._metadata)

    def close(self) -> None:
        self.channel.close()

    def walk(self, *filters: str) -> Iterator[Any]:
        """All snapshots, one after the other while they come."""
        method = self.channel.unary_stream(
            f"/{NAME}/List",
            request_serializer=api.ListSnapshotsRequest.SerializeToString,
            response_deserializer=api.ListSnapshotsResponse.FromString,
        )
        for answer in method(api.ListSnapshotsRequest(filters=filters), timeout=_PATIENCE):
            yield from answer.info

    def list(self, *filters: str) -> list[Any]:
        """All snapshots, in one list."""
        return [*self.walk(*filters)]


@attrs.define
class Lane:
    """Both servers; each can be killed and started again."""

    room: Path
    ground: Ground
    service: subprocess.Popen[bytes] | None = None
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def driver(self) -> str:
        return self.ground.driver

    @property
    def socket(self) -> Path:
        return self.room / "lamina.sock"

    @property
    def namespace(self) -> str:
        """containerd's; part of the paths of cgroups and of runc's notes, which are the whole machine's."""
        return f"lamina-{os.getpid()}-{self.room.name}"

    @property
    def store(self) -> Path:
        return self.ground.place / f"store-{self.room.name}"

    def lamina(self, *words: str | Path) -> list[str | Path]:
        """The words that run lamina on this store."""
        return [sys.executable, "-m", "lamina.cli.main", "--driver", self.driver, "--root", self.store, *words]

    @property
    def environ(self) -> dict[str, str]:
        config = self.room / "lamina.toml"
        config.write_text(self.ground.config(self.store.name))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}
        return clean | {"LAMINA_CONFIG": str(config)}

    def serve(self, *options: str) -> None:
        self.service = self._start(self.lamina("serve", "--address", self.socket, *options), self.environ)
        until(self._serves, "the service answers")

    def activate(self) -> None:
        """systemd listens, and starts the service when somebody first connects."""
        known = [f"--setenv={name}" for name in self.environ]
        argv = ["systemd-socket-activate", *known, "--listen", self.socket, *self.lamina("serve")]
        self.service = self._start(argv, self.environ)
        until(self.socket.exists, "systemd listens")

    def _serves(self) -> bool:
        assert self.service is not None
        assert self.service.poll() is None, (self.room / "log").read_text()
        return self.socket.exists() and self._answers()

    def _answers(self) -> bool:
        with self.client() as ask, contextlib.suppress(grpc.RpcError):
            ask.list()
            return True
        return False

    def contain(self, kubernetes: str = "") -> None:
        """containerd runs, with Kubernetes' plugin if that is told anything."""
        plugin = "" if kubernetes else '"io.containerd.grpc.v1.cri",'
        config = _CONFIG.format(room=self.room, without=plugin)
        (self.room / "config.toml").write_text(config + kubernetes.replace("version = 2\n", ""))
        self.daemon = self._start(["containerd", "--config", self.room / "config.toml"], dict(os.environ))
        until(lambda: self.tries("version").returncode == 0, "containerd answers")

    def _start(self, argv: Sequence[str | Path], environ: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.room / "log").open("ab") as log:
            words = self.ground.inside(argv)
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        with contextlib.closing(Client(self.socket)) as ask:
            yield ask

    @contextlib.contextmanager
    def through_containerd(self) -> Iterator[Client]:
        """Who asks containerd, which asks us."""
        with contextlib.closing(Client(self.room / "c.sock", self.namespace, "lamina")) as ask:
            yield ask

    def words(self, *words: str | Path, namespace: str | None = None) -> list[str]:
        """The words that run containerd's client."""
        space = namespace or self.namespace
        return self.ground.inside(["ctr", "--address", self.room / "c.sock", "--namespace", space, *words])

    def tries(self, *words: str | Path, namespace: str | None = None) -> subprocess.CompletedProcess[bytes]:
        argv = self.words(*words, namespace=namespace)
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=120)

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
        """Nothing of either is left: containers, servers, shims, mounts."""
        if self.daemon is not None and self.daemon.poll() is None:
            for box in self.tries("tasks", "ls", "--quiet").stdout.decode().split():  # a test that failed left them
                self.tries("tasks", "rm", "--force", box)
        for server in (self.daemon, self.service):
            if server is not None and server.poll() is None:
                server.send_signal(signal.SIGTERM)
                server.wait(_PATIENCE)
        self._end_shims()
        for target in reversed(self.mounted()):
            subprocess.run(["umount", "--lazy", target], check=True)
        self._sweep()

    def _end_shims(self) -> None:
        ours = os.fsencode(self.room)
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
                if b"containerd-shim" in line and ours in line:
                    os.kill(int(entry.name), signal.SIGKILL)

    def _sweep(self) -> None:
        """What runc keeps for a whole namespace, and nobody removes."""
        kept = [Path("/run/containerd/runc", self.namespace)]
        for pattern in (self.namespace, f"*/{self.namespace}"):
            kept += Path("/sys/fs/cgroup").glob(pattern)
        for directory in kept:
            with contextlib.suppress(OSError):
                directory.rmdir()

    def mounted(self) -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        ours = (f"{self.room}/", f"{self.store}/")
        return [target for line in lines if (target := line.split()[4]).startswith(ours)]

    @property
    def layers(self) -> Path:
        """The driver's home."""
        return self.store / self.driver / "layers"

    def stored(self) -> set[str]:
        """What lies in the driver's home."""
        return {path.name for path in self.layers.iterdir() if path.name.isdecimal()}

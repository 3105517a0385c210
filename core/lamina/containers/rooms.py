"""The directory that a container has besides its layer: what its runtime and its monitor need, its log, its lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from lamina.trees import remove_tree

_HOSTS: Final = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_OF_A_LIFE: Final = ("exit", "oom", "attach", "ctl", "winsz", "pid", "monitor.pid")


@attrs.frozen
class Room:
    """`ROOT/containers/ID`: an OCI bundle, and what else belongs to one container. Nothing in it is an absolute path
    that outlives a life of the container, so the store can be moved.
    """

    path: Path

    @property
    def rootfs(self) -> Path:
        """Where its tree is mounted while it runs."""
        return self.path / "rootfs"

    @property
    def log(self) -> Path:
        """What its processes have written, in CRI's form: time, stream, P or F, text."""
        return self.path / "log"

    def make(self) -> None:
        """It is there."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.rootfs.mkdir(mode=0o755, exist_ok=True)

    def clear(self) -> None:
        """What the last life has left is gone; the log stays."""
        for name in _OF_A_LIFE:
            (self.path / name).unlink(missing_ok=True)

    def forget_process(self) -> None:
        """Its end was seen to: the monitor needs to call nobody."""
        (self.path / "pid").unlink(missing_ok=True)

    def destroy(self) -> None:
        """It is gone. What is mounted in it is not touched: `OSError` (EBUSY)."""
        remove_tree(self.path)

    def write_spec(self, document: Mapping[str, Any]) -> None:
        """The bundle's config.json."""
        (self.path / "config.json").write_text(json.dumps(document), encoding="utf-8")

    def write_files(self, hostname: str, *, network: str) -> dict[str, Path]:
        """Names and addresses as the container sees them; each file by its place in there."""
        host = network == "host"
        texts = {
            "/etc/hostname": f"{hostname}\n",
            "/etc/hosts": _host_file("/etc/hosts", _HOSTS) if host else f"{_HOSTS}127.0.0.1\t{hostname}\n",
            "/etc/resolv.conf": _host_file("/etc/resolv.conf", ""),
        }
        return {place: self._write(os.path.basename(place), text) for place, text in texts.items()}

    def _write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        path.chmod(0o644)
        return path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes the container's state. A dead process holds no lock."""
        self.make()
        with self._open("lock") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def try_locked(self) -> Iterator[bool]:
        """The same without waiting; False if somebody is at it."""
        self.make()
        with self._open("lock") as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Whoever removes the container waits for us to have seen how it ended."""
        self.make()
        with self._open("watchers") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def attended(self) -> Iterator[None]:
        """We see to how it ends; its monitor calls another lamina only if this one dies before."""
        self.make()
        with self._open("attended") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield

    def await_watchers(self) -> None:
        """Return when nobody watches."""
        with self._open("watchers") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[int]:
        descriptor = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def room_of(root: Path, container_id: str) -> Room:
    """The room of a container of the store at `root`; it need not be there."""
    return Room(root / "containers" / container_id)


def _host_file(path: str, otherwise: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return otherwise

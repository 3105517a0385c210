"""What can be set: where to listen, and for whom to count."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from lamina.config import options_of
from lamina.errors import ConfigError

_LONGEST: Final = 107  # bytes of a Unix socket's address, unix(7)
_PLACE: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")


def usual_address(environ: Mapping[str, str] = os.environ) -> Path:
    """For root below /run, for others in the directory that their session has for sockets."""
    if os.geteuid() == 0:
        return Path("/run/lamina/snapshotter.sock")
    return Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}", "lamina/snapshotter.sock")


def _absolute(path: Path) -> Path:
    return path.absolute()


@attrs.frozen
class Settings:
    """The table [containerd]."""

    address: Path = attrs.field(factory=usual_address, converter=_absolute)
    metrics: str | None = attrs.field(default=None)  # HOST:PORT where Prometheus may ask; None: nowhere
    threads: int = attrs.field(default=16)  # calls that are answered at once; the others wait

    @address.validator
    def _short(self, _: object, address: Path) -> None:
        if len(os.fsencode(address)) > _LONGEST:
            raise ConfigError(f"{address}: too long for a socket; choose a path of at most {_LONGEST} bytes")

    @metrics.validator
    def _place(self, _: object, metrics: str | None) -> None:
        if metrics is not None and (not _PLACE.fullmatch(metrics) or int(metrics.rpartition(":")[2]) > 0xFFFF):
            raise ConfigError(f'metrics {metrics!r}: say HOST:PORT, such as "127.0.0.1:9751"')

    @threads.validator
    def _some(self, _: object, threads: int) -> None:
        if threads < 1:
            raise ConfigError(f"threads {threads}: at least one has to answer")

    @property
    def metrics_at(self) -> tuple[str, int] | None:
        """Host and port."""
        found = _PLACE.fullmatch(self.metrics or "")
        return None if found is None else (found["six"] or found["host"], int(found["port"]))


def settings_of(table: Mapping[str, Any], **options: object) -> Settings:
    """What the options say, else the table, else what is usual. ConfigError says what is wrong."""
    asked = {name: value for name, value in options.items() if value is not None}
    settings: Settings = options_of(Settings, {**table, **asked}, "[containerd]")
    return settings

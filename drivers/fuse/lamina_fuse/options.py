"""What a user may set in the table [drivers.fuse]."""

from __future__ import annotations

import os
from typing import Any, Final

import attrs

from lamina.errors import ConfigError

_LEVELS: Final = ("debug", "info", "warning", "error")


@attrs.frozen
class FuseOptions:
    """Options of the fuse driver."""

    # whether users other than the one who mounts may enter; by default if that is root, since containers have others
    allow_other: bool | None = None
    # what is written into <layer>/server.log
    log_level: str = attrs.field(default="warning")
    # compile and use the accelerator where there is a C compiler; without it there is no fallocate
    accelerate: bool = True
    # let the kernel (since 6.9, for root) read and write files without asking us, where nobody can tell the difference
    passthrough: bool = True
    # microseconds that a server stays awake after a request, since the next one often follows at once; 0 to save power
    look_out: int = 50
    # how much the kernel reads ahead, in KiB; set where we may (root), else the kernel's own 128
    read_ahead: int = 1024

    @log_level.validator
    def _known_level(self, _attribute: attrs.Attribute[Any], value: str) -> None:
        if value not in _LEVELS:
            raise ConfigError(f"drivers.fuse.log_level: {value!r} is not one of {', '.join(_LEVELS)}")

    @property
    def of_the_mount(self) -> tuple[str, ...]:
        """What libfuse is told. Devices and setuid programs are root's to give, as on any mount of containers."""
        root = os.geteuid() == 0
        others = root if self.allow_other is None else self.allow_other
        words = ["default_permissions", "fsname=lamina", "subtype=lamina"]
        return (*words, *(("dev", "suid") if root else ()), *(("allow_other",) if others else ()))

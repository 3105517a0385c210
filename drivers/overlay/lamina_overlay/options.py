"""What a user may set in the table [drivers.overlay]."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import attrs

from lamina.errors import ConfigError
from lamina.mountoptions import file_system_options

# each of these would make the directory of changes incomplete, unsafe, or another one than we think
_OURS: Final = frozenset(
    {
        "datadir+",
        "index",
        "lowerdir",
        "lowerdir+",
        "metacopy",
        "nfs_export",
        "redirect_dir",
        "upperdir",
        "userxattr",
        "volatile",
        "workdir",
    }
)


def _words(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


@attrs.frozen
class OverlayOptions:
    """Options of the overlay driver."""

    # skip every flush while a layer is written: fast, and a layer that was active when the machine stopped is lost
    volatile: bool = False
    # added to every mount: words such as nodev or nosuid, and overlay's own such as xino=on
    mount_options: tuple[str, ...] = attrs.field(default=(), converter=_words)

    @mount_options.validator
    def _leave_ours_alone(self, _attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
        for option in value:
            key = option.partition("=")[0]
            if key in _OURS:
                hint = "say volatile = true instead" if key == "volatile" else "the driver sets it itself"
                raise ConfigError(f"drivers.overlay.mount_options: {option!r} is not allowed; {hint}")
            if not option or "," in option:
                raise ConfigError(f"drivers.overlay.mount_options: {option!r} is not one option; list them one by one")

    @property
    def of_the_mount(self) -> tuple[str, ...]:
        """Those words that any mount takes, a bind mount too."""
        return tuple(word for word in self.mount_options if not file_system_options((word,)))

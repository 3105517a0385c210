"""The vfs driver's entry point."""

from __future__ import annotations

from lamina.driver import Driver, hookimpl
from lamina_vfs.driver import VfsDriver


@hookimpl
def lamina_driver() -> type[Driver]:
    """Offer the driver."""
    return VfsDriver

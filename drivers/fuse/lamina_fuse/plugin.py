"""The FUSE driver's entry point."""

from __future__ import annotations

from lamina.driver import Driver, hookimpl


@hookimpl
def lamina_driver() -> type[Driver]:
    """Offer the driver."""
    from lamina_fuse.driver import FuseDriver  # noqa: PLC0415  # listing the drivers should not load each

    return FuseDriver

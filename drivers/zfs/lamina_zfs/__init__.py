"""The zfs driver's entry point."""

from __future__ import annotations

from lamina.driver import Driver, hookimpl


@hookimpl
def lamina_driver() -> type[Driver]:
    """Offer the driver."""
    from lamina_zfs.driver import ZfsDriver  # noqa: PLC0415  # listing the drivers should not load each

    return ZfsDriver

"""The three hooks that plugins may implement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from lamina.driver import Driver

hookspec = pluggy.HookspecMarker("lamina")


@hookspec(firstresult=True)
def lamina_driver() -> type[Driver]:  # type: ignore[empty-body]  # a specification has no body
    """Offer one driver class. Entry point group `lamina.drivers`, loaded by name."""


@hookspec
def lamina_changed(event: Any) -> None:
    """Hear of a change after it was made. Entry point group `lamina.plugins`, loaded whole."""


@hookspec
def lamina_commands(subcommands: Any) -> None:
    """Add commands to the click group `subcommands`. Entry point group `lamina.plugins`, loaded whole."""

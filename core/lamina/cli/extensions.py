"""Commands that plugins bring, through the hook `lamina_commands`."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import click
import pluggy

from lamina import hookspecs
from lamina.cli.output import escape

GROUP = "lamina.plugins"


def add_commands(group: click.Group) -> None:
    """Let every installed plugin add its commands. One that fails is named on stderr; ours keep working."""
    for entry in entry_points(group=GROUP):
        try:
            _ask(entry.load(), group)
        except Exception as error:  # noqa: BLE001  # a stranger's code; whatever it raises must not cost us our commands
            sys.stderr.write(escape(f"lamina: plugin {entry.name}: {str(error) or type(error).__name__}") + "\n")


def _ask(plugin: object, group: click.Group) -> None:
    manager = pluggy.PluginManager("lamina")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.hook.lamina_commands(subcommands=group)

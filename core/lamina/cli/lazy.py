"""Groups of commands that import a command only when somebody asks for it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A group whose commands are places, `module:attribute`, in titled sections; nothing is imported to find one."""

    def __init__(self, *args: Any, sections: Mapping[str, Mapping[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections
        self._places = {name: place for section in sections.values() for name, place in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours in the order of the sections, then those of plugins."""
        return [*self._places, *sorted(set(super().list_commands(ctx)) - set(self._places))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None if there is none."""
        place = self._places.get(cmd_name)
        if place is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101  # our own table
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list for each section."""
        rest = [name for name in self.list_commands(ctx) if name not in self._places]
        for title, names in [*self.sections.items(), ("Plugins", rest)]:
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, each.get_short_help_str(limit=90)) for name, each in found if each and not each.hidden]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

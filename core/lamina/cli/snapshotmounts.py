"""Mounts as people type them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from lamina.cli import complete
from lamina.cli.options import as_json
from lamina.cli.output import escape, show_json
from lamina.cli.session import Session, pass_session

if TYPE_CHECKING:
    from lamina.mount import Mount


@click.command
@click.argument("key", shell_complete=complete.snapshots)
@as_json
@pass_session
def mounts(session: Session, key: str, form: str) -> None:
    """Print how to mount a snapshot, without mounting it."""
    with session.snapshots() as store:
        show_mounts(store.mounts(key), form)


def show_mounts(mounts: Sequence[Mount], form: str) -> None:
    """Print mounts as commands for a shell, with TARGET to be filled in, or as JSON."""
    for mount in mounts:
        if form == "json":
            show_json({"type": mount.type, "source": mount.source, "options": list(mount.options)})
        else:
            words = ["mount", "-t", mount.type, "-o", ",".join(mount.options), mount.source]
            click.echo(f"{escape(shlex.join(words))} TARGET")

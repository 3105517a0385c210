"""Containers that are made to end, or to stand still: stop, kill, pause, wait."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import click

from lamina.cli import complete, failures
from lamina.cli.output import escape
from lamina.cli.session import Session, pass_session
from lamina.errors import NotFound

_names = click.argument("names", nargs=-1, required=True, shell_complete=complete.containers)
_seconds = click.option(
    "-t", "--time", "--timeout", "grace", type=float, help="Seconds until it is killed; below 0: never.  [10]"
)


@click.command
@_names
@_seconds
@pass_session
def stop(session: Session, names: tuple[str, ...], grace: float | None) -> None:
    """Ask containers to end, and kill those that do not. Prints each name as it was given."""
    _each(session, names, lambda engine, name: engine.stop(name, grace))


@click.command
@_names
@_seconds
@pass_session
def restart(session: Session, names: tuple[str, ...], grace: float | None) -> None:
    """Stop containers and start them again. Prints each name as it was given."""

    def again(engine: Any, name: str) -> None:
        engine.stop(name, grace)
        engine.start(name)

    _each(session, names, again)


@click.command
@_names
@click.option("-s", "--signal", "signal_name", default="KILL", show_default=True, help="By name or number.")
@pass_session
def kill(session: Session, names: tuple[str, ...], signal_name: str) -> None:
    """Send a signal to containers. Prints each name as it was given."""
    from lamina.containers.signals import parse_signal  # noqa: PLC0415

    number = parse_signal(signal_name)
    _each(session, names, lambda engine, name: engine.kill(name, number))


@click.command
@_names
@pass_session
def pause(session: Session, names: tuple[str, ...]) -> None:
    """Let every process in containers stand still. Prints each name as it was given."""
    _each(session, names, lambda engine, name: engine.pause(name))


@click.command
@_names
@pass_session
def unpause(session: Session, names: tuple[str, ...]) -> None:
    """Let containers go on. Prints each name as it was given."""
    _each(session, names, lambda engine, name: engine.unpause(name))


@click.command
@_names
@pass_session
def wait(session: Session, names: tuple[str, ...]) -> None:
    """Wait until containers have ended, and print their exit codes."""
    with session.engine() as engine:
        failures.each(names, lambda name: click.echo(engine.wait(name)), debug=session.debug)


@click.command(hidden=True)
@click.argument("name")
@pass_session
def cleanup(session: Session, name: str) -> None:
    """What a monitor calls when its container has ended."""
    with session.engine() as engine, contextlib.suppress(NotFound):
        engine.finish(name)


def _each(session: Session, names: tuple[str, ...], action: Callable[[Any, str], object]) -> None:
    with session.engine() as engine:

        def one(name: str) -> None:
            action(engine, name)
            click.echo(escape(name))

        failures.each(names, one, debug=session.debug)

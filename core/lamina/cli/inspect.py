"""Everything that is known about an image or a container."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click

from lamina.cli import complete, failures
from lamina.cli.output import show_document, show_json
from lamina.cli.session import Session, pass_session
from lamina.errors import NotFound

_Look = Callable[[str], dict[str, Any]]
_form = click.option(
    "--format",
    "form",
    type=click.Choice(["json", "json-lines"]),
    default="json",
    show_default=True,
    help="One list, or one object on each line.",
)


@click.command
@click.argument("names", nargs=-1, required=True, shell_complete=complete.either)
@click.option("--type", "kind", type=click.Choice(["container", "image"]), help="Look only among these.")
@_form
@pass_session
def inspect(session: Session, names: tuple[str, ...], kind: str | None, form: str) -> None:
    """Show what is known about containers and images, as docker's inspect has it."""
    _inspect(session, names, form, [kind] if kind else ["container", "image"])


@click.command("inspect")
@click.argument("names", nargs=-1, required=True, shell_complete=complete.images)
@_form
@pass_session
def inspect_image(session: Session, names: tuple[str, ...], form: str) -> None:
    """Show what is known about images."""
    _inspect(session, names, form, ["image"])


@click.command("inspect")
@click.argument("names", nargs=-1, required=True, shell_complete=complete.containers)
@_form
@pass_session
def inspect_container(session: Session, names: tuple[str, ...], form: str) -> None:
    """Show what is known about containers."""
    _inspect(session, names, form, ["container"])


def _inspect(session: Session, names: tuple[str, ...], form: str, kinds: list[str]) -> None:
    found: list[dict[str, Any]] = []
    with session.both() as (images, containers):
        places: dict[str, _Look] = {"container": containers.inspect, "image": images.inspect}

        def look(name: str) -> None:
            found.append(_look({kind: places[kind] for kind in kinds}, name))

        try:
            failures.each(names, look, debug=session.debug)
        finally:  # what was found is shown also when another name was not
            _show(found, form)


def _show(found: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        show_document(found)
        return
    for document in found:
        show_json(document)


def _look(places: dict[str, _Look], name: str) -> dict[str, Any]:
    for look in places.values():
        with suppress(NotFound):
            return look(name)
    raise NotFound(f"no {' and no '.join(places)} {name!r}")

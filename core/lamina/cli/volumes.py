"""Volumes of the store: ls, create, inspect, rm, prune."""

from __future__ import annotations

from typing import Any

import click

from lamina.cli import complete, failures
from lamina.cli.options import as_json, labels, parse_labels, quiet
from lamina.cli.output import Column, escape, show_document, show_records
from lamina.cli.session import Session, pass_session
from lamina.cli.space import ask
from lamina.cli.wording import size
from lamina.containers.volumestore import Known, Volumes, inspect_volume

_names = click.argument("names", nargs=-1, required=True, shell_complete=complete.volumes)


@click.command
@quiet
@as_json
@pass_session
def ls(session: Session, form: str, *, quiet: bool) -> None:
    """List volumes."""
    found = Volumes(session.place() / "volumes").list()
    show_records(found, form=form, quiet=quiet, columns=_COLUMNS, document=_document, name=lambda known: known.name)


@click.command
@click.argument("name", required=False)
@labels
@pass_session
def create(session: Session, name: str | None, labels: tuple[str, ...]) -> None:
    """Make an empty volume; one that is there stays as it is. Prints its name."""
    with session.containers() as store, store.volumes.held():
        click.echo(store.volumes.make(name, parse_labels(labels)).name)


@click.command
@_names
@pass_session
def inspect(session: Session, names: tuple[str, ...]) -> None:
    """Show what is known about volumes, and where they lie."""
    found = []
    with session.containers() as store:

        def look(name: str) -> None:
            found.append(inspect_volume(store.volumes, store.volumes.find(name)))

        try:
            failures.each(names, look, debug=session.debug)
        finally:  # what was found is shown also when another name was not
            show_document(found)


@click.command
@_names
@click.option("-f", "--force", is_flag=True, help="What is not there is no error.")
@pass_session
def rm(session: Session, names: tuple[str, ...], *, force: bool) -> None:
    """Remove volumes with all that is in them. Prints each name."""
    from lamina.containers.belongings import remove  # noqa: PLC0415

    with session.containers() as store:

        def gone(name: str) -> None:
            remove(store, name, force=force)
            click.echo(escape(name))

        failures.each(names, gone, debug=session.debug)


@click.command
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that have a name.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@pass_session
def prune(session: Session, *, everything: bool, force: bool) -> None:
    """Remove volumes that no container has: those that were made without a name."""
    from lamina.containers.belongings import prune as prune_volumes  # noqa: PLC0415

    if not force:
        ask(f"all volumes without {'a container' if everything else 'a name and a container'}")
    with session.containers() as store:
        gone, freed = prune_volumes(store, everything=everything)
    if gone:
        click.echo("\n".join(["Deleted Volumes:", *map(escape, gone), ""]))
    click.echo(f"Total reclaimed space: {size(freed)}")


def _document(known: Known) -> dict[str, Any]:
    return {"name": known.name, "created": known.created, "anonymous": known.anonymous}


_COLUMNS: list[Column[Known]] = [Column("DRIVER", lambda _: "local"), Column("VOLUME NAME", lambda known: known.name)]

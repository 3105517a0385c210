"""What is stored, what of it could go, and whether it is whole: df, prune, image verify."""

from __future__ import annotations

import sys

import click

from lamina.cli.options import as_json
from lamina.cli.output import Column, escape, show_json, show_table
from lamina.cli.session import Session, pass_session
from lamina.cli.wording import size
from lamina.errors import BadRequest, DigestMismatch
from lamina.images.records import Share


@click.command
@as_json
@pass_session
def df(session: Session, form: str) -> None:
    """Show what is stored, what of it is used, and what pruning everything would give back."""
    with session.images() as store:
        shares = store.usage()
    if form == "table":
        show_table(_COLUMNS, shares)
        return
    for share in shares:
        show_json(
            {
                "type": share.kind,
                "total": share.count,
                "active": share.active,
                "size": share.size,
                "reclaimable": share.reclaimable,
            }
        )


@click.command
@click.option("-a", "--all", "everything", is_flag=True, help="All images without a container, not only nameless ones.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@pass_session
def prune(session: Session, *, everything: bool, force: bool) -> None:
    """Free what nobody needs: images without a name, and whatever a crash has left."""
    if not force:
        ask("all images without a container" if everything else "all images without a name")
    with session.images() as store:
        pruned = store.prune(everything=everything)
    for line in pruned.removed:
        click.echo(escape(str(line)))
    click.echo(f"Total reclaimed space: {size(pruned.freed)}")


@click.command
@pass_session
def verify(session: Session) -> None:
    """Read every blob that an image needs, and name those that are damaged or missing."""
    with session.images() as store:
        damages = 0
        for sentence in store.verify():
            click.echo(escape(sentence))
            damages += 1
    if damages:
        raise click.exceptions.Exit(DigestMismatch.exit_code)
    click.echo("every blob is whole")


def ask(what: str) -> None:
    """Go on only if somebody agrees; BadRequest if nobody is there."""
    if not sys.stdin.isatty():
        raise BadRequest("nobody to ask: stdin is not a terminal; say --force")
    click.confirm(f"This removes {what}. Go on?", abort=True, err=True)


def _reclaimable(share: Share) -> str:
    part = f" ({share.reclaimable * 100 // share.size}%)" if share.size else ""
    return f"{size(share.reclaimable)}{part}"


_COLUMNS: list[Column[Share]] = [
    Column("TYPE", lambda share: share.kind),
    Column("TOTAL", lambda share: str(share.count)),
    Column("ACTIVE", lambda share: str(share.active)),
    Column("SIZE", lambda share: size(share.size)),
    Column("RECLAIMABLE", _reclaimable),
]

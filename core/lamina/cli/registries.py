"""Images from and to registries: pull, push, login, logout."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from lamina.cli import complete
from lamina.cli.output import escape
from lamina.cli.progress import shown
from lamina.cli.session import Session, pass_session
from lamina.errors import BadRequest
from lamina.images.reference import parse

if TYPE_CHECKING:
    from lamina.images.store import Images
    from lamina.images.transfer_pull import Pulled

_HELPERS = """\
Configure a credential helper to remove this warning. See
https://docs.docker.com/engine/reference/commandline/login/#credentials-store
"""


@click.command
@click.argument("name")
@click.option("-a", "--all-tags", is_flag=True, help="Every tag of the repository.")
@click.option("--platform", metavar="OS/ARCH", help="Which image of an index to take; this machine's by default.")
@click.option("-q", "--quiet", is_flag=True, help="Only the full name.")
@pass_session
def pull(session: Session, name: str, platform: str | None, *, all_tags: bool, quiet: bool) -> None:
    """Bring an image from a registry; layers that are here already are not fetched again."""
    reference = parse(name)
    if not quiet and not all_tags and reference.tag is None and reference.digest is None:
        click.echo("Using default tag: latest")
    with session.images() as store:
        pulled = bring(store, name, platform=platform, all_tags=all_tags, quiet=quiet)
    called = parse(pulled[0].name)
    click.echo(escape(called.repository if all_tags else str(called)))


@click.command
@click.argument("name", shell_complete=complete.images)
@click.option("-a", "--all-tags", is_flag=True, help="Every tag of the repository.")
@click.option("-q", "--quiet", is_flag=True, help="Only the full name.")
@pass_session
def push(session: Session, name: str, *, all_tags: bool, quiet: bool) -> None:
    """Bring an image to a registry, byte for byte as it is here; layers that are there already are not sent again."""
    if not quiet and not all_tags and parse(name).tag is None:
        click.echo("Using default tag: latest")
    with session.images() as store, shown(quiet=quiet, lasting=True) as progress:
        pushed = store.push(name, all_tags=all_tags, progress=progress, tell=_telling(quiet=quiet))
    if quiet:
        for each in pushed:
            click.echo(escape(str(parse(each.name))))


@click.command
@click.argument("server", required=False)
@click.option("-u", "--username", help="The user name; asked for if it is missing.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin. Else it is asked for, unseen.")
@pass_session
def login(session: Session, server: str | None, username: str | None, *, password_stdin: bool) -> None:
    """Keep a user name and a password for a registry, after it has accepted them."""
    from lamina.images.login_check import log_in, registry_named  # noqa: PLC0415  # httpx, trio
    from lamina.images.registry_config import read_registries  # noqa: PLC0415

    host = registry_named(server)
    registries = read_registries(session.config().registries)
    name, password = _credentials(username, from_stdin=password_stdin)
    file = log_in(host, name, password, registries, os.environ)
    if file is not None:
        click.echo(f"WARNING! Your password will be stored unencrypted in {escape(str(file))}.", err=True)
        click.echo(_HELPERS, err=True)
    click.echo("Login Succeeded")


@click.command
@click.argument("server", required=False)
def logout(server: str | None) -> None:
    """Forget the user name and the password for a registry."""
    from lamina.images.login_check import log_out, registry_named  # noqa: PLC0415  # httpx, trio

    host = registry_named(server)
    if log_out(host, os.environ):
        click.echo(f"Removing login credentials for {escape(host)}")
    else:
        click.echo(f"Not logged in to {escape(host)}")


def _credentials(username: str | None, *, from_stdin: bool) -> tuple[str, str]:
    if from_stdin:
        if not username:
            raise click.UsageError("--password-stdin needs --username")
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    else:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to ask for the password: use --password-stdin")
        username = username or click.prompt("Username", err=True)
        password = click.prompt("Password", hide_input=True, err=True)
    if not password:
        raise BadRequest("the password is empty")
    if ":" in (username or ""):
        raise BadRequest("a user name cannot have a colon in it")
    return username or "", password


def bring(  # as many as the command has flags
    store: Images, name: str, *, platform: str | None = None, all_tags: bool = False, quiet: bool, err: bool = False
) -> tuple[Pulled, ...]:
    """Pull, and say so in docker's words; with `err` all of them go to stderr."""
    tell = _telling(quiet=quiet, err=err)
    with shown(quiet=quiet, lasting=True) as progress:
        pulled = store.pull(name, platform=platform, all_tags=all_tags, progress=progress, tell=tell)
    called = parse(pulled[0].name)
    newer = any(each.newer for each in pulled)
    short = called.familiar_repository if all_tags else called.familiar
    tell(f"Status: {'Downloaded newer image' if newer else 'Image is up to date'} for {short}")
    return pulled


def _telling(*, quiet: bool, err: bool = False) -> Callable[[str], None]:
    return (lambda _: None) if quiet else (lambda line: click.echo(escape(line), err=err))

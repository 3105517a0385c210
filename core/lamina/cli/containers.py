"""Containers and their layers: create, ps, diff, commit, rename, rm."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from lamina.cli import complete, failures, wording
from lamina.cli.options import as_json, no_trunc, quiet
from lamina.cli.output import Column, escape, show_json, show_path, show_records
from lamina.cli.progress import shown
from lamina.cli.session import Session, pass_session
from lamina.containers.container import Container
from lamina.containers.life import State
from lamina.containers.listing import any_odd, list_containers
from lamina.errors import NotFound

if TYPE_CHECKING:
    from lamina.changes import Change
    from lamina.containers.store import Containers
    from lamina.images.store import Images


@click.command
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run.")
@no_trunc
@quiet
@as_json
@pass_session
def ps(session: Session, form: str, *, everything: bool, no_trunc: bool, quiet: bool) -> None:
    """List containers that run; with -a also those that were only created."""
    if any_odd(session.place()):
        with session.engine():  # repairs them, and says so
            pass
    found = [each for each in list_containers(session.place()) if everything or each.life.state.up]
    show_records(
        found,
        form=form,
        quiet=quiet,
        columns=_columns(whole=no_trunc),
        document=_document,
        name=lambda each: each.id if no_trunc else each.short_id,
    )


@click.command
@click.argument("name", shell_complete=complete.either)
@click.option("-z", "--null", is_flag=True, help="Raw paths, each line ended by a NUL byte.")
@as_json
@pass_session
def diff(session: Session, name: str, form: str, *, null: bool) -> None:
    r"""Show what a container (or an image's last layer) added (A), changed (C) and deleted (D).

    Bytes that are no character, control characters and backslashes are shown as \xff, \n, \\; -z prints them raw.
    """
    with session.both() as (images, containers):
        # of the root itself docker says nothing: it changes whenever something is made in it
        show_changes((each for each in _changes(images, containers, name) if each.path), form, null=null)


class _Commit(click.Command):
    """Takes docker's way to write a flag, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`--pause=false` is `--no-pause`."""
        known = {"--pause=false": "--no-pause", "--pause=true": "--pause"}
        return super().parse_args(ctx, [known.get(each, each) for each in args])


@click.command(cls=_Commit)
@click.argument("container", shell_complete=complete.containers)
@click.argument("name", required=False)
@click.option("-a", "--author", default="", help="Who made it, such as 'Ada <ada@example.org>'.")
@click.option("-m", "--message", default="", help="What was done, for the history.")
@click.option("-c", "--change", "changes", metavar="INSTRUCTION", multiple=True, help="A Dockerfile instruction.")
@click.option("-p/-P", "--pause/--no-pause", default=True, show_default=True, help="Let it stand still meanwhile.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@pass_session
def commit(
    session: Session,
    container: str,
    name: str | None,
    author: str,
    message: str,
    changes: tuple[str, ...],
    *,
    pause: bool,
    quiet: bool,
) -> None:
    """Make an image of what a container is now: its changes become one more layer. Prints the image's ID."""
    from lamina.containers.freezing import still  # noqa: PLC0415

    with session.engine() as engine, shown(quiet=quiet) as progress, still(engine, container, wanted=pause):
        image = engine.containers.commit(
            container, name, author=author, message=message, changes=changes, progress=progress
        )
    click.echo(image.id)


@click.command
@click.argument("container", shell_complete=complete.containers)
@click.argument("name")
@pass_session
def rename(session: Session, container: str, name: str) -> None:
    """Call a container NAME."""
    with session.containers() as store:
        store.rename(container, name)


@click.command
@click.argument("names", nargs=-1, required=True, shell_complete=complete.containers)
@click.option("-f", "--force", is_flag=True, help="Kill those that run; those that are not there are no error.")
@click.option("-v", "--volumes", is_flag=True, help="Remove their volumes without a name, too.")
@pass_session
def rm(session: Session, names: tuple[str, ...], *, force: bool, volumes: bool) -> None:
    """Remove containers and their writable layers. Prints each name as it was given."""
    with session.engine() as engine:

        def remove(name: str) -> None:
            try:
                engine.remove(name, force=force, volumes=volumes)
            except NotFound as error:
                if not force:
                    raise
                failures.report(error, debug=session.debug)
                return
            click.echo(escape(name))

        failures.each(names, remove, debug=session.debug)


def show_changes(changes: Iterator[Change], form: str, *, null: bool) -> None:
    """Print changes, one by one as they are found."""
    for change in changes:
        if null:
            sys.stdout.buffer.write(change.kind.value.encode() + b" /" + change.path + b"\0")
        elif form == "json":
            show_json({"kind": change.kind.value, **path_document(b"/" + change.path)})
        else:
            click.echo(f"{change.kind.value} {show_path(b'/' + change.path)}")


def path_document(path: bytes) -> dict[str, str]:
    """A path for JSON: text, and the bytes in hexadecimal beside it where they are not UTF-8."""
    try:
        return {"path": path.decode()}
    except UnicodeDecodeError:
        return {"path": path.decode(errors="backslashreplace"), "path_hex": path.hex()}


def _changes(images: Images, containers: Containers, name: str) -> Iterator[Change]:
    try:
        return containers.diff(name)
    except NotFound:
        image = _image_or_nothing(images, name)
    return images.snapshots.changes(image.chain_id) if image.chain_id else iter(())


def _image_or_nothing(images: Images, name: str) -> Any:
    try:
        return images.find(name)
    except NotFound:
        raise NotFound(f"no container and no image {name!r}") from None


def _columns(*, whole: bool) -> list[Column[Container]]:
    return [
        Column("CONTAINER ID", lambda each: each.id if whole else each.short_id),
        Column("IMAGE", lambda each: each.image_name),
        Column("COMMAND", lambda each: wording.command(each.command, whole=whole)),
        Column("CREATED", lambda each: wording.age(each.created)),
        Column("STATUS", status),
        Column("PORTS", lambda _: ""),
        Column("NAMES", lambda each: each.name),
    ]


def status(container: Container) -> str:
    """How it is and since when, in docker's words."""
    life = container.life
    return wording.status(container.state, life.started, life.finished, life.code)


def _document(container: Container) -> dict[str, Any]:
    return {
        "id": container.id,
        "name": container.name,
        "image": container.image_name,
        "image_id": container.image,
        "command": list(container.command),
        "created": container.created,
        "state": container.state,
        "status": status(container),
        "exit_code": container.life.code if container.life.state is State.EXITED else None,
        "driver": container.driver,
        "snapshot": container.snapshot,
    }

"""Images and containers as plain directories: mount and umount."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from lamina.cli import complete, failures
from lamina.cli.options import place
from lamina.cli.session import Session, pass_session
from lamina.errors import NotFound

_TARGET = click.Path(exists=True, file_okay=False)


@click.command
@click.argument("name", shell_complete=complete.either)
@click.argument("target", type=_TARGET)
@pass_session
def mount(session: Session, name: str, target: str) -> None:
    """Show a container (writable) or an image (read-only) at the directory TARGET."""
    with session.both() as (images, containers):
        try:
            containers.find(name)
        except NotFound:
            try:
                images.find(name)
            except NotFound:
                raise NotFound(f"no container and no image {name!r}") from None
            images.mount(name, place(target))
        else:
            containers.mount(name, place(target))
    click.echo(place(target))


@click.command("mount")
@click.argument("image", shell_complete=complete.images)
@click.argument("target", type=_TARGET)
@pass_session
def mount_image(session: Session, image: str, target: str) -> None:
    """Show an image, read-only, at the directory TARGET."""
    with session.images() as images:
        images.mount(image, place(target))
    click.echo(place(target))


@click.command("mount")
@click.argument("container", shell_complete=complete.containers)
@click.argument("target", type=_TARGET)
@pass_session
def mount_container(session: Session, container: str, target: str) -> None:
    """Show a container, writable, at the directory TARGET."""
    with session.containers() as containers:
        containers.mount(container, place(target))
    click.echo(place(target))


@click.command
@click.argument("targets", nargs=-1, required=True, type=click.Path(file_okay=False))
@pass_session
def umount(session: Session, targets: tuple[str, ...]) -> None:
    """Undo `mount`."""
    with session.both() as (images, containers):

        def unmount(target: str) -> None:
            _either(images.unmount, containers.unmount, place(target))

        failures.each(targets, unmount, debug=session.debug)


def _either(image: Callable[[Path], None], container: Callable[[Path], None], target: Path) -> None:
    try:
        image(target)
    except NotFound:
        try:
            container(target)
        except NotFound:
            raise NotFound(f"nothing of this store is mounted at {target}") from None

"""A container's files in and out: cp and export."""

from __future__ import annotations

import os

import click

from lamina.cli import complete
from lamina.cli.options import reading, writing
from lamina.cli.session import Session, pass_session


@click.command
@click.argument("container", shell_complete=complete.containers)
@click.option("-o", "--output", "target", metavar="FILE", help="The file; else stdout.")
@pass_session
def export(session: Session, container: str, target: str | None) -> None:
    """Write a container's whole tree as a tar."""
    with session.containers() as store:
        store.find(container)  # before anything is written
        with writing(target) as out:
            store.export(container, out)


@click.command
@click.argument("source", metavar="SOURCE|CONTAINER:SOURCE")
@click.argument("target", metavar="TARGET|CONTAINER:TARGET")
@click.option("-a", "--archive", is_flag=True, help="Keep owners; else files that go in are root's, out yours.")
@click.option("-L", "--follow-link", "follow", is_flag=True, help="Copy what a symbolic link SOURCE points at.")
@pass_session
def cp(session: Session, source: str, target: str, *, archive: bool, follow: bool) -> None:
    """Copy files out of a container or into one. A local `-` is a tar on stdin or stdout."""
    if not (source and target):
        raise click.UsageError("an empty name is no file")  # it would be all of the current directory
    from_container, to_container = _split(source), _split(target)
    if (from_container is None) == (to_container is None):
        raise click.UsageError(
            "one side is CONTAINER:PATH, the other a local path (write ./a:b for a name with a colon)"
        )
    with session.containers() as store:
        if from_container is not None:
            name, path = from_container
            if target == "-":
                with writing(None) as out:
                    store.copy_out(name, path, out, archive=archive, follow=follow)
            else:
                store.copy_out(name, path, _local(target), archive=archive, follow=follow)
        elif to_container is not None:
            name, path = to_container
            if source == "-":
                with reading(None) as tar:
                    store.copy_in(name, tar, path, archive=archive, follow=follow)
            else:
                store.copy_in(name, _local(source), path, archive=archive, follow=follow)


def _split(text: str) -> tuple[str, bytes] | None:
    """Container and path, or None for a local path: one without a colon, or that begins with / or a dot."""
    name, colon, path = text.partition(":")
    if not colon or not name or text[0] in "/.":
        return None
    return name, os.fsencode(path)


def _local(text: str) -> bytes:
    """A path of the host, absolute; `/.` and `/` at its end mean something and stay."""
    whole = os.path.abspath(text)
    if text == "." or text.endswith("/."):
        whole = os.path.join(whole, ".")
    elif text.endswith("/"):
        whole = os.path.join(whole, "")
    return os.fsencode(whole)

"""`lamina snapshot …`: the ten verbs of the store, for people."""

from __future__ import annotations

from typing import Any

import click

from lamina.cli import complete, failures
from lamina.cli.containers import show_changes
from lamina.cli.options import as_json, labels, parse_labels, place, quiet, reading, writing
from lamina.cli.output import Column, escape, show_document, show_json, show_records
from lamina.cli.session import Session, pass_session
from lamina.cli.snapshotmounts import mounts, show_mounts
from lamina.cli.wording import age, size
from lamina.snapshot import Snapshot


@click.group
def snapshot() -> None:
    """Work with snapshots: what images and containers are made of."""


@snapshot.command
@click.argument("key")
@click.argument("parent", required=False, shell_complete=complete.snapshots)
@labels
@as_json
@pass_session
def prepare(session: Session, key: str, parent: str | None, form: str, labels: tuple[str, ...]) -> None:
    """Make an active snapshot KEY to write to, and print how to mount it."""
    with session.snapshots() as store:
        show_mounts(store.prepare(key, parent, parse_labels(labels)), form)


@snapshot.command
@click.argument("key")
@click.argument("parent", required=False, shell_complete=complete.snapshots)
@labels
@as_json
@pass_session
def view(session: Session, key: str, parent: str | None, form: str, labels: tuple[str, ...]) -> None:
    """Make a view KEY to look at PARENT, and print how to mount it."""
    with session.snapshots() as store:
        show_mounts(store.view(key, parent, parse_labels(labels)), form)


@snapshot.command
@click.argument("name")
@click.argument("key", shell_complete=complete.snapshots)
@click.option("--parent", help="Put it on this parent instead of the one it was prepared on.")
@labels
@pass_session
def commit(session: Session, name: str, key: str, parent: str | None, labels: tuple[str, ...]) -> None:
    """Freeze the active snapshot KEY for ever, under NAME."""
    from lamina.snapshotter import KEEP  # noqa: PLC0415

    with session.snapshots() as store:
        store.commit(name, key, parent=KEEP if parent is None else parent, labels=parse_labels(labels))


snapshot.add_command(mounts)


@snapshot.command
@click.argument("key", shell_complete=complete.snapshots)
@click.argument("target", type=click.Path(exists=True, file_okay=False))
@pass_session
def mount(session: Session, key: str, target: str) -> None:
    """Show an active snapshot (writable) or a view (read-only) at the directory TARGET."""
    with session.snapshots() as store:
        store.mount(key, place(target))
    click.echo(place(target))


@snapshot.command
@click.argument("targets", nargs=-1, required=True, type=click.Path(file_okay=False))
@pass_session
def umount(session: Session, targets: tuple[str, ...]) -> None:
    """Undo `mount`."""
    with session.snapshots() as store:
        failures.each(targets, lambda target: store.unmount(place(target)), debug=session.debug)


@snapshot.command
@click.argument("keys", nargs=-1, required=True, shell_complete=complete.snapshots)
@pass_session
def rm(session: Session, keys: tuple[str, ...]) -> None:
    """Remove snapshots; one that others stand on stays."""
    with session.snapshots() as store:
        failures.each(keys, store.remove, debug=session.debug)


@snapshot.command
@click.argument("filters", nargs=-1)
@quiet
@as_json
@pass_session
def ls(session: Session, filters: tuple[str, ...], form: str, *, quiet: bool) -> None:
    """List snapshots. FILTERS are such as kind==active, parent==base, labels.team==red."""
    with session.snapshots() as store:
        found = list(store.list(*filters))
    show_records(found, form=form, quiet=quiet, columns=_COLUMNS, document=_document, name=lambda each: each.name)


@snapshot.command
@click.argument("key", shell_complete=complete.snapshots)
@pass_session
def info(session: Session, key: str) -> None:
    """Show what is known about a snapshot."""
    with session.snapshots() as store:
        show_document(_document(store.stat(key)))


@snapshot.command
@click.argument("key", shell_complete=complete.snapshots)
@click.option("--tar", "as_tar", is_flag=True, help="A layer tar, uncompressed, instead of a list.")
@click.option("-o", "--output", "target", metavar="FILE", help="Where the tar goes; else stdout.")
@click.option("-z", "--null", is_flag=True, help="Raw paths, each line ended by a NUL byte.")
@as_json
@pass_session
def diff(session: Session, key: str, target: str | None, form: str, *, as_tar: bool, null: bool) -> None:
    """Show what a snapshot adds, changes and deletes, as a list or as a layer tar."""
    if target is not None and not as_tar:
        raise click.UsageError("-o is for --tar")
    with session.snapshots() as store:
        if not as_tar:
            show_changes(store.changes(key), form, null=null)
            return
        store.stat(key)  # before anything is written
        with writing(target) as out:
            store.diff(key, out)


@snapshot.command
@click.argument("key", shell_complete=complete.snapshots)
@click.argument("source", metavar="FILE|-")
@as_json
@pass_session
def apply(session: Session, key: str, source: str, form: str) -> None:
    """Unpack a layer tar, also a compressed one, into the active snapshot KEY. Prints its diff id."""
    with session.snapshots() as store, reading(source) as tar:
        applied = store.apply(key, tar)
    if form == "json":
        show_json({"diff_id": applied.diff_id, "digest": applied.digest, "size": applied.size})
    else:
        click.echo(applied.diff_id)


@snapshot.command
@click.argument("key", shell_complete=complete.snapshots)
@as_json
@pass_session
def usage(session: Session, key: str, form: str) -> None:
    """Show what a snapshot itself occupies, without its parents."""
    with session.snapshots() as store:
        used = store.usage(key)
    if form == "json":
        show_json({"size": used.size, "inodes": used.inodes})
    else:
        click.echo(f"{size(used.size)} in {used.inodes} inodes")


@snapshot.command
@click.argument("key", shell_complete=complete.snapshots)
@click.argument("changes", metavar="KEY=VALUE|KEY=", nargs=-1)
@pass_session
def label(session: Session, key: str, changes: tuple[str, ...]) -> None:
    """Set labels, or take them away with an empty value; prints those it has now."""
    wanted = {name: value or None for name, value in parse_labels(changes).items()}
    with session.snapshots() as store:
        labelled = store.label(key, wanted) if wanted else store.stat(key)
    for name, value in sorted(labelled.labels.items()):
        click.echo(escape(f"{name}={value}"))


_COLUMNS: list[Column[Snapshot]] = [
    Column("NAME", lambda each: each.name),
    Column("KIND", lambda each: each.kind.value),
    Column("PARENT", lambda each: each.parent or ""),
    Column("CREATED", lambda each: age(each.created)),
    Column("SIZE", lambda each: size(each.usage.size) if each.usage else ""),
]


def _document(each: Snapshot) -> dict[str, Any]:
    return {
        "name": each.name,
        "kind": each.kind.value,
        "parent": each.parent,
        "labels": dict(each.labels),
        "size": each.usage.size if each.usage else None,
        "inodes": each.usage.inodes if each.usage else None,
        "created": each.created,
        "updated": each.updated,
    }

"""What is there and how it is called: images, tag, history, rmi."""

from __future__ import annotations

import fnmatch
from typing import Any

import click

from lamina.cli import complete, failures
from lamina.cli.options import as_json, force, no_trunc, quiet
from lamina.cli.output import Column, escape, show_json, show_table
from lamina.cli.session import Session, pass_session
from lamina.cli.wording import age, size
from lamina.errors import BadRequest
from lamina.images.familiar import short_id
from lamina.images.listing import list_images
from lamina.images.records import HistoryRow, Image

_Row = tuple[str, str, Image]  # repository, tag: one image may stand in several rows
_CREATED_BY = 45  # characters of a step that history shows, as docker does


@click.command
@click.argument("name", required=False, shell_complete=complete.images)
@click.option(
    "-a", "--all", "everything", is_flag=True, help="All of them. Nothing is hidden without it; docker's habit."
)
@click.option("--digests", is_flag=True, help="Also the digests under which images are known.")
@click.option(
    "-f", "--filter", "filters", metavar="KEY=VALUE", multiple=True, help="dangling=true|false, reference=GLOB."
)
@no_trunc
@quiet
@as_json
@pass_session
def images(
    session: Session,
    name: str | None,
    filters: tuple[str, ...],
    form: str,
    *,
    everything: bool,  # noqa: ARG001  # as said in its help
    digests: bool,
    no_trunc: bool,
    quiet: bool,
) -> None:
    """List images, the newest first."""
    dangling, globs = _parse_filters(filters)
    found = list_images(session.place(), dangling=dangling)
    rows = [row for image in found for row in _rows(image) if _wanted(row, name, globs)]
    if form == "json":
        for row in rows:
            show_json(_document(row))
    elif quiet:
        for image_id in dict.fromkeys(row[2].id for row in rows):
            click.echo(_shown(image_id, whole=no_trunc))
    else:
        show_table(_columns(digests=digests, whole=no_trunc), rows)


@click.command
@click.argument("source", shell_complete=complete.images)
@click.argument("target")
@pass_session
def tag(session: Session, source: str, target: str) -> None:
    """Let the name TARGET point at the image SOURCE."""
    with session.images() as store:
        store.tag(source, target)


@click.command
@click.argument("name", shell_complete=complete.images)
@no_trunc
@quiet
@as_json
@pass_session
def history(session: Session, name: str, form: str, *, no_trunc: bool, quiet: bool) -> None:
    """Show how an image came to be, the newest step first."""
    with session.images() as store:
        rows = store.history(name)
    if form == "json":
        for row in rows:
            show_json(_step(row))
    elif quiet:
        for row in rows:
            click.echo(_shown(row.image, whole=no_trunc))
    else:
        show_table(_history_columns(whole=no_trunc), rows)


@click.command
@click.argument("names", nargs=-1, required=True, shell_complete=complete.images)
@force
@pass_session
def rmi(session: Session, names: tuple[str, ...], *, force: bool) -> None:
    """Take names from images; an image goes with its last name, and every layer that nobody else needs with it."""
    with session.images() as store:

        def remove(name: str) -> None:
            for line in store.remove(name, force=force):
                click.echo(escape(str(line)))

        failures.each(names, remove, debug=session.debug)


def _rows(image: Image) -> list[_Row]:
    return [(repository, tag, image) for repository, tag in image.rows()]


def _parse_filters(filters: tuple[str, ...]) -> tuple[bool | None, list[str]]:
    dangling, globs = None, []
    for each in filters:
        match each.partition("="):
            case ("dangling", "=", "true" | "false" as word):
                dangling = word == "true"
            case ("reference", "=", glob):
                globs.append(glob)
            case _:
                raise BadRequest(f"no filter {each!r}; there are dangling=true, dangling=false, reference=GLOB")
    return dangling, globs


def _wanted(row: _Row, name: str | None, globs: list[str]) -> bool:
    repository, tag, _ = row
    both = f"{repository}:{tag}"
    if name is not None and name not in {repository, both}:
        return False
    return not globs or any(fnmatch.fnmatchcase(text, glob) for glob in globs for text in (repository, both))


def _columns(*, digests: bool, whole: bool) -> list[Column[_Row]]:
    return [
        Column("REPOSITORY", lambda row: row[0]),
        Column("TAG", lambda row: row[1]),
        *([Column("DIGEST", _digest)] if digests else []),
        Column("IMAGE ID", lambda row: _shown(row[2].id, whole=whole)),
        Column("CREATED", lambda row: age(row[2].created)),
        Column("SIZE", lambda row: size(row[2].size)),
    ]


def _digest(row: _Row) -> str:
    repository, _, image = row
    known = (name.partition("@") for name in image.digests)
    return next((digest for place, _, digest in known if place == repository), "<none>")


def _document(row: _Row) -> dict[str, Any]:
    repository, tag, image = row
    return {
        "repository": repository,
        "tag": tag,
        "id": image.id,
        "digest": image.manifest,
        "created": image.created,
        "size": image.size,
        "platform": image.platform,
    }


def _history_columns(*, whole: bool) -> list[Column[HistoryRow]]:
    return [
        Column("IMAGE", lambda row: _shown(row.image, whole=whole)),
        Column("CREATED", lambda row: age(row.created)),
        Column("CREATED BY", lambda row: row.created_by if whole else _cut(row.created_by)),
        Column("SIZE", lambda row: size(row.size)),
        Column("COMMENT", lambda row: row.comment),
    ]


def _step(row: HistoryRow) -> dict[str, Any]:
    return {
        "id": row.image,
        "created": row.created,
        "created_by": row.created_by,
        "size": row.size,
        "comment": row.comment,
    }


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _CREATED_BY else f"{flat[: _CREATED_BY - 1]}…"


def _shown(image_id: str, *, whole: bool) -> str:
    return image_id if whole or image_id.startswith("<") else short_id(image_id)

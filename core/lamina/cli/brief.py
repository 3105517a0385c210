"""The listings that people type all day, without the machinery of the command line: that takes 60 ms to import.

Only their plain forms, and only where all is well. Whatever else was typed, or is found, is for the whole program,
which prints the same in the same words (a test compares the two).
"""

from __future__ import annotations

import os

from lamina.cli import wording
from lamina.images.familiar import short_id
from lamina.places import WELL_KNOWN, usual_file, usual_root

TYPE_CHECKING = False  # typing takes longer to import than a listing to print
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Lines = list[tuple[str, ...]]


def answer(words: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """What to print, or None if that takes the whole program."""
    root, words = _root(list(words), environ)
    listing = _LISTINGS.get(tuple(words))
    if listing is None or not environ.keys().isdisjoint(_CHANGES_MUCH) or not _may_be(environ.get("LAMINA_DRIVER")):
        return None
    try:
        lines = _listed(_place(root, environ), listing)
    except Exception:  # noqa: BLE001  # the whole program meets it again, and says what it is
        return None
    if lines is None or not all(cell.isprintable() for line in lines for cell in line):
        return None
    return "".join(f"{line}\n" for line in wording.aligned(lines))


_CHANGES_MUCH = frozenset({"LAMINA_DEBUG", "_LAMINA_COMPLETE"})


def _may_be(driver: str | None) -> bool:
    """Whether a driver that was named is there, as far as can be told without a look at what is installed."""
    return not driver or driver in WELL_KNOWN


def _root(words: list[str], environ: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """The root that was asked for, if one was, and the words without what says so."""
    match words:
        case ["--root", str(root), *rest] if root:
            return root, rest
    return environ.get("LAMINA_ROOT") or None, words


def _place(root: str | None, environ: Mapping[str, str]) -> str:
    """Where the store lies; a config file that is there has a say in it, if only by its mistakes."""
    if "LAMINA_CONFIG" in environ or os.path.lexists(usual_file(environ)):
        from pathlib import Path  # noqa: PLC0415  # takes as long as all the rest

        from lamina.configfile import find_root  # noqa: PLC0415

        return os.fspath(find_root(None, environ, root=None if root is None else Path(root)))
    return os.path.expanduser(root or usual_root(environ))


def _listed(root: str, listing: Callable[[sqlite3.Connection | None], Lines | None]) -> Lines | None:
    from lamina.images.brief import opened  # noqa: PLC0415  # SQLite, which --help needs not

    db = opened(root)
    try:
        return listing(db)
    finally:
        if db is not None:
            db.close()


def _images(db: sqlite3.Connection | None) -> Lines:
    from lamina.images.brief import image_lines  # noqa: PLC0415

    lines: Lines = [wording.IMAGE_TITLES]
    for repository, tag, image, created, size in image_lines(db) if db else ():
        lines.append((repository, tag, short_id(image), wording.age_since(created), wording.size(size)))
    return lines


def _running(db: sqlite3.Connection | None) -> Lines | None:
    return _containers(db, everything=False)


def _all(db: sqlite3.Connection | None) -> Lines | None:
    return _containers(db, everything=True)


def _containers(db: sqlite3.Connection | None, *, everything: bool) -> Lines | None:
    from lamina.images.brief import container_records  # noqa: PLC0415

    lines: Lines = [wording.CONTAINER_TITLES]
    records = container_records(db) if db else []
    if records:
        import json  # noqa: PLC0415  # takes as long as all the rest

        for record in map(json.loads, records):
            state = record["life"]["state"]
            if not _as_noted(record["life"]):
                return None
            if everything or state in {"running", "paused"}:
                lines.append(_container(record))
    return lines


def _as_noted(life: Mapping[str, Any]) -> bool:
    """Whether a container is still as its record has it, with nothing to be repaired."""
    from lamina.containers.liveness import is_alive  # noqa: PLC0415

    if life["state"] in {"created", "exited"}:
        return True
    processes = [life["process"], life["monitor"]]
    return life["state"] in {"running", "paused"} and all(each and is_alive(**each) for each in processes)


def _container(record: Mapping[str, Any]) -> tuple[str, ...]:
    life, settings = record["life"], record["settings"]
    command = [*(settings.get("Entrypoint") or ()), *(settings.get("Cmd") or ())]
    return (
        short_id(record["id"]),
        record["image_name"],
        wording.command(command, whole=False),
        wording.age_since(record["created"]),
        wording.status(life["state"], life["started"], life["finished"], life["code"]),
        "",
        record["name"],
    )


_LISTINGS: Mapping[tuple[str, ...], Callable[[sqlite3.Connection | None], Lines | None]] = {
    ("images",): _images,
    ("image", "ls"): _images,
    ("ps",): _running,
    ("ps", "-a"): _all,
    ("container", "ls"): _running,
    ("container", "ls", "-a"): _all,
}

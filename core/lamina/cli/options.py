"""Options that several commands share, so that they mean the same everywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

as_json = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or one JSON object on each line.",
)
quiet = click.option("-q", "--quiet", is_flag=True, help="Only the IDs or names.")
no_trunc = click.option("--no-trunc", is_flag=True, help="Whole IDs and texts.")
force = click.option("-f", "--force", is_flag=True, help="Even if something stands on it.")
labels = click.option("-l", "--label", "labels", metavar="KEY=VALUE", multiple=True, help="A label; may be repeated.")


def place(text: str) -> Path:
    """A path argument, absolute, so that it means the same wherever it is used later."""
    return Path(os.path.abspath(text))


def parse_labels(pairs: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` words as a dict."""
    table = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{pair!r}: say KEY=VALUE")
        table[key] = value
    return table


@contextmanager
def reading(name: str | None) -> Iterator[BinaryIO]:
    """The file, or stdin for `-` and None; a terminal is refused."""
    if name is None or name == "-":
        if sys.stdin.isatty():
            raise click.UsageError("nothing to read: stdin is a terminal; give a file by -i, or redirect")
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as stream:
        yield stream


@contextmanager
def writing(name: str | None) -> Iterator[BinaryIO]:
    """The file, which appears only when all went well, or stdout for `-` and None; a terminal is refused."""
    if name is None or name == "-":
        if sys.stdout.isatty():
            raise click.UsageError("a terminal cannot show this: give a file by -o, or redirect")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(name)
    if target.exists() and not target.is_file():  # /dev/null, a fifo: nothing to rename
        with target.open("wb") as stream:
            yield stream
        return
    with _replacing(target) as stream:
        yield stream


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with unfinished.open("xb") as stream:
            yield stream
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise

"""What people see: tables, sizes, ages, JSON; and names that cannot play tricks on a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import attrs
import click

from lamina.cli.wording import aligned

R = TypeVar("R")

# control characters, also those of C1, bidirectional overrides, and bytes that were not UTF-8 (as surrogates)
_TRICKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}


@attrs.frozen
class Column(Generic[R]):
    """One column of a listing."""

    title: str
    text: Callable[[R], str]


def show_table(columns: Sequence[Column[R]], records: Iterable[R]) -> None:
    """Print aligned columns under their titles."""
    lines = [[column.title for column in columns]]
    lines += [[escape(column.text(record)) for column in columns] for record in records]
    for line in aligned(lines):
        click.echo(line)


def show_records(  # a listing has as many sides
    records: Iterable[R],
    *,
    form: str,
    quiet: bool,
    columns: Sequence[Column[R]],
    document: Callable[[R], Any],
    name: Callable[[R], str],
) -> None:
    """Print a listing as it was asked for: one JSON document a line, names alone, or a table."""
    if form == "json":
        for record in records:
            show_json(document(record))
    elif quiet:
        for record in records:
            click.echo(escape(name(record)))
    else:
        show_table(columns, records)


def show_json(document: Any) -> None:
    """Print one document on one line, as listings do for each record."""
    click.echo(json.dumps(document, default=_plain))


def show_document(document: Any) -> None:
    """Print one document over several lines, as inspect does."""
    click.echo(json.dumps(document, default=_plain, indent=4))


def escape(text: str) -> str:
    r"""The text with everything that a terminal might obey, or that is no character, written as `\n` or `\x1b`."""
    return _TRICKS.sub(_escaped, text)


def show_path(path: bytes) -> str:
    r"""A path as text: what cannot be printed, and the backslash itself, is written as `\xff`, `\n`, `\\`."""
    return escape(path.decode("utf-8", "surrogateescape").replace("\\", "\\\\"))


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that os.fsdecode could not read
        return f"\\x{code - 0xDC00:02x}"
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")

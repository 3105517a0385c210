"""What people see: tables, sizes, ages, JSON; and names that cannot play tricks on a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import attrs
import click

R = TypeVar("R")

_GAP = "   "
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
# control characters, also those of C1, bidirectional overrides, and bytes that were not UTF-8 (as surrogates)
_TRICKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@attrs.frozen
class Column(Generic[R]):
    """One column of a listing."""

    title: str
    text: Callable[[R], str]


def show_table(columns: Sequence[Column[R]], records: Iterable[R]) -> None:
    """Print aligned columns under their titles."""
    lines = [[column.title for column in columns]]
    lines += [[escape(column.text(record)) for column in columns] for record in records]
    widths = [max(len(cell) for cell in cells) for cells in zip(*lines, strict=True)]
    for line in lines:
        click.echo(_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


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


def size(count: int) -> str:
    """Bytes as docker prints them: three digits and a decimal unit."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:  # would print as 1e+03
        value, unit = value / 1000, unit + 1
    return f"{value:.3g}{_UNITS[unit]}"


def age(moment: datetime | None) -> str:
    """How long ago, in docker's words."""
    if moment is None:
        return "N/A"
    return f"{duration((datetime.now(UTC) - moment).total_seconds())} ago"


def duration(seconds: float) -> str:
    """A stretch of time in one unit."""
    days = seconds / _DAY
    table = (
        (1, "Less than a second"),
        (2, "1 second"),
        (_MINUTE, f"{seconds:.0f} seconds"),
        (2 * _MINUTE, "About a minute"),
        (_HOUR, f"{seconds // _MINUTE:.0f} minutes"),
        (2 * _HOUR, "About an hour"),
        (2 * _DAY, f"{seconds // _HOUR:.0f} hours"),
        (14 * _DAY, f"{int(days)} days"),
        (60 * _DAY, f"{int(days / 7)} weeks"),
        (730 * _DAY, f"{int(days / 30)} months"),
    )
    return next((words for limit, words in table if seconds < limit), f"{int(days / 365)} years")


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

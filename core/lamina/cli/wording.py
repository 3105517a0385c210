"""Sizes, ages and columns, in docker's words. Light: what is imported here is imported by the quickest commands."""

from __future__ import annotations

from datetime import UTC, datetime

TYPE_CHECKING = False  # typing takes longer to import than a listing to print
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_GAP = "   "
_LEAST = 7  # characters of a column: with the gap docker's are at least ten wide
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_COMMAND = 20  # characters of a command that ps shows, as docker does

IMAGE_TITLES = ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE")
CONTAINER_TITLES = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")


def aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table; every column as wide as its widest cell, or as docker's narrowest."""
    widths = [max(_LEAST, *map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        yield _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def size(count: int) -> str:
    """Bytes as docker prints them: three digits and a decimal unit."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:  # would print as 1e+03
        value, unit = value / 1000, unit + 1
    return f"{value:.3g}{_UNITS[unit]}"


def age(moment: datetime | None) -> str:
    """How long ago, in docker's words."""
    return "N/A" if moment is None else f"{duration((datetime.now(UTC) - moment).total_seconds())} ago"


def age_since(moment: str | None) -> str:
    """The same for a time in ISO 8601."""
    return age(datetime.fromisoformat(moment) if moment else None)


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


def command(words: Sequence[str], *, whole: bool) -> str:
    """What a container runs, quoted as for a shell, and cut to what ps shows of it."""
    import shlex  # noqa: PLC0415  # not for a listing without containers

    text = shlex.join(words)
    return f'"{text if whole or len(text) <= _COMMAND else text[: _COMMAND - 1] + "…"}"'


def status(state: str, started: str, finished: str, code: int) -> str:
    """How a container is and since when; the state as docker calls it, the times in ISO 8601."""
    if state in {"running", "paused"}:
        since = duration((datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds())
        return f"Up {since}{' (Paused)' if state == 'paused' else ''}"
    return f"Exited ({code}) {age(datetime.fromisoformat(finished))}" if state == "exited" else "Created"

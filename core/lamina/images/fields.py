"""Read JSON that strangers wrote: strict about what we use, blind to what we do not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from lamina.errors import BadArchive

LARGEST_DOCUMENT = 4 << 20  # what registries promise to take; a config or manifest is a few kilobytes
LARGEST_LIST = 4096  # layers, manifests of an index, history: the kernel stacks 500 layers

Fields = Mapping[str, Any]

# Go writes nanoseconds and any offset; fromisoformat of 3.11 takes neither nine digits nor other counts of them
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def read_object(raw: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `raw`; BadArchive if it is something else, too large, or says a thing twice."""
    value = read_json(raw, what)
    if not isinstance(value, dict):
        raise BadArchive(what, "is not a JSON object")
    return value


def read_json(raw: bytes, what: str) -> Any:
    """The JSON value in `raw`; BadArchive if it is no JSON or too large."""
    if len(raw) > LARGEST_DOCUMENT:
        raise BadArchive(what, f"is larger than {LARGEST_DOCUMENT >> 20} MiB")
    try:
        return json.loads(raw, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise BadArchive(what, f"is not JSON: {error}") from error


def text(fields: Fields, key: str, what: str, default: str | None = None) -> str:
    """A string, or `default` if it is missing or null."""
    value = fields.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise BadArchive(what, f"{key} must be a string")
    return value


def size(fields: Fields, key: str, what: str) -> int:
    """A length in bytes."""
    value = fields.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise BadArchive(what, f"{key} must be a number of bytes")
    return value


def flag(fields: Fields, key: str, what: str) -> bool:
    """A boolean; missing is false."""
    value = fields.get(key)
    if value is not None and not isinstance(value, bool):
        raise BadArchive(what, f"{key} must be true or false")
    return bool(value)


def table(fields: Fields, key: str, what: str) -> dict[str, Any]:
    """An object; missing and null are empty."""
    value = fields.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadArchive(what, f"{key} must be an object")
    return cast("dict[str, Any]", value)


def texts(fields: Fields, key: str, what: str) -> tuple[str, ...]:
    """A list of strings; missing and null are empty."""
    values = _list(fields, key, what)
    if not all(isinstance(value, str) for value in values):
        raise BadArchive(what, f"{key} must be a list of strings")
    return tuple(values)


def text_table(fields: Fields, key: str, what: str) -> dict[str, str]:
    """An object whose values are strings; missing and null are empty."""
    value = table(fields, key, what)
    if not all(isinstance(item, str) for item in value.values()):
        raise BadArchive(what, f"the values of {key} must be strings")
    return value


def objects(fields: Fields, key: str, what: str) -> tuple[dict[str, Any], ...]:
    """A list of objects; missing and null are empty."""
    values = _list(fields, key, what)
    if not all(isinstance(value, dict) for value in values):
        raise BadArchive(what, f"{key} must be a list of objects")
    return tuple(values)


def time(fields: Fields, key: str, what: str) -> datetime | None:
    """A point in time, to the microsecond, in UTC; None if it is missing or empty."""
    value = text(fields, key, what, "")
    if not value:
        return None
    if (match := _TIME.fullmatch(value)) is None:
        raise BadArchive(what, f"{key} is not a time: {value[:40]!r}")
    base, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{base}.{(fraction or '')[:6]:0<6}{'+00:00' if offset == 'Z' else offset}")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadArchive(what, f"{key} is not a time: {value[:40]!r}") from error


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC, as Go writes it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _list(fields: Fields, key: str, what: str) -> list[Any]:
    value = fields.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadArchive(what, f"{key} must be a list")
    if len(value) > LARGEST_LIST:
        raise BadArchive(what, f"{key} has more than {LARGEST_LIST} entries")
    return value


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        # two readers could take different ones, and what one verified the other would not use
        raise ValueError("a key is given twice")
    return result

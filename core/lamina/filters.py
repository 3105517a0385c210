"""Choose snapshots: `kind==active`, `labels.color!=blue`, `name~=^sha256:`, several joined by commas."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from lamina.errors import BadRequest
from lamina.snapshot import Snapshot

Filter = Callable[[Snapshot], bool]

_FIELDS: Final[dict[str, Callable[[Snapshot], str]]] = {
    "name": lambda one: one.name,
    "parent": lambda one: one.parent or "",
    "kind": lambda one: one.kind.value,
}
_TERM: Final = re.compile(
    r"""\s*(?P<field>name|parent|kind|labels\.(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<label>[^\s=!~,"]+)))
        \s*(?:(?P<operator>==|!=|~=)\s*(?:"(?P<text>(?:[^"\\]|\\.)*)"|(?P<word>[^,"]*)))?\s*(?:,|$)""",
    re.VERBOSE,
)


def choose(filters: Sequence[str]) -> Filter:
    """True for what matches any of the filters, or for everything if there are none.

    Within one filter all terms joined by commas must hold. A label alone asks whether it is there. BadRequest if a
    filter cannot be read.
    """
    parsed = [_parse(one) for one in filters]
    if not parsed:
        return lambda _: True
    return lambda one: any(all(term(one) for term in terms) for terms in parsed)


def _parse(text: str) -> list[Filter]:
    terms, at = list[Filter](), 0
    while at < len(text) or not terms:
        found = _TERM.match(text, at)
        if found is None:
            raise BadRequest(
                f"filter {text!r}: cannot be read from {text[at:]!r} on; say name==X, parent==X, kind==X or "
                "labels.KEY==X, with ==, != or ~= (a regular expression)"
            )
        terms.append(_term(found))
        at = found.end()
    return terms


def _term(found: re.Match[str]) -> Filter:
    read = _reader(found)
    wanted = found["word"].strip() if found["text"] is None and found["word"] else _unquote(found["text"] or "")
    match found["operator"]:
        case "==":
            return lambda one: read(one) == wanted
        case "!=":
            return lambda one: read(one) != wanted
        case "~=":
            pattern = _compile(wanted)
            return lambda one: pattern.search(read(one) or "") is not None
        case _:
            return lambda one: bool(read(one))


def _reader(found: re.Match[str]) -> Callable[[Snapshot], str | None]:
    if found["field"] in _FIELDS:
        return _FIELDS[found["field"]]
    label = found["label"] or _unquote(found["quoted"] or "")
    return lambda one: one.labels.get(label)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise BadRequest(f"filter: {pattern!r} is no regular expression: {error}") from error


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)

"""Choose snapshots in containerd's filter language: `kind==active`, `labels.color!=blue`, `name~=/^sha256:/`.

Terms joined by commas must all hold. What containerd can read means the same here; we read a little more, such as a
label's key or a path without quotes (`labels.containerd.io/gc.root`, `name==/tmp/x`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from lamina.errors import BadRequest
from lamina.snapshot import Snapshot

Filter = Callable[[Snapshot], bool]
Reader = Callable[[Snapshot], str | None]  # None: the snapshot has no such field

_FIELDS: Final[dict[str, Reader]] = {
    "name": lambda one: one.name,
    "parent": lambda one: one.parent or "",
    "kind": lambda one: one.kind.value,
}
_HEX: Final = "[0-9A-Fa-f]"


def _quoted(quote: str) -> str:
    """A string in Go's form between these quotes."""
    escape = rf"[abfnrtv\\{quote}]|[0-3][0-7]{{2}}|x{_HEX}{{2}}|u{_HEX}{{4}}|U{_HEX}{{8}}"
    return rf"{quote}(?:[^{quote}\\\n]|\\(?:{escape}))*{quote}"


_BAR: Final = re.escape("|")
_FIELD: Final = rf'(?:{_quoted(chr(34))}|[^\s=!~,".]+)'
_TERM: Final = re.compile(
    rf"""\s*(?P<path>{_FIELD}(?:\s*\.\s*{_FIELD})*)\s*
        (?:(?P<operator>==|!=|(?P<matches>~=))\s*(?:
            (?P<quoted>{_quoted('"')}|(?(matches){_quoted("/")}|(?!))|(?(matches){_quoted(_BAR)}|(?!)))
            |(?P<word>(?(matches)(?![/|])|)[^\s,"=!~][^\s,]*)
        )\s*)?(?P<end>,|$)""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(rb"\\(?:([0-7]{3})|x(..)|u(....)|U(........)|(.))", re.DOTALL)
_LETTERS: Final = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v", strict=True))


def choose(filters: Sequence[str], *, any_field: bool = False) -> Filter:
    """True for what matches any of the filters, or for everything if there are none, or an empty one.

    Without an operator a term asks whether the field is there. BadRequest for a filter that cannot be read, and for a
    field that no snapshot has, unless `any_field`: then nobody has it, as containerd sees it.
    """
    parsed = [_parse(one, any_field=any_field) for one in filters]
    if not parsed:
        return lambda _: True
    return lambda one: any(all(term(one) for term in terms) for terms in parsed)


def _parse(text: str, *, any_field: bool) -> list[Filter]:
    terms, at, more = list[Filter](), 0, text != ""
    while more:
        found = _TERM.match(text, at)
        if found is None:
            raise BadRequest(
                f"filter {text!r}: cannot be read from {text[at:]!r} on; say name==X, parent==X, kind==X or "
                "labels.KEY==X, with ==, != or ~= (a regular expression)"
            )
        terms.append(_term(found, any_field=any_field))
        at, more = found.end(), found["end"] == ","
    return terms


def _term(found: re.Match[str], *, any_field: bool) -> Filter:
    read = _reader([_unquoted(field) for field in re.findall(_FIELD, found["path"])], any_field=any_field)
    wanted = found["word"] or _unquoted(found["quoted"] or "")
    match found["operator"]:
        case "==":
            return lambda one: read(one) == wanted
        case "!=":
            return lambda one: (read(one) or "") != wanted
        case "~=":
            pattern = _compile(wanted)
            return lambda one: pattern.search(read(one) or "") is not None
        case _:
            return lambda one: read(one) is not None


def _reader(path: Sequence[str], *, any_field: bool) -> Reader:
    first, *rest = path
    if first == "labels" and (rest or any_field):
        key = ".".join(rest)
        return lambda one: one.labels.get(key)
    if first in _FIELDS:
        return _FIELDS[first]
    if any_field:
        return lambda _: None
    raise BadRequest(f"filter: a snapshot has no {first!r}; there are name, parent, kind and labels.KEY")


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise BadRequest(f"filter: {pattern!r} is no regular expression: {error}") from error


def _unquoted(text: str) -> str:
    """What a string in Go's form means; what is not quoted means itself."""
    if text[:1] not in {'"', "/", "|"} or text[-1] != text[0] or len(text) == 1:
        return text
    try:
        return _ESCAPE.sub(_unescaped, text[1:-1].encode()).decode()
    except ValueError as error:
        raise BadRequest(f"filter: {text} is not text: {error}") from error


def _unescaped(found: re.Match[bytes]) -> bytes:
    octal, byte, short, long, letter = found.groups()
    if octal or byte:
        return bytes([int(octal, 8) if octal else int(byte, 16)])
    if short or long:
        return chr(int(short or long, 16)).encode()
    return bytes([_LETTERS.get(letter[0], letter[0])])

"""What snapshots and their labels may be called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from lamina.errors import BadRequest, InvalidName

LONGEST_NAME: Final = 1024  # bytes in UTF-8
LONGEST_LABEL: Final = 4096  # bytes of key and value together, as in containerd

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # so that a name is one line wherever it is shown


def check_name(name: str) -> str:
    """The name itself; InvalidName if it is empty, too long, not text, or would not fit on one line."""
    if not name:
        raise InvalidName("a snapshot needs a name")
    if found := _CONTROL.search(name):
        raise InvalidName(f"{name!r}: a snapshot's name cannot contain {found[0]!r}")
    if _length(name) > LONGEST_NAME:
        raise InvalidName(f"{name[:40]!r}…: a snapshot's name has at most {LONGEST_NAME} bytes")
    return name


def check_labels(labels: Mapping[str, str] | None) -> Mapping[str, str]:
    """The labels; BadRequest if one has no key, is too long, or is not text."""
    for key, value in (labels or {}).items():
        check_label(key, value)
    return labels or {}


def check_label(key: str, value: str) -> None:
    """BadRequest if this is no label."""
    if {type(key), type(value)} != {str}:
        raise BadRequest(f"label {key!r}: keys and values are strings")
    if not key or "\0" in key or "\0" in value:
        raise BadRequest(f"label {key!r}: a label needs a key, and cannot contain NUL")
    if _length(key) + _length(value) > LONGEST_LABEL:
        raise BadRequest(f"label {key[:40]!r}: key and value have at most {LONGEST_LABEL} bytes together")


def _length(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidName(f"{text!r}: is not text that UTF-8 can hold") from error

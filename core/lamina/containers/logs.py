"""What a container has written, from the log that its monitor keeps."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

_PATIENCE: Final = 0.05  # seconds between two looks at a log that is followed


@attrs.frozen
class Line:
    """One line, or a part of a long one; `text` has its own end of line, unless it is a part."""

    time: str
    error: bool
    text: bytes


def read_log(path: Path, *, tail: int | None = None) -> Iterator[Line]:
    """What is there; with `tail` only its last lines."""
    with open(path, "rb") as file:
        lines: Iterable[Line] = _lines(file.readlines())
        yield from lines if tail is None else _last(lines, tail)


def follow_log(path: Path, ended: Callable[[float], bool], *, tail: int | None = None) -> Iterator[Line]:
    """What is there, and then what comes, until `ended`, which may take the time to wait, says that nothing will."""
    rest = b""
    with open(path, "rb") as file:
        whole = file.readlines()
        if whole and not whole[-1].endswith(b"\n"):
            rest = whole.pop()
        lines: Iterable[Line] = _lines(whole)
        yield from lines if tail is None else _last(lines, tail)
        last = False
        while True:
            data = rest + file.read()
            whole_part, end, rest = data.rpartition(b"\n")
            yield from _lines((whole_part + end).splitlines(keepends=True))
            if last:
                return
            last = ended(_PATIENCE)  # once more after the end: it may have written before it ended


def _last(lines: Iterable[Line], count: int) -> Iterator[Line]:
    """The last `count` whole lines, with all their parts."""
    kept: deque[list[Line]] = deque(maxlen=max(count, 0))
    parts: list[Line] = []
    for line in lines:
        parts.append(line)
        if line.text.endswith(b"\n"):
            kept.append(parts)
            parts = []
    if parts:
        kept.append(parts)
    for each in kept:
        yield from each


def _lines(raw: Iterable[bytes]) -> Iterator[Line]:
    for entry in raw:
        words = entry.rstrip(b"\n").split(b" ", 3)
        if len(words) < 4:  # a monitor that was killed may have left a half
            continue
        time, stream, tag, text = words
        yield Line(os.fsdecode(time), stream == b"stderr", text + (b"\n" if tag == b"F" else b""))

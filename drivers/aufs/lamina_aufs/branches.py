"""An aufs mount as data: its branches, as many as the kernel takes at once, and the rest by remounting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from lamina.mount import Mount

MOST: Final = 126  # read-only branches; aufs takes 127 in all, unless its kernel was configured for more
STEP: Final = 64  # flattened layers come in multiples of it, so that many stacks share them
_PAGE: Final = 4096 - 1
# options and branches in one call: aufs has an array of a page for them, of 85 on 64-bit machines; at one more, it
# frees what it never had, and the kernel panics (seen on 6.1, and the same code from 5.10 to 6.11)
_AT_ONCE: Final = 64


def aufs_mounts(branches: Sequence[str], options: Sequence[str], *, writable: bool) -> tuple[Mount, ...]:
    """The mounts that join these directories, the topmost first; the first is written to, if any is.

    No name may hold a colon, a comma or an equals sign: aufs knows no escapes.
    """
    words = [f"{path}={'rw' if writable and not number else 'ro+wh'}" for number, path in enumerate(branches)]
    room = _PAGE - len(",".join(("br", *options)))
    first = min(_fitting(words, room), _AT_ONCE - len(options))
    how = ("rw" if writable else "ro", f"br:{':'.join(words[:first])}", *options)
    return (Mount("aufs", "none", how), *_appended([f"append:{word}" for word in words[first:]], how[0]))


def _appended(words: Sequence[str], how: str) -> Iterator[Mount]:
    """Remounts that add the branches below those before, as many at once as fit."""
    while words:
        number = min(_fitting(words, _PAGE), _AT_ONCE)
        yield Mount("aufs", "none", ("remount", how, *words[:number]))
        words = words[number:]


def _fitting(words: Sequence[str], room: int) -> int:
    """How many of the words fit, a separator before each."""
    for number, word in enumerate(words):
        room -= len(word.encode(errors="surrogateescape")) + 1
        if room < 0:
            return number
    return len(words)


def to_be_flattened(depth: int) -> int:
    """How many of `depth` read-only layers, from the bottom up, have to become one."""
    if depth <= MOST:
        return 0
    return -(-(depth + 1 - MOST) // STEP) * STEP

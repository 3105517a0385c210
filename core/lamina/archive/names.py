"""Names in a layer tar: judged before anybody acts on them."""

from __future__ import annotations

import enum
from typing import Final

import attrs

from lamina.errors import BadArchive

WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
# aufs's own, which old versions of docker left in their layers: links under other names, and lists of them
_AUFS: Final = (b".wh..wh.plnk", b".wh..wh.orph", b".wh..wh.aufs")
_LONGEST: Final = 1 << 16  # sixteen times what a program can say to the kernel at once


class Meaning(enum.Enum):
    """What an entry is there for."""

    ENTRY = "it is itself"
    GONE = "the name is gone from the layers below"
    OPAQUE = "all names in this directory are gone from the layers below"
    NOTHING = "somebody else's bookkeeping"


@attrs.frozen
class Name:
    """A judged name: below which directory, under which name, and what that means. The root is `b""` in `b""`."""

    directory: bytes
    name: bytes
    meaning: Meaning = Meaning.ENTRY

    @property
    def path(self) -> bytes:
        """Relative to the root of the tree, without a slash at either end."""
        return join(self.directory, self.name)


def join(directory: bytes, name: bytes) -> bytes:
    """A path without a leading slash, wherever it begins."""
    return directory + b"/" + name if directory else name


def judge(path: bytes) -> Name:
    """What an entry of this path means. Absolute, with `..`, or abusing the names of whiteouts: BadArchive."""
    if path.startswith(b"/") and path.strip(b"/"):
        raise BadArchive(path, "an absolute name")
    parts = _parts(path)
    if not parts:
        return Name(b"", b"")
    directory, name = b"/".join(parts[:-1]), parts[-1]
    if any(part.startswith(_AUFS) for part in parts):
        return Name(directory, name, Meaning.NOTHING)
    if any(part.startswith(WHITEOUT) for part in parts[:-1]):
        raise BadArchive(path, "it lies in something that is gone")
    if not name.startswith(WHITEOUT):
        return Name(directory, name)
    if name == OPAQUE:
        return Name(directory, b"", Meaning.OPAQUE)
    hidden = name.removeprefix(WHITEOUT)
    if hidden in {b"", b".", b".."} or hidden.startswith(WHITEOUT):
        raise BadArchive(path, "a whiteout of nothing")
    return Name(directory, hidden, Meaning.GONE)


def judge_link(path: bytes, target: bytes) -> Name:
    """What a hard link points at. A leading slash means the root of the tree."""
    parts = _parts(target)
    if not parts or any(part.startswith(WHITEOUT) for part in parts):
        raise BadArchive(path, f"a hard link to {target!r}, which is no file of a layer")
    return Name(b"/".join(parts[:-1]), parts[-1])


def _parts(path: bytes) -> list[bytes]:
    if len(path) > _LONGEST:
        raise BadArchive(path[:256], "a name of more than 65,536 bytes")
    parts = [part for part in path.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise BadArchive(path, "a name with '..' in it")
    return parts

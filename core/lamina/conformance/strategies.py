"""Hypothesis: random edits of a tree, each valid where it is done."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import strategies as st

from lamina.conformance.caller import is_root
from lamina.conformance.model import DIRECTORY, FILE, LINK, Model, Node, Step
from lamina.driver import Ability

NAMES = (b"a", b"b", b"c", b"d", b"\xff\xfe", b"line\nbreak", b"n" * 255, "é".encode())
FIRST_SECOND = 1_100_000_000  # edits happen in 2004, one each second
MAXIMUM_DEPTH = 4


@attrs.frozen
class Whim:
    """One random edit before it is known what there is to edit: numbers pick among what the tree offers."""

    verb: str
    first: int
    second: int
    motif: bytes
    times: int
    mode: int
    owner: int

    @property
    def content(self) -> bytes:
        """What a file is to hold: something short, or the same many times."""
        return self.motif * self.times


VERBS: tuple[str, ...] = (
    *("file", "file", "directory", "directory", "symlink", "special", "write", "write", "truncate", "attributes"),
    *("attributes", "set_xattr", "remove_xattr", "link", "remove", "remove", "rename", "rename", "replace"),
)


def whims() -> st.SearchStrategy[Whim]:
    """A random edit; small numbers, short contents and plain modes first, so that failures shrink well."""
    return st.builds(
        Whim,
        verb=st.sampled_from(VERBS),
        first=st.integers(0, 999),
        second=st.integers(0, 999),
        motif=st.binary(max_size=20),
        times=st.sampled_from((1, 1, 1, 1, 300, 7000)),
        mode=st.sampled_from((0o755, 0o644, 0o700, 0o4755, 0o2755, 0o1777, 0o000, 0o600)),
        owner=st.sampled_from((0, 0, 1, 1000, 65534)),
    )


def resolve(whim: Whim, model: Model, number: int) -> Step | None:
    """The whim as a step that is possible in this tree; None if the tree offers nothing to do it to."""
    part = 0 if Ability.NANOSECOND_TIMES in model.cannot else number * 1_234_567 % 10**9
    made = _RULES[whim.verb](whim, model)
    return made and attrs.evolve(made, time=(FIRST_SECOND + number) * 10**9 + part)


def _owned(whim: Whim) -> dict[str, Any]:
    # an ordinary user owns what he makes
    owner = (whim.owner, whim.owner) if is_root() else (os.geteuid(), os.getegid())
    mode = whim.mode if is_root() else whim.mode | 0o700
    return {"uid": owner[0], "gid": owner[1], "mode": mode}


def _pick(model: Model, number: int, wanted: Callable[[Node], bool]) -> bytes | None:
    found = [path for path, node in model.walk() if wanted(node)]
    return found[number % len(found)] if found else None


def _anything(_: Node) -> bool:
    return True


def _room(model: Model, number: int, name: int) -> bytes | None:
    """A path at which nothing is yet."""
    directories = [b"", *(path for path, node in model.walk() if node.type == DIRECTORY)]
    directories = [path for path in directories if path.count(b"/") < MAXIMUM_DEPTH]
    above = directories[number % len(directories)]
    taken = model.at(above).entries
    longest = 242 if Ability.LONG_NAMES in model.cannot else 255
    free = [name for name in NAMES if name not in taken and len(name) <= longest]
    return (above + b"/" if above else b"") + free[name % len(free)] if free else None


def _make(whim: Whim, model: Model, kind: int, **node: Any) -> Step | None:
    path = _room(model, whim.first, whim.second)
    return None if path is None else Step("make", path, {"type": kind, **_owned(whim), **node})


def _symlink(whim: Whim, model: Model) -> Step | None:
    target = whim.content[:50].replace(b"\0", b"/") or b"nowhere"
    return _make(whim, model, LINK, content=target, mode=0o777)


def _special(whim: Whim, model: Model) -> Step | None:
    if is_root() and whim.second % 2:
        return _make(whim, model, stat.S_IFCHR, rdev=os.makedev(1, 3))
    return _make(whim, model, stat.S_IFIFO)


def _write(whim: Whim, model: Model) -> Step | None:
    taken = 0o6000 if Ability.SETID_WRITES in model.cannot else 0  # what the write would take away
    path = _pick(model, whim.first, lambda node: node.type == FILE and not node.mode & taken)
    return None if path is None else Step("write", path, {"offset": whim.second * 7, "data": whim.content or b"!"})


def _truncate(whim: Whim, model: Model) -> Step | None:
    path = _pick(model, whim.first, lambda node: node.type == FILE)
    return None if path is None else Step("truncate", path, {"size": whim.second % 100})


def _attributes(whim: Whim, model: Model) -> Step | None:
    paths = [b"", *(path for path, _ in model.walk())]  # the root directory too
    return Step("attributes", paths[whim.first % len(paths)], _owned(whim))


def _set_xattr(whim: Whim, model: Model) -> Step | None:
    if Ability.XATTRS in model.cannot:
        return None
    path = _pick(model, whim.first, lambda node: node.type in (FILE, DIRECTORY))
    space = "trusted" if is_root() and whim.second % 2 else "user"
    name = f"{space}.lamina.{whim.second % 3}"
    return None if path is None else Step("set_xattr", path, {"name": name, "value": whim.content[:100]})


def _remove_xattr(whim: Whim, model: Model) -> Step | None:
    if Ability.REMOVE_XATTRS in model.cannot:
        return None
    path = _pick(model, whim.first, lambda node: bool(node.xattrs))
    if path is None:
        return None
    names = sorted(model.at(path).xattrs)
    return Step("remove_xattr", path, {"name": names[whim.second % len(names)]})


def _link(whim: Whim, model: Model) -> Step | None:
    path = _pick(model, whim.first, lambda node: node.type != DIRECTORY)
    to = _room(model, whim.second, whim.first)
    return None if path is None or to is None else Step("link", path, {"to": to})


def _remove(whim: Whim, model: Model) -> Step | None:
    path = _pick(model, whim.first, _anything)
    return None if path is None else Step("remove", path)


def _rename(whim: Whim, model: Model) -> Step | None:
    path = _pick(model, whim.first, _anything)
    to = _room(model, whim.second, whim.first)
    if path is None or to is None or not model.may_rename(path) or (to + b"/").startswith(path + b"/"):
        return None
    return Step("rename", path, {"to": to})


def _replace(whim: Whim, model: Model) -> Step | None:
    """A rename onto something that is there: a file onto a file, a directory onto an empty directory."""
    path = _pick(model, whim.first, _anything)
    if path is None or not model.may_rename(path):
        return None
    node = model.at(path)
    same = [
        other
        for other, there in model.walk()
        if there is not node
        and (there.type == DIRECTORY) == (node.type == DIRECTORY)
        and not there.entries
        and not (other + b"/").startswith(path + b"/")
    ]
    return Step("rename", path, {"to": same[whim.second % len(same)]}) if same else None


_RULES: dict[str, Callable[[Whim, Model], Step | None]] = {
    "file": lambda whim, model: _make(whim, model, FILE, content=whim.content),
    "directory": lambda whim, model: _make(whim, model, DIRECTORY),
    "symlink": _symlink,
    "special": _special,
    "write": _write,
    "truncate": _truncate,
    "attributes": _attributes,
    "set_xattr": _set_xattr,
    "remove_xattr": _remove_xattr,
    "link": _link,
    "remove": _remove,
    "rename": _rename,
    "replace": _replace,
}

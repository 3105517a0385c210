"""Who a container's process is: names and numbers looked up in the container's own passwd and group files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import attrs

from lamina.containers.places import Tree
from lamina.errors import BadRequest

_MOST: Final = 16 << 20  # bytes that are read of a file which the image has made


@attrs.frozen
class User:
    """Numbers, and where home is."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


def find_user(tree: Tree, text: str) -> User:
    """Read `USER[:GROUP]`, each a name or a number; nothing is root. BadRequest for a name that nobody has."""
    name, _, group = text.partition(":")
    user = _user(tree, name or "0")
    if not group:
        return user
    return attrs.evolve(user, gid=_group(tree, group), groups=())


def _user(tree: Tree, name: str) -> User:
    for fields in _lines(tree, b"etc/passwd", 6):
        if name in {fields[0], fields[2]} and fields[2].isdecimal() and fields[3].isdecimal():
            groups = tuple(_groups_of(tree, fields[0]))
            return User(int(fields[2]), int(fields[3]), groups, fields[5] or "/")
    if name.isdecimal() and int(name) < 1 << 31:
        return User(int(name))
    raise BadRequest(f"the container has no user {name!r} in its /etc/passwd")


def _group(tree: Tree, name: str) -> int:
    for fields in _lines(tree, b"etc/group", 3):
        if name in {fields[0], fields[2]} and fields[2].isdecimal():
            return int(fields[2])
    if name.isdecimal() and int(name) < 1 << 31:
        return int(name)
    raise BadRequest(f"the container has no group {name!r} in its /etc/group")


def _groups_of(tree: Tree, user: str) -> Iterator[int]:
    for fields in _lines(tree, b"etc/group", 4):
        if user in fields[3].split(",") and fields[2].isdecimal():
            yield int(fields[2])


def _lines(tree: Tree, path: bytes, least: int) -> Iterator[list[str]]:
    try:
        with tree.opened(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:  # a fifo there keeps nobody waiting
            data = os.pread(descriptor, _MOST, 0)
    except OSError:  # none, or no file
        return
    for line in data.decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) >= least:
            yield fields

"""A life of a store, verb by verb, for crash tests: what is there after each verb that was acknowledged."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from lamina.conformance.crash import Steps
from lamina.conformance.harness import LONG_AGO, Room, append, link, mkdir, rmtree, unlink, write
from lamina.driver import Ability
from lamina.layer import Kind
from lamina.snapshotter import Snapshotter

State = Mapping[str, Kind]


@attrs.frozen
class Scene:
    """Where the story is lived."""

    room: Room
    snapshots: Snapshotter
    steps: Steps = attrs.field(factory=lambda: Steps(None))


Act = Callable[[Scene], object]


@attrs.frozen
class Verb:
    """One verb of the story: what it does, and which snapshots exist when it has been acknowledged."""

    name: str
    act: Act
    after: State


def place_of(room: Room, key: str) -> Path:
    """Where the story mounts this snapshot; known in advance, so that one can look after a crash."""
    return room.path / f"at-{key}"


def _edited(key: str, *edits: Callable[[Path], object]) -> Act:
    def act(on: Scene) -> None:
        place = place_of(on.room, key)
        place.mkdir()
        on.snapshots.mount(key, place)
        with on.steps.paused():  # what a user writes is no step of ours
            for change in edits:
                change(place)
            _date(place)
        on.snapshots.unmount(place)

    return act


def _date(root: Path) -> None:
    for directory, below, files in os.walk(root, topdown=False):
        for name in [*below, *files]:
            os.utime(os.path.join(directory, name), (LONG_AGO, LONG_AGO), follow_symlinks=False)
    os.utime(root, (LONG_AGO, LONG_AGO))


def a_layer() -> io.BytesIO:
    """A tar with files, directories, links and removals."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(3):
            for name, kind, size in ((f"applied{number}", tarfile.DIRTYPE, 0), (f"applied{number}/file", b"0", 5000)):
                member = tarfile.TarInfo(name)
                member.type, member.size, member.mode, member.mtime = kind, size, 0o755, LONG_AGO
                tar.addfile(member, io.BytesIO(bytes(size)))
        for name, target, kind in (("hard", "applied0/file", tarfile.LNKTYPE), ("soft", "hard", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mtime = kind, target, LONG_AGO
            tar.addfile(member)
        gone = tarfile.TarInfo("dir/.wh.gone")
        gone.mtime = LONG_AGO
        tar.addfile(gone)
    out.seek(0)
    return out


A, V, C = Kind.ACTIVE, Kind.VIEW, Kind.COMMITTED
_BASE = [write("dir/file", "base"), write("dir/gone", "x"), mkdir("empty"), write("one", "1"), link("one", "two")]
_CHILD = [append("dir/file", " and child"), unlink("dir/gone"), rmtree("empty"), write("new/file", "new")]


def story(cannot: frozenset[Ability]) -> list[Verb]:
    """Every verb at least once, in an order in which a store is used."""
    told = [
        Verb("prepare the base", lambda on: on.snapshots.prepare("b"), {"b": A}),
        Verb("write to it through a mount", _edited("b", *_BASE), {"b": A}),
        Verb("commit the base", lambda on: on.snapshots.commit("base", "b"), {"base": C}),
        Verb("prepare a child", lambda on: on.snapshots.prepare("c", "base"), {"base": C, "c": A}),
        Verb("change things in it", _edited("c", *_CHILD), {"base": C, "c": A}),
        Verb("commit the child", lambda on: on.snapshots.commit("child", "c"), {"base": C, "child": C}),
        Verb("prepare for a tar", lambda on: on.snapshots.prepare("t", "base"), {"base": C, "child": C, "t": A}),
        Verb("apply the tar", lambda on: on.snapshots.apply("t", a_layer()), {"base": C, "child": C, "t": A}),
        Verb("commit the tar", lambda on: on.snapshots.commit("tar", "t"), {"base": C, "child": C, "tar": C}),
        Verb("view the child", lambda on: on.snapshots.view("v", "child"), {"base": C, "child": C, "tar": C, "v": V}),
        Verb(
            "diff the child",
            lambda on: on.snapshots.diff("child", io.BytesIO()),
            {"base": C, "child": C, "tar": C, "v": V},
        ),
        Verb("look at the view", _looked("v"), {"base": C, "child": C, "tar": C, "v": V}),
        Verb("remove the view", lambda on: on.snapshots.remove("v"), {"base": C, "child": C, "tar": C}),
        Verb("label the base", lambda on: on.snapshots.label("base", {"a": "b"}), {"base": C, "child": C, "tar": C}),
        Verb("remove the child", lambda on: on.snapshots.remove("child"), {"base": C, "tar": C}),
    ]
    if Ability.REBASE not in cannot:
        told += [
            Verb("prepare alone", lambda on: on.snapshots.prepare("l"), {"base": C, "tar": C, "l": A}),
            Verb(
                "apply alone",
                lambda on: on.snapshots.apply("l", _without_parent(), alone=True),
                {"base": C, "tar": C, "l": A},
            ),
            Verb(
                "commit it onto a parent",
                lambda on: on.snapshots.commit("joined", "l", parent="base"),
                {"base": C, "tar": C, "joined": C},
            ),
        ]
    return told


def _looked(key: str) -> Act:
    def act(on: Scene) -> None:
        with on.snapshots.look(key) as root:
            os.listdir(root)

    return act


def _without_parent() -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("alone")
        member.size, member.mtime = 3, LONG_AGO
        tar.addfile(member, io.BytesIO(b"yes"))
    out.seek(0)
    return out

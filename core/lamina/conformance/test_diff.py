"""Diff and apply: the canonical list of changes, tar bytes that repeat, and the same tree on the other side."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamina import diff
from lamina.conformance.harness import (
    Edit,
    Room,
    append,
    foreign_tar,
    grow,
    layer_tar,
    link,
    mkdir,
    rename,
    rmtree,
    seen,
    settle,
    symlink,
    unlink,
    write,
)
from lamina.conformance.marks import needs, needs_root
from lamina.conformance.witness import assert_same, expected_changes
from lamina.driver import Ability
from lamina.snapshotter import Snapshotter


def _base(root: Path) -> None:
    for change in (
        write("file", "text"),
        write("dir/file", "text"),
        write("dir/sub/deep", "deep"),
        write("other/file", "x" * 100),
        mkdir("empty"),
        symlink("link", "file"),
        write("linked", "linked"),
        link("linked", "other/linked"),
        write("line\nbreak", "strange"),
    ):
        change(root)


def _same_size_and_time(root: Path) -> None:
    """Peers that compare sizes and times do not see this one."""
    status = (root / "file").stat()
    (root / "file").write_text("TEXT")
    os.utime(root / "file", ns=(status.st_atime_ns, status.st_mtime_ns))


def _made_anew(root: Path) -> None:
    rmtree("dir")(root)
    write("dir/file", "other")(root)
    write("dir/new", "new")(root)


def _touched(root: Path) -> None:
    """Copied up, and the same as before."""
    status = (root / "dir/file").stat()
    (root / "dir/file").chmod(0o600)
    (root / "dir/file").chmod(0o644)
    os.utime(root / "dir/file", ns=(status.st_atime_ns, status.st_mtime_ns))


EDITS: list[tuple[str, list[Edit]]] = [
    ("nothing", []),
    ("a new file", [write("new", "x")]),
    ("a new file far down", [write("dir/sub/new/newer/file", "x")]),
    ("a longer file", [append("dir/file", "more")]),
    ("same size and time", [_same_size_and_time]),
    ("copied up only", [_touched]),
    ("a mode", [lambda root: (root / "dir/sub/deep").chmod(0o4755)]),
    ("a directory's mode", [lambda root: (root / "dir").chmod(0o700)]),
    ("the root's mode", [lambda root: root.chmod(0o700)]),
    ("a time", [lambda root: os.utime(root / "file", (7, 7))]),
    ("an attribute", [lambda root: os.setxattr(root / "dir", "user.lamina", b"x")]),
    ("a removed file", [unlink("dir/sub/deep")]),
    ("a removed directory", [rmtree("dir")]),
    ("a removed and remade file", [unlink("file"), write("file", "anew")]),
    ("a removed and remade directory", [_made_anew]),
    ("a removed and remade directory in one", [rmtree("dir"), write("dir/sub/other", "x")]),
    ("a removed and remade directory, the same", [rmtree("dir"), write("dir/file", "text")]),
    ("a directory replaced by a file", [rmtree("dir"), write("dir", "file")]),
    ("a file replaced by a directory", [unlink("file"), write("file/inside", "x")]),
    ("a file replaced by a symlink", [unlink("file"), symlink("file", "dir")]),
    ("a directory replaced by a symlink", [rmtree("dir"), symlink("dir", "other")]),
    ("a moved file", [rename("dir/file", "other/moved")]),
    ("a new hard link", [link("file", "dir/again")]),
    ("one name of a linked file removed", [unlink("linked")]),
    ("a linked file written", [append("linked", "more")]),
    ("a new pair of links", [write("new", "x"), link("new", "dir/new")]),
    ("made and removed again", [write("dir/brief", "x"), unlink("dir/brief")]),
    ("a strange name removed", [unlink("line\nbreak")]),
    ("everything removed", [lambda root: [rmtree(name)(root) for name in os.listdir(root)]]),
    ("a prefix of another name", [write("dir.d/file"), write("dir/file"), write("dir-d")]),
]
_NEEDS = {"an attribute": needs(Ability.XATTRS)}
every_edit = pytest.mark.parametrize(
    "edits", [pytest.param(edits, id=name, marks=_NEEDS.get(name, ())) for name, edits in EDITS]
)


def _two(room: Room, snapshots: Snapshotter, edits: list[Edit]) -> None:
    grow(room, snapshots, "base", _base)
    grow(room, snapshots, "child", *edits, parent="base")


@every_edit
def test_changes_are_the_canonical_list(room: Room, snapshots: Snapshotter, edits: list[Edit]) -> None:
    _two(room, snapshots, edits)

    told = [(change.kind.value, change.path) for change in snapshots.changes("child")]

    assert told == expected_changes(seen(snapshots, "base"), seen(snapshots, "child"))


@every_edit
def test_native_changes_equal_those_of_a_walk_over_both_trees(
    room: Room, snapshots: Snapshotter, edits: list[Edit]
) -> None:
    _two(room, snapshots, edits)

    with snapshots.look("base") as old, snapshots.look("child") as new, _opened(old) as one, _opened(new) as other:
        walked = list(diff.compare(one, other))

    told = list(snapshots.changes("child"))
    assert [(change.kind, change.path) for change in told] == [(change.kind, change.path) for change in walked]


@every_edit
def test_a_diff_applied_to_the_parent_makes_the_child(room: Room, snapshots: Snapshotter, edits: list[Edit]) -> None:
    _two(room, snapshots, edits)
    tar = layer_tar(snapshots, "child")

    snapshots.prepare("copy growing", "base")
    snapshots.apply("copy growing", io.BytesIO(tar))
    snapshots.commit("copy", "copy growing")

    assert_same(seen(snapshots, "child"), seen(snapshots, "copy"))
    assert layer_tar(snapshots, "copy") == tar


@every_edit
def test_an_active_snapshot_has_the_same_diff_as_when_it_is_committed(
    room: Room, snapshots: Snapshotter, edits: list[Edit]
) -> None:
    grow(room, snapshots, "base", _base)
    snapshots.prepare("active", "base")
    place = room.place()
    snapshots.mount("active", place)
    for change in edits:
        change(place)
    snapshots.unmount(place)
    before = layer_tar(snapshots, "active")

    snapshots.commit("child", "active")

    assert layer_tar(snapshots, "child") == before


def test_the_same_tree_gives_the_same_bytes(room: Room, snapshots: Snapshotter) -> None:
    names = [f"d{number}/f{number}" for number in range(30)]
    grow(room, snapshots, "one", *(write(name, name) for name in names), settle)
    grow(room, snapshots, "two", *(write(name, name) for name in reversed(names)), settle)

    assert layer_tar(snapshots, "one") == layer_tar(snapshots, "two")
    assert layer_tar(snapshots, "one") == layer_tar(snapshots, "one")


def test_a_layer_is_what_another_tar_reader_expects(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", _base)
    grow(room, snapshots, "child", rmtree("dir"), unlink("file"), write("new/file", "new"), parent="base")

    with tarfile.open(fileobj=io.BytesIO(layer_tar(snapshots, "child"))) as tar:
        members = {member.name: member for member in tar}
        assert {".wh.dir", ".wh.file", "new", "new/file"} <= members.keys()
        assert "dir" not in members
        file = tar.extractfile("new/file")
        assert file is not None
        assert file.read() == b"new"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_apply_tells_digests_of_both_forms(room: Room, snapshots: Snapshotter, pack: Callable[[bytes], bytes]) -> None:
    grow(room, snapshots, "base", _base)
    tar = layer_tar(snapshots, "base")
    packed = pack(tar)

    snapshots.prepare("copy")
    applied = snapshots.apply("copy", io.BytesIO(packed))

    assert applied.diff_id == "sha256:" + hashlib.sha256(tar).hexdigest()
    assert applied.digest == "sha256:" + hashlib.sha256(packed).hexdigest()


def test_foreign_layers_with_whiteouts_and_opaque_directories(room: Room, snapshots: Snapshotter) -> None:
    """Layers as docker and others write them: removals by `.wh.` names, an opaque marker, no parent directories."""
    grow(room, snapshots, "base", _base)
    snapshots.prepare("active", "base")

    snapshots.apply(
        "active",
        foreign_tar(
            [
                ("dir", None),
                ("dir/.wh..wh..opq", b""),
                ("dir/new", b"new"),
                (".wh.file", b""),
                ("other/.wh.linked", b""),
            ]
        ),
    )
    snapshots.commit("child", "active")

    tree = sorted(seen(snapshots, "child"))
    assert tree == [b"", b"dir", b"dir/new", b"empty", b"line\nbreak", b"link", b"linked", b"other", b"other/file"]


def test_an_opaque_marker_spares_what_the_same_layer_brings_wherever_it_stands(
    room: Room, snapshots: Snapshotter
) -> None:
    grow(room, snapshots, "base", _base)
    snapshots.prepare("active", "base")

    snapshots.apply(
        "active", foreign_tar([("dir/new", b"new"), ("dir/.wh..wh..opq", b""), ("dir/sub/newer", b"newer")])
    )

    tree = {path for path in seen(snapshots, "active") if path.startswith(b"dir")}
    assert tree == {b"dir", b"dir/new", b"dir/sub", b"dir/sub/newer"}


@needs_root
def test_a_directory_that_a_foreign_layer_only_implies_keeps_its_own_attributes(
    room: Room, snapshots: Snapshotter
) -> None:
    grow(
        room,
        snapshots,
        "base",
        _base,
        lambda root: os.chown(root / "dir", 7, 8),
        lambda root: (root / "dir").chmod(0o2750),  # last: zfs-fuse takes setgid from a directory that is given away
    )
    snapshots.prepare("active", "base")

    snapshots.apply("active", foreign_tar([("dir/new", b"new")]))

    entry = seen(snapshots, "active")[b"dir"]
    assert (entry.mode, entry.uid, entry.gid) == (0o2750, 7, 8)


def test_what_is_applied_to_the_root_is_seen_also_where_a_server_has_shown_it(
    room: Room, snapshots: Snapshotter
) -> None:
    """`prepare` tells how to mount the layer, for which some drivers have to show it already."""
    _two(room, snapshots, [unlink("file"), lambda root: os.utime(root, (7, 7)), lambda root: root.chmod(0o711)])
    tar = layer_tar(snapshots, "child")

    snapshots.prepare("copy", "base")
    snapshots.apply("copy", io.BytesIO(tar))

    assert_same(seen(snapshots, "child"), seen(snapshots, "copy"))


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)

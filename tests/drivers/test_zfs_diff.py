"""What `zfs diff` tells, read: lines as OpenZFS's libzfs writes them, and the trees that they are about.

zfs-fuse has no such command, so these lines were written by hand, and by Hypothesis, after libzfs_diff.c; on a host
with OpenZFS the suite asks the command itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina import diff
from lamina.changes import Change, ChangeKind
from lamina.syscalls import opened
from lamina_zfs import diffing
from lamina_zfs.diffing import Told, parse, paths_in

MOUNTPOINT = b"/var/lib/a home/7/tree"
LINES = rb"""1700000000.000000001	M	/	/var/lib/a\0040home/7/tree/
1700000000.000000002	M	F	/var/lib/a\0040home/7/tree/dir/file
1700000000.000000003	+	@	/var/lib/a\0040home/7/tree/\0303\0251\0011\0012\0134040
1700000000.000000004	-	F	/var/lib/a\0040home/7/tree/gone
1700000000.000000005	R	/	/var/lib/a\0040home/7/tree/old	/var/lib/a\0040home/7/tree/new
1700000000.000000006	M	F	/var/lib/a\0040home/7/tree/twin	(+1)
1700000000.000000007	+	F	/var/lib/a\0040home/7/tree/file/<xattrdir>/user.key
"""

Edit = Callable[[Path], object]


def test_a_line_tells_what_became_of_an_inode_and_where_it_lies() -> None:
    assert list(parse(LINES, MOUNTPOINT)) == [
        Told(b"M", b"/", (b"",)),
        Told(b"M", b"F", (b"dir/file",)),
        Told(b"+", b"@", ("é\t\n\\040".encode(),)),
        Told(b"-", b"F", (b"gone",)),
        Told(b"R", b"/", (b"old", b"new")),
        Told(b"M", b"F", (b"twin",), links=True),
        Told(b"+", b"F", (b"file",)),
    ]


def _move_where_another_was(root: Path) -> None:
    (root / "b/y").unlink()
    (root / "b").rmdir()
    (root / "a").rename(root / "b")


def _make_where_it_was(root: Path) -> None:
    (root / "a").rename(root / "c")
    (root / "a").mkdir()
    (root / "a/other").touch()


# an edit of a tree with a/x, a/deep/z and b/y, and what zfs says of it: of what lies in a moved directory, nothing
HISTORIES: list[tuple[str, Edit, list[Told]]] = [
    ("a file written to", lambda root: (root / "a/x").write_text("more"), [Told(b"M", b"F", (b"a/x",))]),
    (
        "a file renamed",
        lambda root: (root / "b/y").rename(root / "a/y"),
        [Told(b"R", b"F", (b"b/y", b"a/y")), Told(b"M", b"/", (b"a",)), Told(b"M", b"/", (b"b",))],
    ),
    (
        "a directory renamed",
        lambda root: (root / "a").rename(root / "c"),
        [Told(b"R", b"/", (b"a", b"c")), Told(b"M", b"/", (b"",))],
    ),
    (
        "a directory moved where another had been",
        _move_where_another_was,
        [
            *(Told(b"-", b"F", (b"b/y",)), Told(b"-", b"/", (b"b",))),
            *(Told(b"R", b"/", (b"a", b"b")), Told(b"M", b"/", (b"",))),
        ],
    ),
    (
        "a directory made where a moved one had been",
        _make_where_it_was,
        [
            *(Told(b"R", b"/", (b"a", b"c")), Told(b"+", b"/", (b"a",)), Told(b"+", b"F", (b"a/other",))),
            Told(b"M", b"/", (b"",)),
        ],
    ),
]


def _planted(place: Path) -> Path:
    (place / "a/deep").mkdir(parents=True)
    (place / "b").mkdir()
    for name in ("a/x", "a/deep/z", "b/y"):
        (place / name).write_text(name)
    for path in (*place.rglob("*"), place):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return place


@pytest.mark.parametrize(("edit", "told"), [story[1:] for story in HISTORIES], ids=[story[0] for story in HISTORIES])
def test_what_zfs_tells_leads_to_the_same_changes_as_a_walk(tmp_path: Path, edit: Edit, told: list[Told]) -> None:
    old, new = _planted(tmp_path / "old"), _planted(tmp_path / "new")
    edit(new)

    paths = paths_in(told, old, new)

    assert paths is not None
    flags = os.O_RDONLY | os.O_DIRECTORY
    with opened(old, flags) as before, opened(new, flags) as after:
        said = [Change(path, ChangeKind.MODIFIED) for path in paths]
        assert list(diff.compare_paths(before, after, said)) == list(diff.compare(before, after))


@pytest.mark.parametrize("kind", ["a name more", "one of two names gone", "both names gone"])
def test_zfs_is_not_relied_upon_where_an_inode_has_several_names(tmp_path: Path, kind: str) -> None:
    old, new = _planted(tmp_path / "old"), _planted(tmp_path / "new")
    if kind == "a name more":
        os.link(new / "a/x", new / "b/x")
        told = Told(b"M", b"F", (b"a/x",), links=True)
    else:
        os.link(old / "a/x", old / "b/x")
        told = Told(b"M", b"F", (b"a/x",), links=True)
        if kind == "both names gone":
            (new / "a/x").unlink()
            told = Told(b"-", b"F", (b"b/x",))

    assert paths_in([told], old, new) is None


@contextmanager
def _zfs_that(script: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    program = place / "zfs"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    diffing.can_tell.cache_clear()
    yield
    diffing.can_tell.cache_clear()


@pytest.mark.parametrize(("spelling", "told"), [(rb"a\0040b", {b"a b"}), (rb"a\040b", None), (rb"\303", None)])
def test_a_zfs_that_spells_names_in_the_older_way_is_not_relied_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: bytes, told: set[bytes] | None
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tmp_path / "lines").write_bytes(b"1700000000.000000001\t-\tF\t" + os.fsencode(tree) + b"/" + spelling + b"\n")

    with _zfs_that(f"cat {tmp_path}/lines", tmp_path, monkeypatch):
        assert diffing.candidates("d/1@1", "d/2", tree, tree) == told


def test_a_zfs_without_the_command_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'echo "$@" >>{tmp_path}/asked\necho "unrecognized command \'diff\'" >&2\nexit 2'

    with _zfs_that(script, tmp_path, monkeypatch):
        told = [diffing.candidates("d/1@1", "d/2", tmp_path, tmp_path) for _ in range(3)]

    assert told == [None] * 3
    assert (tmp_path / "asked").read_text() == "diff\n"


# every byte that a name can have, in the spelling of libzfs_diff.c's stream_bytes


def _byte(number: int) -> bytes:
    return bytes((number,))


NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: not {0, ord("/")} & {*name} and name not in (b".", b"..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
EVENTS = st.one_of(
    st.builds(Told, st.sampled_from([b"+", b"-", b"M"]), st.sampled_from([*b"/F@|=PBC>"]).map(_byte), st.tuples(PATHS)),
    st.builds(Told, st.just(b"M"), st.just(b"F"), st.tuples(PATHS), st.just(value=True)),
    st.builds(Told, st.just(b"R"), st.sampled_from([b"F", b"/"]), st.tuples(PATHS, PATHS)),
)


def _spelled(name: bytes) -> bytes:
    plain = {*range(ord("!"), 0o177)} - {ord("\\")}
    return b"".join(_byte(each) if each in plain else b"\\%04o" % each for each in name)


def _line(told: Told, mountpoint: bytes) -> bytes:
    names = [_spelled(mountpoint + b"/" + path) for path in told.paths]
    return b"\t".join([b"1700000000.000000001", told.change, told.type, *names, *([b"(-1)"] if told.links else [])])


@given(told=st.lists(EVENTS, max_size=8), mountpoint=PATHS.map(lambda path: b"/" + path))
def test_whatever_the_names_what_is_told_is_read(told: list[Told], mountpoint: bytes) -> None:
    lines = b"".join(_line(each, mountpoint) + b"\n" for each in told)

    assert list(parse(lines, mountpoint)) == told

"""What `zfs diff` tells, read: lines as OpenZFS's libzfs writes them, and the trees that they are about.

zfs-fuse has no such command, so these lines were written by hand after libzfs_diff.c; on a host with OpenZFS the
suite asks the command itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_a_zfs_without_the_command_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "zfs"
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\necho "unrecognized command \'diff\'" >&2\nexit 2\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    diffing.can_tell.cache_clear()

    told = [diffing.candidates("d/1@1", "d/2", tmp_path, tmp_path) for _ in range(3)]
    diffing.can_tell.cache_clear()

    assert told == [None] * 3
    assert (tmp_path / "asked").read_text() == "diff\n"

"""Changing lower files: every way to alter, replace or remove what a parent layer holds, and only here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from lamina.conformance.harness import (
    Room,
    can,
    edit,
    grow,
    link,
    mkdir,
    seen,
    symlink,
    write,
)
from lamina.conformance.marks import needs, needs_root
from lamina.conformance.specimens import ACL, CAPABILITY_2
from lamina.conformance.witness import Manifest, assert_same, differences
from lamina.driver import Ability
from lamina.snapshotter import Snapshotter

TEXT = "0123456789" * 1000


def _opened(path: str, flags: int, data: bytes = b"") -> Callable[[Path], None]:
    def change(root: Path) -> None:
        fd = os.open(root / path, flags)
        os.write(fd, data)
        os.close(fd)

    return change


def _base(room: Room, snapshots: Snapshotter) -> Manifest:
    grow(
        room,
        snapshots,
        "base",
        write("dir/file", TEXT, mode=0o640),
        write("dir/other", "other"),
        symlink("link", "dir/file"),
        mkdir("empty"),
    )
    return seen(snapshots, "base")


CONTENTS: list[tuple[str, Callable[[Path], object], str | None]] = [
    ("O_APPEND", _opened("dir/file", os.O_WRONLY | os.O_APPEND, b"end"), TEXT + "end"),
    ("O_TRUNC", _opened("dir/file", os.O_WRONLY | os.O_TRUNC, b"new"), "new"),
    ("O_TRUNC of everything", _opened("dir/file", os.O_WRONLY | os.O_TRUNC), ""),
    ("O_RDWR at the start", _opened("dir/file", os.O_RDWR, b"abc"), "abc" + TEXT[3:]),
    ("O_CREAT on what exists", _opened("dir/file", os.O_WRONLY | os.O_CREAT, b"abc"), "abc" + TEXT[3:]),
    ("through a symbolic link", _opened("link", os.O_WRONLY | os.O_TRUNC, b"new"), "new"),
    ("truncate shorter", lambda root: os.truncate(root / "dir/file", 5), "01234"),
    ("truncate longer", lambda root: os.truncate(root / "dir/file", 10_002), TEXT + "\0\0"),
    ("opened for writing only", _opened("dir/file", os.O_WRONLY), TEXT),
]


@pytest.mark.parametrize(("change", "text"), [pytest.param(*rest, id=name) for name, *rest in CONTENTS])
def test_a_lower_file_is_written(
    room: Room, snapshots: Snapshotter, change: Callable[[Path], object], text: str
) -> None:
    before = _base(room, snapshots)

    grow(room, snapshots, "child", change, parent="base")

    with snapshots.look("child") as root:
        assert (root / "dir/file").read_text() == text
        assert (root / "dir/file").stat().st_mode & 0o777 == 0o640
    assert_same(before, seen(snapshots, "base"))


def test_o_excl_on_a_lower_file_says_that_it_exists(room: Room, snapshots: Snapshotter) -> None:
    before = _base(room, snapshots)
    snapshots.prepare("child", "base")

    with pytest.raises(FileExistsError):
        edit(room, snapshots, "child", _opened("dir/file", os.O_WRONLY | os.O_CREAT | os.O_EXCL))

    assert_same(before, seen(snapshots, "child"))


def test_o_excl_makes_anew_what_was_removed(room: Room, snapshots: Snapshotter) -> None:
    _base(room, snapshots)

    create = _opened("dir/file", os.O_WRONLY | os.O_CREAT | os.O_EXCL, b"new")
    grow(room, snapshots, "child", lambda root: (root / "dir/file").unlink(), create, parent="base")

    with snapshots.look("child") as root:
        assert (root / "dir/file").read_text() == "new"


def _altered(room: Room, before: Manifest, after: Manifest, path: bytes) -> list[str]:
    """What was changed; not the times of the directories above, where the driver cannot leave them alone."""
    if not can(room.driver_class, Ability.DIRECTORY_TIMES):
        above = {b"", os.path.dirname(path)} - {path}
        kept = {each: attrs.evolve(after[each], mtime_ns=before[each].mtime_ns) for each in above}
        after = {**after, **kept}
    return differences(before, after)


ATTRIBUTES: list[tuple[str, Callable[[Path], object], str, object]] = [
    ("chmod", lambda path: path.chmod(0o4711), "mode", 0o4711),
    ("utimes", lambda path: os.utime(path, ns=(5 * 10**9, 7 * 10**9)), "mtime_ns", 7 * 10**9),
    ("setxattr", lambda path: os.setxattr(path, "user.lamina", b"x"), "xattrs", {"user.lamina": b"x"}),
]


@pytest.mark.parametrize("path", [b"dir/file", b"dir", b"empty"], ids=os.fsdecode)
@pytest.mark.parametrize(
    "attribute",
    [
        pytest.param(rest, id=name, marks=needs(Ability.XATTRS) if name == "setxattr" else ())
        for name, *rest in ATTRIBUTES
    ],
)
def test_one_attribute_of_a_lower_entry_is_changed_and_nothing_else(
    room: Room, snapshots: Snapshotter, attribute: tuple[Callable[[Path], object], str, object], path: bytes
) -> None:
    change, field, value = attribute
    before = _base(room, snapshots)

    grow(room, snapshots, "child", lambda root: change(root / os.fsdecode(path)), parent="base")

    after = seen(snapshots, "child")
    assert getattr(after[path], field) == value
    assert len(_altered(room, before, after, path)) == 1
    assert_same(before, seen(snapshots, "base"))


@needs_root
@pytest.mark.parametrize("path", [b"dir/file", b"dir", b"empty", b"link"], ids=os.fsdecode)
def test_chown_of_a_lower_entry_changes_its_owner_and_nothing_else(
    room: Room, snapshots: Snapshotter, path: bytes
) -> None:
    before = _base(room, snapshots)

    grow(
        room,
        snapshots,
        "child",
        lambda root: os.chown(root / os.fsdecode(path), 11, 12, follow_symlinks=False),
        parent="base",
    )

    after = seen(snapshots, "child")
    assert (after[path].uid, after[path].gid) == (11, 12)
    assert len(_altered(room, before, after, path)) == 2
    assert_same(before, seen(snapshots, "base"))


@needs(Ability.REMOVE_XATTRS)
def test_an_attribute_removed_from_a_lower_file_is_gone_here_only(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("file"), lambda root: os.setxattr(root / "file", "user.lamina", b"x"))

    grow(room, snapshots, "child", lambda root: os.removexattr(root / "file", "user.lamina"), parent="base")

    assert seen(snapshots, "child")[b"file"].xattrs == {}
    assert seen(snapshots, "base")[b"file"].xattrs == {"user.lamina": b"x"}


@needs_root
@needs(Ability.REMOVE_XATTRS)
def test_a_capability_is_lost_when_the_program_is_written_and_kept_by_its_parent(
    room: Room, snapshots: Snapshotter
) -> None:
    grow(
        room,
        snapshots,
        "base",
        write("ping", "x", mode=0o755),
        lambda root: os.setxattr(root / "ping", "security.capability", CAPABILITY_2),
    )

    grow(room, snapshots, "child", write("ping", "y", mode=0o755), parent="base")

    # as on any Linux file system: who alters a privileged program takes its privileges away
    assert seen(snapshots, "child")[b"ping"].xattrs == {}
    assert seen(snapshots, "base")[b"ping"].xattrs == {"security.capability": CAPABILITY_2}


@needs(Ability.ACLS)
def test_a_default_acl_of_a_lower_directory_is_inherited(room: Room, snapshots: Snapshotter) -> None:
    grow(
        room,
        snapshots,
        "base",
        mkdir("dir"),
        lambda root: os.setxattr(root / "dir", "system.posix_acl_default", ACL),
    )

    grow(room, snapshots, "child", lambda root: (root / "dir/heir").touch(), parent="base")

    assert "system.posix_acl_access" in seen(snapshots, "child")[b"dir/heir"].xattrs


@needs(Ability.LOWER_HARD_LINKS)
def test_lower_hard_links_stay_together_when_one_is_written(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("one", "x"), link("one", "two"))

    grow(room, snapshots, "child", write("one", "changed"), parent="base")

    assert seen(snapshots, "child")[b"two"].links == (b"one", b"two")
    assert seen(snapshots, "base")[b"two"].size == 1


def test_a_link_to_a_lower_file_is_a_link(room: Room, snapshots: Snapshotter) -> None:
    grow(room, snapshots, "base", write("one", "x"))

    grow(room, snapshots, "child", link("one", "two"), write("two", "both"), parent="base")

    assert seen(snapshots, "child")[b"one"].links == (b"one", b"two")
    assert seen(snapshots, "child")[b"one"].size == 4
    assert seen(snapshots, "base")[b"one"].links == ()


def test_no_name_is_shared_with_the_parents_file(room: Room, snapshots: Snapshotter) -> None:
    """A driver that saves space by hard links between layers must part them before anybody writes."""
    grow(room, snapshots, "base", write("file", "x"))
    snapshots.prepare("child", "base")

    edit(room, snapshots, "child", _opened("file", os.O_RDWR, b"y"))
    edit(room, snapshots, "child", lambda root: (root / "file").chmod(0o600))

    assert seen(snapshots, "base")[b"file"].mode == 0o644
    with snapshots.look("base") as root:
        assert (root / "file").read_text() == "x"

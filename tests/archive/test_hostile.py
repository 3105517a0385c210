"""Archives that want out, or that no tree can hold. The fixture `arena` checks that the world around stays as it is."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from arenas import Arena, Tar
from members import device, fifo, file, folder, hard, soft

from lamina.archive import apply_merged
from lamina.errors import BadArchive

Members = list[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]]


def _owned(uid: int) -> tuple[tarfile.TarInfo, bytes]:
    entry, data = file("file")
    entry.pax_headers = {"uid": str(uid)}
    return entry, data


def _dated(mtime: str) -> tuple[tarfile.TarInfo, bytes]:
    entry, data = file("file")
    entry.pax_headers = {"mtime": mtime}
    return entry, data


def _sparse(size: int) -> tuple[tarfile.TarInfo, bytes]:
    entry, data = file("file", b"")
    entry.pax_headers = {"GNU.sparse.size": str(size), "GNU.sparse.map": ""}
    return entry, data


REFUSED: dict[str, Members] = {
    "a way up": [file("../escaped")],
    "a way up in the middle": [folder("a"), file("a/../../escaped")],
    "a way up behind a link": [soft("a", ".."), file("a/../escaped")],
    "an absolute name": [file("/tmp/escaped")],
    "a directory that is the way up": [folder("..")],
    "a hard link to the host": [hard("passwd", "/etc/passwd")],
    "a hard link with a way up": [hard("secret", "../outside/secret")],
    "a hard link through a link": [soft("a", "../outside"), hard("secret", "a/secret")],
    "a hard link to a link's target": [soft("a", "../outside/secret"), hard("b", "a/x")],
    "a hard link to itself": [file("a"), hard("a", "a")],
    "a hard link to a directory": [folder("a"), hard("b", "a")],
    "a hard link to the root": [hard("a", ".")],
    "a hard link to what it replaces": [folder("a"), file("a/b"), hard("a", "a/b")],
    "a whiteout of the way up": [file(".wh...", b"")],
    "a whiteout of the directory itself": [file(".wh..", b"")],
    "a whiteout of nothing": [file(".wh.", b"")],
    "a whiteout of a whiteout": [file(".wh..wh.x", b"")],
    "an entry below a whiteout": [file(".wh.a/b")],
    "an entry below a file": [file("a"), file("a/b")],
    "an entry below a device": [fifo("a"), file("a/b")],
    "the kernel's own whiteout": [device("a", 0, 0)],
    "a root that is a file": [file(".")],
    "a root that is a link": [soft("./", "/")],
    "a name longer than any": [file("x" * 300)],
    "a path longer than any": [file("d/" * 40_000 + "x")],
    "an owner beyond all": [_owned(1 << 40)],
    "an owner that means nobody": [_owned(0xFFFFFFFF)],
    "a time beyond all": [_dated("1" * 30)],
    "a sparse file beyond all": [_sparse(1 << 62)],
    "a sparse file beyond numbers": [_sparse(1 << 70)],
    "a device beyond all": [device("a", 1 << 20, 1 << 20)],
}


@pytest.mark.needs_root
@pytest.mark.parametrize("members", REFUSED.values(), ids=REFUSED)
def test_it_is_refused_by_name_and_nothing_outside_is_touched(arena: Arena, tar: Tar, members: Members) -> None:
    with pytest.raises(BadArchive):
        arena.unpack(tar(*members))


TAKEN: dict[str, tuple[Members, set[str]]] = {
    "links to anywhere, that nobody follows": (
        [soft("a", "/etc/passwd"), soft("b", "../../.."), soft("c", "c")],
        {"a", "b", "c"},
    ),
    "a file in place of a link": ([soft("a", "../outside/secret"), file("a")], {"a"}),
    "a directory in place of a link": ([soft("a", "../outside"), folder("a"), file("a/b")], {"a", "a/b"}),
    "a link in place of a directory": ([folder("a"), file("a/b"), soft("a", "../outside")], {"a"}),
    "the same name many times": ([file("a"), folder("a"), file("a/b"), fifo("a"), file("a")], {"a"}),
    "dots and slashes": ([folder("./a/"), file(".//a/./b")], {"a", "a/b"}),
    "aufs's own": ([folder(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), file(".wh..wh.aufs"), file("a")], {"a"}),
    "a whiteout of what the layer brings itself": ([file("a"), file(".wh.a", b"")], {"a"}),
    "a hard link with a slash in front": ([file("a"), hard("b", "/a")], {"a", "b"}),
}


@pytest.mark.needs_root
@pytest.mark.parametrize(("members", "names"), TAKEN.values(), ids=TAKEN)
def test_what_looks_strange_stays_inside(arena: Arena, tar: Tar, members: Members, names: set[str]) -> None:
    arena.unpack(tar(*members))

    assert arena.names() == names


@pytest.mark.needs_root
@pytest.mark.parametrize("target", ["../outside", "/outside", "../../../../../../outside", "loop"])
def test_an_entry_behind_a_link_of_the_parent_stays_inside(arena: Arena, tar: Tar, target: str) -> None:
    (arena.tree / "way").symlink_to(target)
    (arena.tree / "loop").symlink_to("loop")
    members = tar(file("way/secret"), file("way/new"), file("way/.wh.secret", b""))

    with pytest.raises(BadArchive):
        arena.unpack(members)

    assert (arena.outside / "secret").read_text() == "secret"


def test_a_link_of_the_parent_leads_where_a_container_would_go(tmp_path: Path, tar: Tar) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/old").touch()
    (tmp_path / "lib").symlink_to("/usr/lib")

    apply_merged(tar(file("lib/new"), file("lib/.wh.old", b"")), tmp_path)

    assert os.listdir(tmp_path / "usr/lib") == ["new"]
    assert (tmp_path / "lib").is_symlink()


def test_an_opaque_marker_spares_what_came_through_a_link(tmp_path: Path, tar: Tar) -> None:
    (tmp_path / "usr/lib/old").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")

    apply_merged(tar(file("lib/new"), file("usr/lib/.wh..wh..opq", b"")), tmp_path)

    assert os.listdir(tmp_path / "usr/lib") == ["new"]


def test_a_link_that_is_replaced_is_not_remembered(tmp_path: Path, tar: Tar) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    (tmp_path / "hop").symlink_to("first")
    (tmp_path / "way").symlink_to("hop")

    apply_merged(tar(file("way/a"), soft("hop", "second"), file("way/b")), tmp_path)

    assert (os.listdir(tmp_path / "first"), os.listdir(tmp_path / "second")) == (["a"], ["b"])


def test_many_levels_are_no_danger_to_the_stack(arena: Arena, tar: Tar) -> None:
    path = "/".join("d" for _ in range(1200))
    steps = [folder(path[: 2 * depth + 1]) for depth in range(1200)]

    arena.unpack(tar(*steps, file(f"{path}/bottom")))


# somebody who swaps directories while the tar is on its way


def _swap(tree: Path, outside: Path, stop: threading.Event) -> None:
    way, aside = tree / "way", tree / "aside"
    while not stop.is_set():
        try:
            way.rename(aside)
            way.symlink_to(outside)
            way.unlink()
            aside.rename(way)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}:
                raise


@pytest.mark.needs_root
@pytest.mark.parametrize("make", [file, lambda name: fifo(name, 0o777), lambda name: soft(name, "x"), folder])
def test_a_directory_that_becomes_a_link_meanwhile_leads_nowhere(
    arena: Arena, tar: Tar, make: Callable[[str], tarfile.TarInfo]
) -> None:
    """Whatever the attacker's luck: files end up in the tree or nowhere. `arena` looks at what lies outside."""
    members = [folder("way")]
    for number in range(300):
        members += [make(f"way/{number}"), folder(f"way/deep{number}"), make(f"way/deep{number}/x")]
    stop = threading.Event()
    attacker = threading.Thread(target=_swap, args=(arena.tree, arena.outside, stop))
    attacker.start()
    try:
        for _ in range(3):
            try:
                arena.unpack(tar(*members))
            except (BadArchive, OSError):
                continue
    finally:
        stop.set()
        attacker.join()

    assert os.listdir(arena.outside) == ["secret"]


def test_a_tar_that_ends_in_the_middle_is_an_error(arena: Arena, tar: Tar) -> None:
    whole = tar(file("a", b"x" * 5000)).getvalue()

    with pytest.raises(BadArchive, match="ends in the middle"):
        arena.unpack(io.BytesIO(whole[:2000]))

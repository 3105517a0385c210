"""Copying trees that nobody wrote, and onto other file systems."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.mount import unmount
from lamina.trees import copy_tree, remove_tree, shares_blocks, sync_tree

Manifest = Callable[[Path], dict[bytes, tuple[object, ...]]]

needs_root = pytest.mark.needs_root


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Path]:
    """A file system that shares blocks."""
    if os.geteuid() != 0 or shutil.which("mkfs.btrfs", path="/usr/sbin:/sbin") is None:
        pytest.skip("needs root and mkfs.btrfs")
    disk, place = tmp_path / "disk", tmp_path / "sharing"
    with disk.open("wb") as file:
        file.truncate(512 << 20)
    place.mkdir()
    subprocess.run(["/usr/sbin/mkfs.btrfs", "-q", disk], check=True)
    if subprocess.run(["mount", "-o", "loop", disk, place], check=False, capture_output=True).returncode:
        pytest.skip("this kernel has no btrfs or no loop devices")
    try:
        yield place
    finally:
        unmount(place, lazy=True)


def test_where_blocks_can_be_shared_a_copy_takes_no_room(sharing: Path, manifest: Manifest) -> None:
    (sharing / "source").mkdir()
    (sharing / "source" / "large").write_bytes(os.urandom(1 << 20) * 100)
    sync_tree(sharing)
    before = os.statvfs(sharing).f_bfree

    copy_tree(sharing / "source", sharing / "target")
    sync_tree(sharing)

    used = (before - os.statvfs(sharing).f_bfree) * os.statvfs(sharing).f_frsize
    assert used < 10 << 20
    assert manifest(sharing / "target") == manifest(sharing / "source")
    assert shares_blocks(sharing)


def test_a_copy_onto_another_file_system_is_as_faithful(source: Path, sharing: Path, manifest: Manifest) -> None:
    (source / "dir").mkdir()
    (source / "dir" / "data").write_bytes(os.urandom(3 << 20))
    os.link(source / "dir" / "data", source / "again")
    with (source / "sparse").open("wb") as file:
        file.seek(30 << 20)
        file.write(b"end")
        file.truncate(40 << 20)

    copy_tree(source, sharing / "target")

    assert manifest(sharing / "target") == manifest(source)
    assert (sharing / "target" / "sparse").stat().st_blocks * 512 < 1 << 20


@attrs.frozen
class Node:
    """One entry of a random tree; `same` is a hard link to something made before, or else a file."""

    shape: str  # file, hole, link, fifo, socket, device, same or directory
    content: bytes
    mode: int
    owner: int
    mtime_ns: int
    xattrs: dict[str, bytes]
    children: dict[bytes, Node]


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


def nodes(children: st.SearchStrategy[dict[bytes, Node]], shapes: str) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        shape=st.sampled_from(shapes.split()),
        content=st.binary(min_size=1, max_size=300).filter(lambda text: b"\0" not in text),
        mode=st.integers(0, 0o7777),
        owner=st.sampled_from([0, 1, 1000, 1 << 31]),
        mtime_ns=st.integers(-(1 << 60), 1 << 61),
        xattrs=st.dictionaries(st.sampled_from(["user.a", "user.b", "trusted.c"]), st.binary(max_size=40), max_size=3),
        children=children,
    )


leaves = nodes(st.just({}), "file file hole link fifo socket device same")


trees = st.recursive(
    st.dictionaries(names, leaves, max_size=6),
    lambda below: st.dictionaries(names, leaves | nodes(below, "directory"), max_size=6),
    max_leaves=12,
)


def build(place: bytes, tree: dict[bytes, Node], made: list[bytes]) -> None:
    for name, node in tree.items():
        path = os.path.join(place, name)
        if node.shape == "same" and made:
            os.link(made[len(node.content) % len(made)], path, follow_symlinks=False)
            continue
        make(path, node)
        if node.shape == "directory":
            build(path, node.children, made)
        else:
            made.append(path)
        dress(path, node)


def make(path: bytes, node: Node) -> None:
    if node.shape == "directory":
        os.mkdir(path)
    elif node.shape == "link":
        os.symlink(node.content, path)
    elif node.shape in _SPECIAL:
        os.mknod(path, _SPECIAL[node.shape], os.makedev(len(node.content), 7) if node.shape == "device" else 0)
    else:
        with open(path, "wb") as file:
            file.seek(len(node.content) << 13 if node.shape == "hole" else 0)
            file.write(node.content)


_SPECIAL = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "device": stat.S_IFCHR}


def dress(path: bytes, node: Node) -> None:
    os.lchown(path, node.owner, node.owner)
    for name, value in node.xattrs.items():
        if name.startswith("trusted.") or node.shape in {"file", "hole", "same", "directory"}:
            os.setxattr(path, name, value, follow_symlinks=False)
    if node.shape != "link":
        os.chmod(path, node.mode)
    os.utime(path, ns=(1, node.mtime_ns), follow_symlinks=False)


@needs_root
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=trees)
def test_a_copy_of_any_tree_equals_it(tmp_path: Path, tree: dict[bytes, Node], manifest: Manifest) -> None:
    place, target = tmp_path / "tree", tmp_path / "target"
    place.mkdir()
    try:
        build(os.fsencode(place), tree, [])

        copy_tree(place, target)

        assert manifest(target) == manifest(place)
    finally:
        remove_tree(place)
        remove_tree(target)

"""Other people's tools read what lamina writes, and lamina reads what they write: the same trees, name by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from desk import Desk

pytestmark = pytest.mark.needs_root

COMPARE = Path(__file__).parents[2] / "demo/compare.py"


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def told_by(*argv: str | Path, cwd: Path) -> str:
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=True).stdout


def assert_same_trees(one: Path, other: Path) -> None:
    told = subprocess.run([sys.executable, COMPARE, one, other], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout


@pytest.fixture
def rich_desk(busy_desk: Desk) -> Desk:
    """An image `rich:1` with everything that a tree may hold."""
    tree = busy_desk.path / "tree"
    tree.mkdir()
    busy_desk.does("mount", "box", tree)
    _decorate(tree)
    busy_desk.does("umount", tree)
    busy_desk.does("commit", "-q", "box", "rich:1")
    tree.rmdir()
    return busy_desk


def _decorate(tree: Path) -> None:
    place = tree / "rich"
    place.mkdir(mode=0o2750)
    place.chmod(0o2750)
    (place / "file").write_bytes(b"content")
    os.link(place / "file", place / "link")
    os.setxattr(place / "file", "user.note", b"\x00\xff")
    os.chown(place / "file", 1234, 5678)
    (place / "file").chmod(0o4755)
    os.utime(place / "file", ns=(1, 981_173_106_123_456_789))
    (place / "symlink").symlink_to("../etc/motd")
    os.mkfifo(place / "fifo")
    os.mknod(place / "device", 0o20666, os.makedev(1, 3))
    (place / ("n" * 255)).touch()
    with (place / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"island")
    (tree / "usr/share/poem").unlink()
    os.utime(tree / "usr/share", (1, 1_000_000_000))  # umoci lists a directory only if its time is another second


def test_skopeo_reads_an_archive_of_ours(rich_desk: Desk) -> None:
    skopeo = tool("skopeo")
    rich_desk.does("save", "--format", "oci-archive", "-o", "out.tar", "rich:1")
    rich_desk.does("save", "-o", "docker.tar", "rich:1")

    for place in ("oci-archive:out.tar", "docker-archive:docker.tar"):
        seen = json.loads(told_by(skopeo, "inspect", place, cwd=rich_desk.path))
        assert len(seen["Layers"]) == 4
        told_by(
            skopeo, "copy", "--quiet", place, f"dir:{place.partition(':')[0]}", cwd=rich_desk.path
        )  # reads every blob


def test_umoci_unpacks_the_tree_that_we_mount(rich_desk: Desk) -> None:
    umoci = tool("umoci")
    rich_desk.does("save", "--format", "oci-dir", "-o", "layout", "rich:1")
    (image,) = json.loads((rich_desk.path / "layout/index.json").read_text())["manifests"]
    name = image["annotations"]["org.opencontainers.image.ref.name"]
    target = rich_desk.path / "mounted"
    target.mkdir()

    told_by(umoci, "unpack", "--image", f"layout:{name}", "bundle", cwd=rich_desk.path)
    rich_desk.does("mount", "rich:1", target)

    assert_same_trees(rich_desk.path / "bundle/rootfs", target)
    rich_desk.does("umount", target)


def test_we_mount_the_tree_that_umoci_packed(busy_desk: Desk) -> None:
    umoci = tool("umoci")
    place = busy_desk.path
    told_by(umoci, "init", "--layout", "made", cwd=place)
    told_by(umoci, "new", "--image", "made:1", cwd=place)
    for step in (_decorate_base, _decorate):
        told_by(umoci, "unpack", "--image", "made:1", "bundle", cwd=place)
        step(place / "bundle/rootfs")
        told_by(umoci, "repack", "--image", "made:1", "bundle", cwd=place)
        shutil.rmtree(place / "bundle")
    told_by(umoci, "unpack", "--image", "made:1", "bundle", cwd=place)
    target = place / "mounted"
    target.mkdir()

    busy_desk.does("load", "-q", "--name", "made", "-i", place / "made")
    busy_desk.does("mount", "made:1", target)

    assert_same_trees(place / "bundle/rootfs", target)
    busy_desk.does("umount", target)


def _decorate_base(tree: Path) -> None:
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share/poem").write_text("gone in the next layer\n")
    (tree / "etc").mkdir()
    (tree / "etc/motd").write_text("hello\n")


def test_both_drivers_show_the_same_tree(rich_desk: Desk) -> None:
    usable = {
        row["name"]
        for row in map(json.loads, rich_desk.does("drivers", "--format", "json").splitlines())
        if row["usable"]
    }
    if "overlay" not in usable:
        pytest.skip("overlay cannot be used here")
    one, other = rich_desk.path / "one", rich_desk.path / "other"
    one.mkdir()
    other.mkdir()

    rich_desk.does("--driver", "overlay", "image", "mount", "rich:1", one)
    rich_desk.does("--driver", "vfs", "image", "mount", "rich:1", other)

    assert_same_trees(one, other)
    rich_desk.does("--driver", "overlay", "umount", one)
    rich_desk.does("--driver", "vfs", "umount", other)

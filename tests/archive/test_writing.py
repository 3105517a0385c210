"""A tree as a tar, read by somebody else's reader."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from lamina.archive import apply_merged, write_layer
from lamina.changes import Change, ChangeKind
from lamina.diff import compare
from lamina.errors import BadArchive
from lamina.syscalls import opened


def layer_of(tree: Path) -> bytes:
    out = io.BytesIO()
    with opened(tree, os.O_RDONLY | os.O_DIRECTORY) as root:
        write_layer(root, compare(None, root), out)
    return out.getvalue()


def members(tar: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        return {member.name: member for member in found}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    return made


def test_names_of_one_file_are_links_to_the_first(tree: Path) -> None:
    (tree / "z").write_text("one")
    os.link(tree / "z", tree / "a")

    found = members(layer_of(tree))

    assert (found["a"].isreg(), found["z"].islnk(), found["z"].linkname) == (True, True, "a")


def test_holes_are_not_written_and_come_back(tree: Path, tmp_path: Path) -> None:
    with (tree / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"x" * 4096)

    tar = layer_of(tree)
    (tmp_path / "copy").mkdir()
    apply_merged(io.BytesIO(tar), tmp_path / "copy")

    copy = (tmp_path / "copy/sparse").stat()
    assert len(tar) < 1 << 16
    assert (members(tar)["sparse"].size, copy.st_size) == (1 << 30, 1 << 30)
    assert copy.st_blocks * 512 < 1 << 16


def test_sockets_stay_behind(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        (tree / "file").touch()

        assert members(layer_of(tree)).keys() == {".", "file"}


def test_a_name_that_would_be_read_as_a_removal_is_refused(tree: Path) -> None:
    (tree / ".wh.file").touch()

    with pytest.raises(BadArchive, match="rename it"):
        layer_of(tree)


def test_what_vanishes_meanwhile_is_left_out(tree: Path) -> None:
    (tree / "here").touch()
    changes = [Change(path, ChangeKind.ADDED) for path in (b"gone", b"gone/deep", b"here")]
    out = io.BytesIO()

    with opened(tree, os.O_RDONLY | os.O_DIRECTORY) as root:
        write_layer(root, changes, out)

    assert members(out.getvalue()).keys() == {"here"}


def test_removals_are_empty_files_with_nothing_but_a_name(tree: Path) -> None:
    out = io.BytesIO()
    with opened(tree, os.O_RDONLY | os.O_DIRECTORY) as root:
        write_layer(root, [Change(b"dir/gone", ChangeKind.DELETED)], out)

    (member,) = members(out.getvalue()).values()

    assert (member.name, member.size, member.mode, member.mtime, member.uid) == ("dir/.wh.gone", 0, 0, 0, 0)

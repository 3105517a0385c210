"""Trees to unpack into, in every way that there is, with something outside that must stay as it is."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from arenas import Arena, Tar

from lamina.archive import apply_direct, apply_merged
from lamina.changes import ChangesTree
from lamina.overlaydialect import OverlayWhiteouts
from lamina.trees import remove_tree


def _ways(tree: Path) -> dict[str, Callable[[io.BytesIO], object]]:
    changes = ChangesTree(tree, OverlayWhiteouts())
    return {
        "merged": lambda tar: apply_merged(tar, tree),
        "base": lambda tar: apply_direct(tar, changes, base=True),
        "direct": lambda tar: apply_direct(tar, changes, base=False),
    }


@pytest.fixture(params=["merged", "base", "direct"])
def arena(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arena]:
    tree, outside = tmp_path / "world/tree", tmp_path / "world/outside"
    tree.mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("secret")
    before = _world(tmp_path, tree)
    yield Arena(tree, outside, _ways(tree)[request.param])
    assert _world(tmp_path, tree) == before, "something outside the tree was changed"
    remove_tree(tree)  # pytest's own way would not get to the bottom of some


def _world(top: Path, tree: Path) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for directory, names, files in os.walk(top):
        names[:] = [name for name in names if Path(directory) / name != tree]
        for name in names + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            found[path] = (
                kind,
                status.st_mode,
                status.st_uid,
                status.st_nlink * (kind != stat.S_IFDIR),
                status.st_size,
            )
    return found


def _tar(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            entry, data = member if isinstance(member, tuple) else (member, b"")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    out.seek(0)
    return out


@pytest.fixture
def tar() -> Tar:
    return _tar

"""The model and the witness agree with a plain directory: otherwise the suite would measure with a bent ruler."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.conformance.harness import Edit, mkdir, symlink, together, unlink, write
from lamina.conformance.model import Model, ModelTree
from lamina.conformance.play import RealTree
from lamina.conformance.strategies import Whim, resolve, whims
from lamina.conformance.witness import assert_same, differences, expected_changes, manifest


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(edits=st.lists(whims(), max_size=40))
def test_random_edits_of_a_plain_directory_agree_with_the_model(tmp_path: Path, edits: list[Whim]) -> None:
    place = tmp_path / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o755)
    model = Model()
    model.root.mtime_ns = place.stat().st_mtime_ns

    for number, whim in enumerate(edits):
        step = resolve(whim, model, number)
        if step is not None:
            RealTree(place).do(step)
            ModelTree(model).do(step)

    assert_same(model.manifest(), manifest(place))
    shutil.rmtree(place)


BLOWS: list[tuple[str, Edit]] = [
    ("mode", lambda root: (root / "file").chmod(0o4755)),
    ("mtime_ns", lambda root: os.utime(root / "file", ns=(1, 1))),
    ("content", write("file", "TEXT")),
    ("xattrs", lambda root: os.setxattr(root / "file", "user.lamina", b"x")),
    ("links", together(unlink("twin"), write("twin", "text"))),
    ("target", together(unlink("link"), symlink("link", "other"))),
    ("missing", unlink("file")),
    ("not be there", write("new")),
    ("type", together(unlink("file"), mkdir("file"))),
]


@pytest.mark.parametrize(("word", "blow"), BLOWS, ids=[word for word, _ in BLOWS])
def test_the_witness_sees_every_kind_of_difference(tmp_path: Path, word: str, blow: Edit) -> None:
    (tmp_path / "file").write_text("text")
    os.link(tmp_path / "file", tmp_path / "twin")
    (tmp_path / "link").symlink_to("file")
    before = manifest(tmp_path)

    blow(tmp_path)

    assert any(word in line for line in differences(before, manifest(tmp_path)))


def test_expected_changes_list_what_the_canon_says(tmp_path: Path) -> None:
    for name in ("kept", "gone/below", "linked/one", "changed/deep"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    os.link(tmp_path / "linked/one", tmp_path / "linked/two")
    for name in ("", "changed", "linked"):
        os.utime(tmp_path / name, (1, 1))
    old = manifest(tmp_path)

    shutil.rmtree(tmp_path / "gone")
    (tmp_path / "changed/deep").chmod(0o600)
    os.link(tmp_path / "linked/one", tmp_path / "linked/three")
    for name in ("", "changed", "linked"):
        os.utime(tmp_path / name, (1, 1))

    assert expected_changes(old, manifest(tmp_path)) == [
        ("C", b"changed"),
        ("C", b"changed/deep"),
        ("D", b"gone"),
        ("C", b"linked"),
        ("C", b"linked/one"),
        ("A", b"linked/three"),
        ("C", b"linked/two"),
    ]

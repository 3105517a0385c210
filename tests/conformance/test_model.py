"""The model and the witness agree with a plain directory: otherwise the suite would measure with a bent ruler."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.conformance.harness import Edit, mkdir, symlink, together, unlink, write
from lamina.conformance.model import FILE, Model, ModelTree, Step
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


@pytest.mark.parametrize(
    "step", [("write", {"offset": 0, "data": b"x"}), ("truncate", {"size": 0})], ids=["write", "cut"]
)
@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6711, 0o2744, 0o4600, 0o1777], ids=oct)
def test_setuid_and_setgid_outlive_writing_as_the_model_says(
    tmp_path: Path, mode: int, step: tuple[str, dict[str, Any]]
) -> None:
    model = Model()
    made = Step("make", b"file", {"type": FILE, "mode": mode, "uid": os.geteuid(), "gid": os.getegid()}, 10**18)

    for one in (made, Step(step[0], b"file", step[1], 10**18)):
        RealTree(tmp_path).do(one)
        ModelTree(model).do(one)

    assert oct(stat.S_IMODE((tmp_path / "file").stat().st_mode)) == oct(model.at(b"file").mode)


@pytest.mark.needs_root
def test_both_hold_for_a_caller_who_may_not_keep_them(tmp_path: Path) -> None:
    # of every group that files are given to: chmod takes setgid away from a file of others
    who = ["setpriv", "--groups=0,1,1000,65534", "--bounding-set=-fsetid", "--inh-caps=-fsetid"]
    tests = ["-p", "no:cacheprovider", f"--basetemp={tmp_path / 'base'}", "-k", "model_says or agree_with_the_model"]

    told = subprocess.run(
        [*who, sys.executable, "-m", "pytest", *tests, __file__], capture_output=True, text=True, check=False
    )

    assert told.returncode == 0, told.stdout + told.stderr
    assert "13 passed" in told.stdout


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

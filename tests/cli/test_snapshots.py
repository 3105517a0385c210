"""The verbs of the store, typed by hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from desk import Desk

pytestmark = pytest.mark.needs_root


def grow(desk: Desk, name: str, parent: str | None = None, **files: str) -> None:
    """A committed snapshot with these files."""
    tree = desk.path / f"tree-{name}"
    tree.mkdir()
    desk.does("snapshot", "prepare", "work", *([parent] if parent else []))
    desk.does("snapshot", "mount", "work", tree)
    for file, text in files.items():
        (tree / file).write_text(text)
    desk.does("snapshot", "umount", tree)
    desk.does("snapshot", "commit", name, "work")


def test_prepare_prints_how_to_mount(desk: Desk) -> None:
    told = desk.does("snapshot", "prepare", "work").splitlines()

    assert told
    assert all(line.startswith("mount -t ") and line.endswith(" TARGET") for line in told)
    assert desk.does("snapshot", "mounts", "work").splitlines() == told


def test_a_child_shows_what_its_parent_has(desk: Desk) -> None:
    grow(desk, "base", greeting="hello")
    grow(desk, "child", "base", answer="hi")

    assert "A /answer" in desk.does("snapshot", "diff", "child").splitlines()
    assert "greeting" not in desk.does("snapshot", "diff", "child")


def test_a_listing_can_be_narrowed(desk: Desk) -> None:
    grow(desk, "base")
    desk.does("snapshot", "prepare", "-l", "team=red", "work", "base")

    assert desk.does("snapshot", "ls", "-q").split() == ["base", "work"]
    assert desk.does("snapshot", "ls", "-q", "kind==active").split() == ["work"]
    assert desk.does("snapshot", "ls", "-q", "labels.team==red").split() == ["work"]
    (row,) = [json.loads(line) for line in desk.does("snapshot", "ls", "--format", "json", "parent==base").splitlines()]
    assert (row["name"], row["kind"], row["labels"]) == ("work", "active", {"team": "red"})


def test_a_diff_applied_elsewhere_gives_the_same_diff(desk: Desk) -> None:
    grow(desk, "base", greeting="hello")
    tar = desk.run("snapshot", "diff", "--tar", "base").stdout
    desk.does("snapshot", "prepare", "copy")

    told = desk.does("snapshot", "apply", "copy", "-", stdin=tar).strip()

    assert told == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert desk.run("snapshot", "diff", "--tar", "copy").stdout == tar


def test_labels_are_set_and_taken_away(desk: Desk) -> None:
    desk.does("snapshot", "prepare", "work")

    assert desk.does("snapshot", "label", "work", "a=1", "b=2") == "a=1\nb=2\n"
    assert desk.does("snapshot", "label", "work", "a=") == "b=2\n"


def test_usage_counts_what_is_its_own(desk: Desk) -> None:
    grow(desk, "base", greeting="hello" * 10_000)

    used = json.loads(desk.does("snapshot", "usage", "--format", "json", "base"))

    assert used["size"] >= 50_000
    assert "inodes" in desk.does("snapshot", "usage", "base")


def test_what_others_stand_on_stays(desk: Desk) -> None:
    grow(desk, "base")
    desk.does("snapshot", "view", "look", "base")

    code, line = desk.fails("snapshot", "rm", "base")

    assert code == 6
    assert "look" in line


def test_each_verb_says_what_is_wrong(desk: Desk) -> None:
    desk.does("snapshot", "prepare", "work")

    assert desk.fails("snapshot", "prepare", "work")[0] == 5
    assert desk.fails("snapshot", "view", "look", "work")[0] == 2
    assert desk.fails("snapshot", "info", "nobody")[0] == 4
    assert desk.fails("snapshot", "mount", "work", Path("no-such-directory"))[0] == 2

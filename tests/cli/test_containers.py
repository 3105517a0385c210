"""Containers as people know them from docker: created, mounted, changed, compared, committed, copied, removed."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from pathlib import Path

import pytest
from desk import Desk

pytestmark = pytest.mark.needs_root


@pytest.fixture
def tree(busy_desk: Desk) -> Path:
    """The container `box`, mounted."""
    target = busy_desk.path / "tree"
    target.mkdir()
    busy_desk.does("mount", "box", target)
    return target


def inside(desk: Desk, path: str) -> bytes:
    """What `box` has in a file."""
    tar = desk.run("cp", f"box:{path}", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        member = archive.next()
        assert member is not None
        data = archive.extractfile(member)
        assert data is not None
        return data.read()


def test_create_prints_the_id_and_runs_nothing(busy_desk: Desk) -> None:
    made = busy_desk.does("create", "-q", "demo/busybox", "echo", "-n", "--name").strip()

    assert re.fullmatch(r"[0-9a-f]{64}", made)
    (known,) = json.loads(busy_desk.does("inspect", made))
    assert known["Config"]["Cmd"] == ["echo", "-n", "--name"]
    assert known["State"]["Status"] == "created"


def test_ps_shows_what_was_only_created_when_asked_for_all(busy_desk: Desk) -> None:
    assert len(busy_desk.does("ps").splitlines()) == 1

    line = busy_desk.does("ps", "-a").splitlines()[1]
    assert re.fullmatch(r'[0-9a-f]{12} +demo/busybox +"sh" +\S.* ago +Created +box', line)


def test_ps_speaks_to_machines_too(busy_desk: Desk) -> None:
    (row,) = [json.loads(line) for line in busy_desk.does("container", "ls", "-a", "--format", "json").splitlines()]

    assert (row["name"], row["image"], row["state"]) == ("box", "demo/busybox", "created")
    assert busy_desk.does("ps", "-aq") == row["id"][:12] + "\n"
    assert busy_desk.does("ps", "-aq", "--no-trunc") == row["id"] + "\n"


def test_a_name_is_given_once(busy_desk: Desk) -> None:
    code, line = busy_desk.fails("create", "--name", "box", "demo/busybox")

    assert code == 5
    assert "'box'" in line


def test_a_mounted_container_is_a_plain_writable_directory(busy_desk: Desk, tree: Path) -> None:
    assert (tree / "etc/motd").read_text() == "hello from the second layer\n"
    assert not (tree / "etc/draft").exists()
    (tree / "etc/motd").write_text("changed\n")

    busy_desk.does("umount", tree)

    assert list(tree.iterdir()) == []
    assert inside(busy_desk, "/etc/motd") == b"changed\n"


def test_a_mounted_image_is_read_only(busy_desk: Desk) -> None:
    target = busy_desk.path / "image"
    target.mkdir()
    busy_desk.does("mount", "demo/busybox", target)

    with pytest.raises(OSError, match="Read-only"):
        (target / "etc/motd").write_text("changed\n")

    busy_desk.does("umount", target)


def test_what_is_not_mounted_cannot_be_unmounted(busy_desk: Desk) -> None:
    code, line = busy_desk.fails("umount", busy_desk.path)

    assert code == 4
    assert str(busy_desk.path) in line


def test_diff_names_what_was_added_changed_and_deleted(busy_desk: Desk, tree: Path) -> None:
    (tree / "srv").mkdir()
    (tree / "srv/new").write_text("new")
    (tree / "etc/motd").write_text("changed\n")
    (tree / "usr/share/poem").unlink()
    busy_desk.does("umount", tree)

    told = busy_desk.does("diff", "box").splitlines()

    assert {"A /srv", "A /srv/new", "C /etc", "C /etc/motd", "D /usr/share/poem"} <= set(told)
    assert told == sorted(told, key=lambda line: os.fsencode(line[2:]).split(b"/"))


def test_names_that_cannot_be_printed_are_escaped_and_raw_on_request(busy_desk: Desk, tree: Path) -> None:
    for name in (b"\xff", b"a\nb", rb"\xff"):
        (tree / os.fsdecode(b"tmp/" + name)).touch()
    busy_desk.does("umount", tree)

    told = busy_desk.does("diff", "box").splitlines()
    rows = [json.loads(line) for line in busy_desk.does("diff", "--format", "json", "box").splitlines()]
    raw = busy_desk.run("diff", "-z", "box").stdout.split(b"\0")

    assert {r"A /tmp/\xff", r"A /tmp/a\nb", r"A /tmp/\\xff"} <= set(told)
    assert {bytes.fromhex(row["path_hex"]) for row in rows if "path_hex" in row} == {b"/tmp/\xff"}
    assert {b"A /tmp/\xff", b"A /tmp/a\nb", rb"A /tmp/\xff"} <= set(raw)


def test_diff_of_an_image_is_its_last_layer(busy_desk: Desk) -> None:
    assert "A /usr/share/poem" in busy_desk.does("diff", "demo/busybox").splitlines()


def test_commit_makes_one_more_layer_with_what_was_said(busy_desk: Desk, tree: Path) -> None:
    (tree / "etc/motd").write_text("committed\n")
    busy_desk.does("umount", tree)

    made = busy_desk.does(
        "commit", "-q", "-a", "Ada", "-m", "say more", "-c", 'CMD ["cat", "/etc/motd"]', "-c", "ENV A=b", "box", "new:1"
    ).strip()

    (known,) = json.loads(busy_desk.does("inspect", "new:1"))
    assert known["Id"] == made
    assert (known["Author"], known["Comment"]) == ("Ada", "say more")
    assert known["Config"]["Cmd"] == ["cat", "/etc/motd"]
    assert "A=b" in known["Config"]["Env"]
    assert len(known["RootFS"]["Layers"]) == 4


def test_an_instruction_that_does_not_exist_is_refused(busy_desk: Desk) -> None:
    code, line = busy_desk.fails("commit", "-c", "DANCE slowly", "box")

    assert code == 2
    assert "DANCE" in line


def test_files_are_copied_in_and_out(busy_desk: Desk) -> None:
    (busy_desk.path / "note").write_text("carried\n")

    busy_desk.does("cp", "note", "box:/root/note")
    busy_desk.does("cp", "box:/root/note", "back")

    assert (busy_desk.path / "back").read_text() == "carried\n"


def test_a_tar_is_copied_in_and_out(busy_desk: Desk) -> None:
    (busy_desk.path / "note").write_text("carried\n")
    busy_desk.does("cp", "note", "box:/root/note")

    tar = busy_desk.run("cp", "box:/root/note", "-").stdout
    busy_desk.does("cp", "-", "box:/tmp", stdin=tar)

    assert inside(busy_desk, "/tmp/note") == b"carried\n"


@pytest.mark.parametrize(("source", "target"), [("a", "b"), ("box:/a", "box:/b"), ("./box:/a", "/b")])
def test_cp_wants_a_container_on_one_side(busy_desk: Desk, source: str, target: str) -> None:
    code, _ = busy_desk.fails("cp", source, target)

    assert code == 2


def test_export_writes_the_whole_tree(busy_desk: Desk) -> None:
    busy_desk.does("export", "-o", "tree.tar", "box")

    with tarfile.open(busy_desk.path / "tree.tar") as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    assert {"bin/busybox", "etc/motd", "usr/share/poem"} <= names
    assert "etc/draft" not in names


def test_an_export_that_fails_leaves_no_file(busy_desk: Desk) -> None:
    code, _ = busy_desk.fails("export", "-o", "tree.tar", "nobody")

    assert code == 4
    assert list(busy_desk.path.iterdir()) == []


def test_a_container_gets_another_name(busy_desk: Desk) -> None:
    busy_desk.does("rename", "box", "crate")

    assert busy_desk.does("ps", "-a").splitlines()[1].split()[-1] == "crate"
    assert busy_desk.fails("rename", "crate", "crate")[0] == 5


def test_rm_prints_the_name_and_keeps_the_image(busy_desk: Desk) -> None:
    assert busy_desk.does("rm", "box") == "box\n"

    assert len(busy_desk.does("ps", "-a").splitlines()) == 1
    assert len(busy_desk.does("images").splitlines()) == 2


def test_rm_of_somebody_unknown_is_an_error_unless_forced(busy_desk: Desk) -> None:
    assert busy_desk.fails("rm", "nobody")[0] == 4
    forced = busy_desk.run("rm", "-f", "nobody")
    assert (forced.returncode, forced.stdout) == (0, b"")
    assert b"no container 'nobody'" in forced.stderr  # docker says it, too


def test_a_mounted_container_is_not_removed(busy_desk: Desk, tree: Path) -> None:
    code, line = busy_desk.fails("rm", "box")

    assert code == 6
    assert str(tree) in line

"""What outlives containers: volumes with a name, and without one, as with docker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from desk import Desk

pytestmark = pytest.mark.needs_root


@pytest.fixture
def desk(new_desk: Callable[[str, str], Desk]) -> Desk:
    """Overlay and crun."""
    return new_desk("overlay", "crun")


def home(desk: Desk) -> Path:
    return Path(desk.environ["LAMINA_ROOT"]) / "volumes"


def volumes(desk: Desk) -> list[str]:
    return desk.does("volume", "ls", "-q").split()


def sh(desk: Desk, script: str, *options: str, image: str = "demo/busybox") -> str:
    return desk.does("run", "--rm", *options, image, "sh", "-c", script)


def test_a_volume_with_a_name_outlives_its_containers_and_is_shared(desk: Desk) -> None:
    sh(desk, "echo kept > /data/file", "-v", "data:/data")

    assert sh(desk, "cat /there/file; touch /there/no 2>/dev/null || echo read-only", "-v", "data:/there:ro") == (
        "kept\nread-only\n"
    )
    assert volumes(desk) == ["data"]
    assert desk.does("volume", "ls") == "DRIVER    VOLUME NAME\nlocal     data\n"


def test_a_new_volume_has_what_the_image_has_at_its_place_and_later_ones_do_not_get_it_again(desk: Desk) -> None:
    desk.does("run", "--name", "box", "-v", "etc:/etc", "demo/busybox", "sh", "-c", "rm /etc/motd; touch /etc/mine")

    assert "motd" not in sh(desk, "ls /etc", "-v", "etc:/etc").split()
    assert {"passwd", "mine"} < set(os.listdir(home(desk) / "etc/_data"))
    assert not (home(desk) / "etc/_data/motd").exists()
    assert "/etc/mine" not in desk.does("diff", "box")


def test_nocopy_and_a_volume_that_is_not_empty_get_nothing_of_the_image(desk: Desk) -> None:
    desk.does("volume", "create", "full")
    (home(desk) / "full/_data/mine").touch()

    assert sh(desk, "ls /usr/share", "-v", "none:/usr/share:nocopy") == ""
    assert sh(desk, "ls /usr/share", "-v", "full:/usr/share") == "mine\n"


def test_the_root_of_a_new_volume_has_owner_and_mode_of_the_image_s_directory(desk: Desk) -> None:
    assert sh(desk, "stat -c '%a %u' /tmp", "-v", "tmp:/tmp") == "1777 0\n"


def test_volumes_without_a_name_go_with_rm_v_and_with_rm_but_not_with_rm_alone(desk: Desk) -> None:
    for name in ("one", "two"):
        desk.does("run", "--name", name, "-v", "/data", "demo/busybox", "touch", "/data/file")
    desk.does("run", "--rm", "-v", "/data", "-v", "named:/named", "demo/busybox", "true")
    assert len(volumes(desk)) == 3

    desk.does("rm", "-v", "one")
    desk.does("rm", "two")

    (left,) = set(volumes(desk)) - {"named"}
    assert len(left) == 64
    assert desk.does("volume", "prune", "-f").splitlines()[:2] == ["Deleted Volumes:", left]
    assert volumes(desk) == ["named"]


def test_a_volume_of_the_image_is_one_without_a_name_and_no_part_of_a_commit(desk: Desk) -> None:
    desk.does("create", "--name", "first", "demo/busybox")
    desk.does("commit", "-c", "VOLUME /usr/share", "first", "with:volume")
    desk.does("run", "--name", "box", "with:volume", "sh", "-c", "cat /usr/share/poem; touch /usr/share/mine /mine")

    (told,) = json.loads(desk.does("inspect", "box"))
    (mount,) = told["Mounts"]

    assert (mount["Type"], mount["Destination"], mount["RW"]) == ("volume", "/usr/share", True)
    assert set(os.listdir(mount["Source"])) == {"poem", "mine"}
    assert desk.does("diff", "box") == "A /mine\n"
    desk.does("commit", "box", "again:1")
    assert sh(desk, "true", "-v", f"{desk.path}/there:/usr/share") == ""
    assert len(volumes(desk)) == 1  # what is asked for takes the place of the image's


def test_a_volume_that_a_container_has_stays(desk: Desk) -> None:
    desk.does("create", "--name", "box", "-v", "data:/data", "demo/busybox")

    code, line = desk.fails("volume", "rm", "data")
    pruned = desk.does("volume", "prune", "-a", "-f")

    assert code == 6
    assert "box" in line
    assert pruned == "Total reclaimed space: 0B\n"
    desk.does("rm", "box")
    assert desk.does("volume", "rm", "data") == "data\n"
    assert not any(name for name in os.listdir(home(desk)) if name != ".lock")


def test_files_are_copied_into_and_out_of_volumes(desk: Desk) -> None:
    desk.does("create", "--name", "box", "-v", "data:/data", "-v", "ro:/ro:ro", "demo/busybox")
    (desk.path / "file").write_text("copied")

    desk.does("cp", "file", "box:/data/sub")
    desk.does("cp", "box:/data/sub", "back")
    desk.does("cp", "box:/data/.", "all")

    assert (home(desk) / "data/_data/sub").read_text() == "copied"
    assert (desk.path / "back").read_text() == (desk.path / "all/sub").read_text() == "copied"
    assert desk.does("diff", "box") == ""
    assert "read-only" in desk.fails("cp", "file", "box:/ro/file")[1]
    assert "/data/." in desk.fails("cp", "box:/data", "whole")[1]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("rel/x:/data", "'rel/x'"),
        ("../x:/data", "'../x'"),
        (".part-1:/data", "'.part-1'"),
        ("data:rel", "'rel'"),
        ("data:/", "'/'"),
        ("data:", "NAME:TARGET"),
        ("data:/data:wrong", "'wrong'"),
        ("data:/data:rshared", "'rshared'"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_made(desk: Desk, words: str, what: str) -> None:
    code, line = desk.fails("create", "-v", words, "demo/busybox")

    assert code == 2
    assert what in line
    assert volumes(desk) == []
    assert desk.does("ps", "-aq") == ""


def test_two_volumes_for_one_place_are_refused(desk: Desk) -> None:
    assert "'/data'" in desk.fails("create", "-v", "one:/data", "-v", "two://data/", "demo/busybox")[1]


def test_volumes_move_with_the_store(desk: Desk) -> None:
    desk.does("run", "--name", "box", "-v", "data:/data", "demo/busybox", "sh", "-c", "echo kept >> /data/file")
    root = Path(desk.environ["LAMINA_ROOT"])
    shutil.move(root, desk.path / "elsewhere")
    desk.environ["LAMINA_ROOT"] = str(desk.path / "elsewhere")

    desk.does("start", "-a", "box")

    assert (desk.path / "elsewhere/volumes/data/_data/file").read_text() == "kept\nkept\n"


def test_a_container_whose_volume_was_taken_away_does_not_start(desk: Desk) -> None:
    desk.does("create", "--name", "box", "-v", "data:/data", "demo/busybox")
    shutil.rmtree(home(desk) / "data")

    assert "data" in desk.fails("start", "box")[1]
    assert desk.does("rm", "-v", "box") == "box\n"


def test_a_creation_that_is_killed_while_it_fills_leaves_a_volume_that_the_next_one_fills(desk: Desk) -> None:
    desk.does(
        "run", "--name", "big", "demo/busybox", "sh", "-c", "mkdir /big; for i in $(seq 3000); do echo > /big/$i; done"
    )
    desk.does("commit", "-q", "big", "big:1")
    argv = [*desk.program, "create", "-v", "data:/big", "big:1"]
    victim = subprocess.Popen(
        argv, cwd=desk.path, env=desk.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not any(any(part.iterdir()) for part in home(desk).glob("data/.part-*")):
        assert time.monotonic() < deadline
        assert victim.poll() is None, "it was too quick for us"
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert os.listdir(home(desk) / "data/_data") == []

    assert sh(desk, "ls /big | wc -l", "-v", "data:/big", image="big:1").split() == ["3000"]
    assert sorted(os.listdir(home(desk) / "data")) == ["_data", "lock", "volume.json"]

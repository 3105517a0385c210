"""The union in the hands of an ordinary user, made for this, who may do nothing special but open /dev/fuse."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from desk import PROGRAM
from people import Person, everybody_can, may_open_fuse, person

HOUSE = Path(__file__).parents[2]
pytestmark = pytest.mark.needs_root  # to make the user


@attrs.frozen
class User:
    """A person at the command line, with the demo's image in his home."""

    person: Person
    confined: bool = True  # no user namespace: only FUSE mounts

    @property
    def home(self) -> Path:
        return self.person.home

    def run(self, *words: str, within: str = ".") -> subprocess.CompletedProcess[str]:
        environ = {
            "LAMINA_DRIVER": "fuse",
            "LAMINA_CONFIG": f"{self.home}/config.toml",
            "XDG_RUNTIME_DIR": f"{self.home}/run",
        }
        # -P: what lies in his home is not imported
        argv = ["env", "--chdir", within, PROGRAM[0], "-P", *PROGRAM[1:], *words]
        return self.person.run(argv, environ, confined=self.confined)

    def does(self, *words: str) -> str:
        told = self.run(*words)
        assert told.returncode == 0, told.stderr
        return told.stdout

    def fails(self, *words: str) -> str:
        told = self.run(*words)
        assert told.returncode != 0, told.stdout
        return told.stderr

    def shell(self, script: str) -> str:
        """By other programs than ours."""
        told = self.person.run(["sh", "-ec", script], confined=True)
        assert told.returncode == 0, told.stderr
        return told.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's image, demo/busybox:latest."""
    path = tmp_path_factory.mktemp("archive") / "busybox.tar"
    subprocess.run([sys.executable, HOUSE / "demo/image.py", path], check=True)
    return path


@pytest.fixture
def user(archive: Path) -> Iterator[User]:
    if not everybody_can(Path(sys.executable)):
        pytest.skip("the Python of these tests lies where an ordinary user cannot execute it")
    with person() as someone, may_open_fuse(someone.home.stat().st_uid):
        for name in ("run", "at", "elsewhere"):
            (someone.home / name).mkdir(mode=0o700)
        shutil.copy(archive, someone.home / "busybox.tar")
        (someone.home / "config.toml").write_text('[containers]\nruntime = "crun"\n')
        subprocess.run(["chown", "-R", f"{someone.name}:", someone.home], check=True)
        try:
            yield User(someone)
        finally:
            _let_go(someone)


def _let_go(someone: Person) -> None:
    """What a failed test has left mounted goes, and so does the keeper of a namespace."""
    for name in ("at", "elsewhere"):
        subprocess.run(["umount", "--lazy", "--quiet", someone.home / name], check=False)
    keeper = someone.home / "run/lamina/keeper"
    if keeper.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(json.loads(keeper.read_text())["pid"], signal.SIGKILL)


def _mounts(user: User) -> list[str]:
    """What is mounted in the user's home."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(f"{user.home}/")]


def _changed(user: User) -> None:
    """A container `box`, mounted at `at`, and changed there."""
    user.does("load", "-q", "-i", "busybox.tar")
    user.does("create", "--name", "box", "demo/busybox")
    user.does("mount", "box", "at")
    user.shell("echo mine > at/etc/motd; rm at/etc/passwd; mkdir at/new; mv at/usr at/moved")


def test_an_ordinary_user_loads_mounts_changes_commits_and_saves(user: User) -> None:
    _changed(user)
    (mount,) = _mounts(user)
    seen_while_mounted = user.does("diff", "box")
    user.does("umount", "at")
    user.does("commit", "box", "new:1")
    user.does("save", "-o", "new.tar", "new:1")
    user.does("mount", "new:1", "at")

    assert f"user_id={user.home.stat().st_uid}" in mount
    assert "nosuid,nodev" in mount
    assert "allow_other" not in mount
    assert user.shell("cat at/etc/motd; ls -d at/moved at/new at/bin") == "mine\nat/bin\nat/moved\nat/new\n"
    assert user.shell("ls at/etc/passwd at/usr 2>/dev/null || true") == ""
    assert {"C /etc/motd", "D /etc/passwd", "A /new", "A /moved", "D /usr"} <= set(seen_while_mounted.splitlines())
    assert user.does("diff", "box") == seen_while_mounted
    with tarfile.open(user.home / "new.tar") as saved:
        assert len(json.load(saved.extractfile("manifest.json"))[0]["Layers"]) == 4  # type: ignore[arg-type]
    user.does("umount", "at")
    user.does("rm", "box")
    user.does("rmi", "new:1", "demo/busybox")
    assert _mounts(user) == []
    assert os.listdir(user.home / ".local/share/lamina/fuse/layers") == []


def test_only_root_shows_one_layer_at_two_places(user: User) -> None:
    _changed(user)

    assert "only root can show it at two places" in user.fails("mount", "box", "elsewhere")

    assert user.shell("cat at/etc/motd") == "mine\n"
    user.does("umount", "at")
    user.does("mount", "box", "elsewhere")
    assert user.shell("cat elsewhere/etc/motd") == "mine\n"
    user.does("umount", "elsewhere")


def test_what_is_in_use_stays_mounted(user: User) -> None:
    _changed(user)

    told = user.run("umount", f"{user.home}/at", within="at/etc")

    assert "somebody works in it" in told.stderr
    assert user.shell("cat at/etc/motd") == "mine\n"
    user.does("umount", "at")


def test_a_killed_server_loses_nothing(user: User) -> None:
    _changed(user)
    locks = [lock.read_text().split("\n") for lock in user.home.glob(".local/share/lamina/fuse/layers/*/server.lock")]
    (pid,) = [int(number) for number, place in locks if place == f"{user.home}/at"]
    os.kill(pid, signal.SIGKILL)

    user.does("umount", "at")
    user.does("mount", "box", "at")

    assert user.shell("cat at/etc/motd; ls at/moved") == "mine\nshare\n"
    user.does("umount", "at")
    assert _mounts(user) == []


def test_others_may_enter_only_where_root_allows_it(user: User) -> None:
    (user.home / "config.toml").write_text("[drivers.fuse]\nallow_other = true\n")
    user.does("load", "-q", "-i", "busybox.tar")
    allowed = "user_allow_other" in Path("/etc/fuse.conf").read_text().splitlines()

    if allowed:
        user.does("mount", "demo/busybox", "at")
        assert "allow_other" in _mounts(user)[0]
        user.does("umount", "at")
    else:
        assert "user_allow_other" in user.fails("mount", "demo/busybox", "at")
    assert _mounts(user) == []


def test_in_a_namespace_of_his_own_the_union_carries_containers(user: User) -> None:
    free = attrs.evolve(user, confined=False)
    free.does("load", "-q", "-i", "busybox.tar")

    free.does("run", "--name", "box", "demo/busybox", "sh", "-c", "echo mine > /etc/motd; chown 5 /etc/motd")
    free.does("commit", "box", "new:1")

    assert free.does("run", "--rm", "new:1", "stat", "-c", "%u", "/etc/motd") == "5\n"
    assert set(free.does("diff", "box").splitlines()) == {"C /etc", "C /etc/motd"}
    free.does("rm", "box")

"""An ordinary user runs containers: in a user namespace of his own, with many ids or with one."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from desk import PROGRAM
from people import await_end_of_all, everybody_can

pytestmark = pytest.mark.needs_root  # to make the user

DRIVERS = ("overlay", "vfs")
RUNTIMES = ("crun", "runc")


@attrs.frozen
class Person:
    """Somebody with a home."""

    name: str
    home: Path

    def run(self, driver: str, runtime: str, *words: str) -> subprocess.CompletedProcess[str]:
        """As it is typed."""
        (self.home / "config.toml").write_text(f'[containers]\nruntime = "{runtime}"\n')
        ours = {"HOME": self.home, "XDG_RUNTIME_DIR": self.home / "run", "LAMINA_CONFIG": self.home / "config.toml"}
        settings = [f"{key}={value}" for key, value in (ours | {"LAMINA_DRIVER": driver}).items()]
        # -P: what lies in his home is not imported
        argv = ["setpriv", "--reuid", self.name, "--regid", self.name, "--init-groups", "env", *settings]
        return subprocess.run(
            [*argv, PROGRAM[0], "-P", *PROGRAM[1:], *words],
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def does(self, driver: str, runtime: str, *words: str) -> str:
        """It succeeds; what it prints."""
        told = self.run(driver, runtime, *words)
        assert told.returncode == 0, told.stderr
        return told.stdout


@pytest.fixture
def person(archive: Path) -> Iterator[Person]:
    """A new user, with subordinate ids as useradd gives them; afterwards gone with all that he left running."""
    if not everybody_can(Path(sys.executable)):
        pytest.skip("the Python of these tests lies where an ordinary user cannot execute it")
    home = Path(tempfile.mkdtemp(prefix="lamina-person-"))  # pytest's own directories are closed to others
    name = f"lamina-{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--home-dir", home, "--no-create-home", name], check=True)
    try:
        (home / "run").mkdir(mode=0o700)
        shutil.copy(archive, home / "busybox.tar")
        subprocess.run(["chown", "-R", f"{name}:{name}", home], check=True)
        yield Person(name, home)
    finally:
        keeper = home / "run/lamina/keeper"
        if keeper.exists():
            os.kill(json.loads(keeper.read_text())["pid"], signal.SIGKILL)
        await_end_of_all(home.stat().st_uid)
        subprocess.run(["userdel", "--force", name], check=True)  # the dead count, too, until somebody reaps them
        shutil.rmtree(home)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("ids", ["many", "one"])
def test_an_ordinary_user_runs_changes_and_commits(person: Person, driver: str, runtime: str, ids: str) -> None:
    if ids == "one":
        for kind in ("uid", "gid"):
            subprocess.run(["usermod", f"--del-sub{kind}s", "1-4294967294", person.name], check=True)

    def does(*words: str) -> str:
        return person.does(driver, runtime, *words)

    does("load", "-q", "-i", "busybox.tar")

    maps = does("run", "--rm", "demo/busybox", "cat", "/proc/self/uid_map").splitlines()
    made = person.run(driver, runtime, "run", "-d", "--name", "box", "-m", "64m", "demo/busybox", "sleep", "100")
    does("exec", "box", "sh", "-c", "echo mine > /etc/motd; adduser() { :; }; chown 5 /etc/motd || true")
    said = person.run(driver, runtime, "commit", "-p", "box", "new:1")

    assert len(maps) == {"many": 2, "one": 1}[ids]
    assert made.returncode == 0, made.stderr
    assert "memory is not limited" in made.stderr
    assert re.search("goes on meanwhile: cannot pause: there is no freezer", said.stderr)
    assert "Up" in does("ps")
    assert set(does("diff", "box").splitlines()) == {"C /etc", "C /etc/motd"}
    assert does("run", "--rm", "--network", "host", "new:1", "cat", "/etc/motd") == "mine\n"
    assert does("rm", "-f", "box") == "box\n"


def test_root_of_the_container_is_nobody_outside(person: Person) -> None:
    person.does("vfs", "crun", "load", "-q", "-i", "busybox.tar")
    (person.home / "secret").write_text("root's")
    (person.home / "secret").chmod(0o600)

    told = person.run("vfs", "crun", "run", "--rm", "-v", f"{person.home}:/host", "demo/busybox", "cat", "/host/secret")

    assert "Permission denied" in told.stderr

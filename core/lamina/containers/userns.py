"""Being root of a world of one's own: the user and mount namespace in which an ordinary user's store is used.

One for each user, kept by a process that does nothing else, until it is killed or the machine stops: what is mounted
in it must outlive the command that mounted it. Ids are those of /etc/subuid where newuidmap is there, else one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs

from lamina import syscalls
from lamina.containers.processes import Process, process
from lamina.errors import CannotRun


def enter(state: Path) -> None:
    """This process, which must have no second thread, lives in the user's namespace from now on, and is root there.

    `state` is where it is remembered who keeps it. CannotRun where the kernel lets ordinary users have none.
    """
    here = os.getcwd()
    with _locked(state):
        keeper = _known(state) or _new_keeper(state)
    for kind in ("user", "mnt"):
        with syscalls.opened(f"/proc/{keeper.pid}/ns/{kind}", os.O_RDONLY) as space:
            syscalls.setns(space)
    os.chdir(here)  # a mount namespace begins at its root


def state_directory() -> Path:
    """What is this user's, and empty after a reboot."""
    named = os.environ.get("XDG_RUNTIME_DIR")
    place = Path(named) / "lamina" if named else Path(f"/tmp/lamina-{os.getuid()}")  # noqa: S108  # checked below
    place.mkdir(mode=0o700, exist_ok=True)
    status = place.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or not place.is_dir() or place.is_symlink():
        raise CannotRun(f"{place} is not ours alone; remove it, or set XDG_RUNTIME_DIR")
    return place


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    with syscalls.opened(state / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _known(state: Path) -> Process | None:
    try:
        keeper = Process(**json.loads((state / "keeper").read_text(encoding="ascii")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return keeper if keeper.alive else None


def _new_keeper(state: Path) -> Process:
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _keep(ready_write, go_read)
    os.close(ready_write)
    os.close(go_read)
    try:
        words = os.read(ready_read, 4096)
        if words != b"\0":
            os.waitpid(pid, 0)
            raise CannotRun(f"no user namespace can be had here: {words.decode(errors='replace')}")
        _map_ids(pid)
        os.write(go_write, b"\0")
        os.read(ready_read, 1)  # closed when it has become what keeps
    finally:
        os.close(ready_read)
        os.close(go_write)
    keeper = process(pid)
    if keeper is None:
        raise CannotRun("the process that keeps the user namespace ended at once")
    (state / "keeper").write_text(json.dumps(attrs.asdict(keeper)), encoding="ascii")
    return keeper


def _keep(ready: int, go: int) -> None:
    """In the child: never returns."""
    try:
        os.setsid()
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        os.write(ready, b"\0")
        if os.read(go, 1) != b"\0":
            os._exit(1)
        syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.chdir("/")
        os.execv(shutil.which("sleep") or "/bin/sleep", ["lamina-namespace", "infinity"])  # noqa: S606  # nobody's words are in it
    except BaseException as error:  # noqa: BLE001  # told to the parent, which says it
        os.write(ready, str(error).encode())
    os._exit(1)


def _map_ids(pid: int) -> None:
    """As many ids as we may have; our own is 0."""
    ranges = {kind: _range(kind) for kind in ("uid", "gid")}
    programs = {kind: shutil.which(f"new{kind}map") for kind in ranges}
    if all(ranges.values()) and all(programs.values()):
        for kind, own in (("uid", os.getuid()), ("gid", os.getgid())):
            start, count = ranges[kind] or (0, 0)
            words = [programs[kind] or "", str(pid), "0", str(own), "1", "1", str(start), str(count)]
            told = subprocess.run(words, capture_output=True, text=True, check=False)
            if told.returncode:
                raise CannotRun(f"new{kind}map: {told.stderr.strip()}")
        return
    Path(f"/proc/{pid}/setgroups").write_text("deny", encoding="ascii")
    Path(f"/proc/{pid}/uid_map").write_text(f"0 {os.getuid()} 1", encoding="ascii")
    Path(f"/proc/{pid}/gid_map").write_text(f"0 {os.getgid()} 1", encoding="ascii")


def _range(kind: str) -> tuple[int, int] | None:
    """The first range of subordinate ids that is ours (subuid(5))."""
    names = {str(os.getuid())}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    try:
        lines = Path(f"/etc/sub{kind}").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if name in names and start.isdecimal() and count.isdecimal() and int(count):
            return int(start), int(count)
    return None


def in_namespace() -> bool:
    """Whether our root is not the machine's."""
    return Path("/proc/self/uid_map").read_text(encoding="ascii").split() != ["0", "0", "4294967295"]


def may_have_groups() -> bool:
    """Whether processes may be given groups: not with a single id."""
    return Path("/proc/self/setgroups").read_text(encoding="ascii").strip() == "allow"

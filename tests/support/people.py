"""An ordinary user, made for a test and gone after it with all that he left running."""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

_FUSE: Final = Path("/dev/fuse")
_ACCESS: Final = "system.posix_acl_access"
_USER, _GROUP, _NOBODY = 0x02, 0x04, 0xFFFFFFFF


@attrs.frozen
class Person:
    """Somebody with a home, in which he may do as he likes."""

    name: str
    home: Path

    def run(
        self, argv: Sequence[str | Path], environ: Mapping[str, str] | None = None, *, confined: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """As it is typed. `confined`: the kernel lets this process, and all that it starts, have no user namespace."""
        settings = {"HOME": str(self.home), **(environ or {})}
        become = ["setpriv", "--reuid", self.name, "--regid", self.name, "--init-groups", "--inh-caps=-all"]
        return subprocess.run(
            [*become, "env", *(f"{key}={value}" for key, value in settings.items()), *argv],
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            preexec_fn=_refuse_namespaces if confined else None,  # nothing but two system calls
        )


@contextmanager
def person() -> Iterator[Person]:
    """A new user, with subordinate ids as useradd gives them."""
    home = Path(tempfile.mkdtemp(prefix="lamina-person-"))  # pytest's own directories are closed to others
    name = f"lamina-{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--home-dir", home, "--no-create-home", name], check=True)
    try:
        shutil.chown(home, name, name)
        yield Person(name, home)
    finally:
        await_end_of_all(home.stat().st_uid)
        subprocess.run(["userdel", "--force", name], check=True)  # the dead count, too, until somebody reaps them
        shutil.rmtree(home)


def await_end_of_all(uid: int) -> None:
    """No process of this user lives; one that ends may still be at it."""
    deadline = time.monotonic() + 20
    while any(_lives_as(uid, each) for each in Path("/proc").iterdir() if each.name.isdecimal()):
        assert time.monotonic() < deadline, "processes of the user are left"
        time.sleep(0.05)


def _lives_as(uid: int, process: Path) -> bool:
    try:
        zombie = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return not zombie and process.stat().st_uid == uid
    except OSError:  # it ended meanwhile
        return False


@contextmanager
def may_open_fuse(uid: int) -> Iterator[None]:
    """This user may open /dev/fuse; nobody else may who could not. Other tests may let their users in meanwhile."""
    _list_for_fuse(lambda users: users | {uid})
    try:
        yield
    finally:
        _list_for_fuse(lambda users: users - {uid})


def _list_for_fuse(edit: Callable[[frozenset[int]], frozenset[int]]) -> None:
    """Change which users stand in the device's access list (acl(5)); without any there is none."""
    place = os.open(_FUSE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        mode = os.fstat(place).st_mode
        told = os.getxattr(place, _ACCESS)[4:] if _ACCESS in os.listxattr(place) else b""
        entries = list(struct.iter_unpack("<HHI", told))
        group = next((permissions for tag, permissions, _ in entries if tag == _GROUP), mode >> 3 & 7)
        users = edit(frozenset(who for tag, _, who in entries if tag == _USER))
        if not users:
            os.removexattr(place, _ACCESS)
            os.fchmod(place, mode & 0o707 | group << 3)
            return
        listed = [(_USER, 6, user) for user in sorted(users)]
        whole = [(1, mode >> 6 & 7, _NOBODY), *listed, (_GROUP, group, _NOBODY), (0x10, 6 | group, _NOBODY)]
        words = b"".join(struct.pack("<HHI", *entry) for entry in (*whole, (0x20, mode & 7, _NOBODY)))
        os.setxattr(place, _ACCESS, struct.pack("<I", 2) + words)
    finally:
        os.close(place)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def _refuse_namespaces() -> None:
    """A seccomp(2) filter by root: no unshare(2) with CLONE_NEWUSER. It does not stop setuid programs from being so."""
    load, equal, any_bit, give = 0x20, 0x15, 0x45, 0x06
    unshare, new_user, allowed, refused = 272, 0x10000000, 0x7FFF0000, 0x00050000 | 1  # EPERM; numbers of x86-64
    code = b"".join(
        struct.pack("<HBBI", *each)
        for each in (
            (load, 0, 0, 0),  # the call's number
            (equal, 0, 3, unshare),
            (load, 0, 0, 16),  # its first argument
            (any_bit, 0, 1, new_user),
            (give, 0, 0, refused),
            (give, 0, 0, allowed),
        )
    )
    buffer = ctypes.create_string_buffer(code, len(code))
    rules = _Filter(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    if ctypes.CDLL(None, use_errno=True).prctl(22, 2, ctypes.byref(rules), 0, 0):  # PR_SET_SECCOMP, by filter
        raise OSError(ctypes.get_errno(), "the filter is refused")


def everybody_can(program: Path) -> bool:
    """Whether an ordinary user could execute it."""
    return os.access(program, os.X_OK) and all(each.stat().st_mode & 0o001 for each in program.resolve().parents)

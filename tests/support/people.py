"""An ordinary user, made for a test and gone after it with all that he left running."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

_FUSE: Final = Path("/dev/fuse")
_ACCESS: Final = "system.posix_acl_access"


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
    """This user, and nobody else who could not, may open /dev/fuse."""
    before = os.getxattr(_FUSE, _ACCESS) if _ACCESS in os.listxattr(_FUSE) else None
    mode = _FUSE.stat().st_mode & 0o7777
    nobody = 0xFFFFFFFF
    entries = ((1, 6, nobody), (2, 6, uid), (4, mode >> 3 & 7, nobody), (0x10, 6, nobody), (0x20, mode & 7, nobody))
    os.setxattr(_FUSE, _ACCESS, struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries))
    try:
        yield
    finally:
        if before is not None:
            os.setxattr(_FUSE, _ACCESS, before)
        else:
            os.removexattr(_FUSE, _ACCESS)
            _FUSE.chmod(mode)


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

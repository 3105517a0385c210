"""A small library that is preloaded into the server, compiled where it is used; without it most works, but slower."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("accelerator.c")
_FAILED: Final = ".failed"


def environment(home: Path, *, accelerate: bool) -> dict[str, str]:
    """What a server's environment needs to have the accelerator; nothing where there is none."""
    if not accelerate:
        return {}
    library = _library(home)
    if library is None:
        return {}
    secret = f"\x01lamina.{secrets.token_hex(16)}."
    return {"LD_PRELOAD": str(library), "LAMINA_FUSE_SECRET": secret, "LAMINA_FUSE_SECRET_FOR_C": secret}


def _library(home: Path) -> Path | None:
    """The compiled library, made at the first need; None where it cannot be made."""
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    for directory in (_SOURCE.parent / "__pycache__", home.absolute()):  # beside byte code, for all stores, or in ours
        library = directory / f".accelerator-{digest}.so"
        if _is_ours(library):
            return library
        if _may_write(directory) and _can_be_preloaded(library):
            return library if _compiled(library) else None
    return None


def _is_ours(library: Path) -> bool:
    """Whether it is there, and nobody but root or ourselves has made it."""
    try:
        return library.stat().st_uid in (0, os.geteuid())
    except FileNotFoundError:
        return False


def _may_write(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        directory.mkdir(exist_ok=True)
    return os.access(directory, os.W_OK)


def _can_be_preloaded(library: Path) -> bool:
    return not set(str(library)) & set(": ")  # LD_PRELOAD knows no way to quote


def _compiled(library: Path) -> bool:
    compiler = shutil.which("cc") or shutil.which("gcc")
    failed = library.with_name(library.name + _FAILED)
    if compiler is None or failed.exists():
        return False
    unfinished = library.with_name(f"{library.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        told = subprocess.run(_command(compiler, unfinished), capture_output=True, check=False)
        if told.returncode:
            failed.write_bytes(told.stderr)  # not tried again until the source changes
            return False
        unfinished.rename(library)
    finally:
        with contextlib.suppress(FileNotFoundError):
            unfinished.unlink()
    return True


def _command(compiler: str, target: Path) -> list[str]:
    # linked with libfuse, so that it is loaded before pyfuse3 and in sight of dlsym(RTLD_NEXT)
    flags = ["-O2", "-shared", "-fPIC", "-Wall", "-Wl,--no-as-needed"]
    return [compiler, *flags, "-o", str(target), str(_SOURCE), "-lfuse3", "-ldl"]

"""Entries of tars, good and bad, in one word each."""

from __future__ import annotations

import tarfile


def _member(name: str, kind: bytes, mode: int, linkname: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.mtime = kind, mode, linkname, 1_000_000_000
    return entry


def folder(name: str, mode: int = 0o755) -> tarfile.TarInfo:
    return _member(name, tarfile.DIRTYPE, mode)


def file(name: str, data: bytes = b"data", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, tarfile.REGTYPE, mode), data


def soft(name: str, target: str) -> tarfile.TarInfo:
    return _member(name, tarfile.SYMTYPE, 0o777, target)


def hard(name: str, target: str) -> tarfile.TarInfo:
    return _member(name, tarfile.LNKTYPE, 0o644, target)


def device(name: str, major: int, minor: int) -> tarfile.TarInfo:
    entry = _member(name, tarfile.CHRTYPE, 0o666)
    entry.devmajor, entry.devminor = major, minor
    return entry


def fifo(name: str, mode: int = 0o644) -> tarfile.TarInfo:
    return _member(name, tarfile.FIFOTYPE, mode)

"""Make one directory of many layers, as a union of them would show it, without copying a byte."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from lamina.changes import Whiteouts
from lamina.syscalls import opened
from lamina.trees import remove_tree
from lamina.xattrs import read_xattrs, write_xattrs


def flatten(layers: Iterable[Path], target: Path, dialect: Whiteouts) -> None:
    """Fill the new directory `target` with what the layers, the lowest first, show when they are joined.

    Files are hard links to those of the layers, which never change; directories are made anew.
    """
    target.mkdir(mode=0o700)
    for layer in layers:
        _merge(layer, target, dialect)


def _merge(layer: Path, target: Path, dialect: Whiteouts) -> None:
    with opened(layer, os.O_RDONLY | os.O_DIRECTORY) as directory:
        if dialect.is_opaque(directory):
            for name in os.listdir(target):
                remove_tree(target / name)
        for name in os.listdir(layer):
            raw, status = os.fsencode(name), (layer / name).lstat()
            if dialect.is_private_name(raw):
                continue
            if dialect.is_whiteout(directory, raw, status):
                remove_tree(target / os.fsdecode(dialect.hidden_by(raw)))
            elif stat.S_ISDIR(status.st_mode):
                _merge_directory(layer / name, target / name, dialect)
            else:
                remove_tree(target / name)
                os.link(layer / name, target / name, follow_symlinks=False)
    dress(target, layer)


def _merge_directory(layer: Path, target: Path, dialect: Whiteouts) -> None:
    if target.is_symlink() or not target.is_dir():
        remove_tree(target)
        target.mkdir(mode=0o700)
    _merge(layer, target, dialect)


def dress(directory: Path, like: Path) -> None:
    """Give a directory the owner, mode, attributes and times of another one."""
    status = like.stat()
    os.chown(directory, status.st_uid, status.st_gid)
    write_xattrs(os.fsencode(directory), read_xattrs(os.fsencode(like)), skip_forbidden=True)
    os.chmod(directory, stat.S_IMODE(status.st_mode))
    os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))

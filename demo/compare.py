"""Say whether two trees are the same, name by name: `compare.py ONE OTHER`. Ends with 1 if they are not."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main(one: str, other: str) -> int:
    """Compare, and tell."""
    first, second = dict(facts(Path(one))), dict(facts(Path(other)))
    differing = [path for path in sorted(first.keys() | second.keys()) if first.get(path) != second.get(path)]
    for path in differing:
        print(f"{path}: {first.get(path)} / {second.get(path)}")
    print(f"{len(first)} names compared, {len(differing)} differ")
    return 1 if differing else 0


def facts(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every path below `root`, and what should be the same about it."""
    names: dict[int, list[str]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        names.setdefault(status.st_ino, []).append(name)
        yield (
            name,
            {
                "type": stat.S_IFMT(status.st_mode),
                "mode": oct(stat.S_IMODE(status.st_mode)),
                "owner": (status.st_uid, status.st_gid),
                "mtime": status.st_mtime_ns,
                "device": status.st_rdev,
                "same file as": names[status.st_ino][0],
                "xattrs": xattrs(path),
                "holds": holds(path, status),
            },
        )


def xattrs(path: Path) -> dict[str, bytes]:
    """All attributes but those of the place where it lies."""
    names = os.listxattr(path, follow_symlinks=False)
    kept = [name for name in names if not name.startswith(("trusted.overlay.", "user.overlay.", "security.selinux"))]
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(kept)}


def holds(path: Path, status: os.stat_result) -> str:
    """What is in it."""
    if stat.S_ISREG(status.st_mode):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))

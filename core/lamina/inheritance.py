"""A layer's root begins as its parent's: the joined tree shows the topmost directory's attributes."""

from __future__ import annotations

import os
import stat

from lamina.privacy import is_private_xattr
from lamina.xattrs import read_xattrs, write_xattrs


def inherit_root(parent: str, root: str, *, times: bool) -> None:
    """Give `root` the owner, mode and attributes of `parent`, and its times if asked; the host's own stay behind."""
    status, own = os.stat(parent), os.stat(root)
    if (status.st_uid, status.st_gid) != (own.st_uid, own.st_gid):
        os.chown(root, status.st_uid, status.st_gid)
    os.chmod(root, stat.S_IMODE(status.st_mode))
    found = read_xattrs(os.fsencode(parent))
    if wanted := {name: value for name, value in found.items() if not is_private_xattr(name)}:
        write_xattrs(os.fsencode(root), wanted, skip_forbidden=True)
    if times:
        os.utime(root, ns=(status.st_atime_ns, status.st_mtime_ns))


def adopt_root(parent: str, root: str) -> None:
    """A layer joined to `parent` only now takes over its root's attributes, unless it has brought its own."""
    status = os.stat(root)
    owned = (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    if owned and stat.S_IMODE(status.st_mode) == 0o755:
        inherit_root(parent, root, times=not status.st_mtime_ns)

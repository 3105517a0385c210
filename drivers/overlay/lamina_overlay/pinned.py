"""The mount options that we rely on, whatever the kernel's own defaults are on this machine."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

_EVERYBODY: Final = ["0", "0", "4294967295"]

# - metacopy=off: a chmod copies the whole file up, so that the directory of changes is complete without its parents;
# - redirect_dir=nofollow: renaming a parent's directory is EXDEV (mv then copies), so that a name in the directory of
#   changes always means the same name in the parents, and no attribute that came with a layer leads anywhere else;
# - index=off: the layer can be moved, copied and put onto another parent; the index would bind it to inode numbers.
_PINNED: Final = ("index=off", "metacopy=off", "redirect_dir=nofollow")


def pinned_options() -> tuple[str, ...]:
    """What every overlay mount of ours is given."""
    return (*_PINNED, "userxattr") if in_user_namespace() else _PINNED


@functools.cache
def in_user_namespace() -> bool:
    """Whether our root is not the machine's; then overlayfs may keep its own attributes only in `user.overlay.`."""
    try:
        return Path("/proc/self/uid_map").read_text(encoding="ascii").split() != _EVERYBODY
    except FileNotFoundError:  # a kernel without user namespaces
        return False


def attribute_prefix() -> str:
    """Where overlayfs keeps its own attributes here."""
    return "user.overlay." if in_user_namespace() else "trusted.overlay."

"""What is a file system's or a host's own bookkeeping, and so never leaves in a layer nor comes in with one."""

from __future__ import annotations

from typing import Final

_PRIVATE: Final = (
    "trusted.overlay.",  # overlayfs, as root; its escaped form trusted.overlay.overlay. begins alike
    "user.overlay.",  # overlayfs, in a user namespace
    "user.fuseoverlayfs.",
)
_OF_THE_HOST: Final = frozenset({"security.selinux", "security.evm"})  # a policy's and a key's of this machine


def is_private_xattr(name: str) -> bool:
    """Whether an attribute belongs to the place where a file lies, not to the file."""
    return name.startswith(_PRIVATE) or name in _OF_THE_HOST

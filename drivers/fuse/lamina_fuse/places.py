"""Open what lies deep below a directory: paths longer than the kernel takes at once are walked in pieces."""

from __future__ import annotations

import os
from typing import Final

_LONGEST: Final = 4000  # PATH_MAX is 4096, the final zero included
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_below(root: int, path: bytes, flags: int) -> int:
    """A descriptor for `path` below the open directory `root`; `path` may be empty: the root itself."""
    if len(path) <= _LONGEST:
        return os.open(path or b".", flags | os.O_CLOEXEC, dir_fd=root)
    cut = path.rindex(b"/", 0, _LONGEST)
    step = os.open(path[:cut], _STEP, dir_fd=root)
    try:
        return open_below(step, path[cut + 1 :], flags)
    finally:
        os.close(step)


def magic(descriptor: int) -> bytes:
    """A name by which an open file, or one opened with O_PATH, can be opened again."""
    return b"/proc/self/fd/%d" % descriptor

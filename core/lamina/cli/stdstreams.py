"""Standard streams that somebody has closed before we began: their numbers are taken, so that no file gets them."""

from __future__ import annotations

import os
import sys


def reopen_closed() -> None:
    """0, 1 and 2 are open, here and in what we start. Else a file of the store could get one, and then be written to.

    Nothing comes from stdin; what goes to stderr is lost; to write to stdout is an error, as for other programs.
    """
    if sys.stdin is None:
        _take(os.O_RDONLY)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # for as long as we run
    if sys.stdout is None:
        _take(os.O_RDONLY)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        _take(os.O_WRONLY)
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _take(flags: int) -> None:
    """The lowest number that is free is the one that is missing, since those below are open by now."""
    os.set_inheritable(os.open(os.devnull, flags), True)  # noqa: FBT003  # it takes no keyword

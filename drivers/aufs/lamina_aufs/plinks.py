"""Pseudo-links: what aufs only remembers of a file with several names, written down before it forgets.

When a file of a lower layer that has several names is first written to, aufs copies it up under the one name that was
used, keeps a link of the copy in `.wh..wh.plnk`, called `<its inode number>.<that of the copy>`, and shows the copy
under all of its names for as long as it is mounted. Afterwards the other names would show the old text again (aufs:
design/02struct.txt, "Pseudo-link"; `auplink flush` of aufs-util is for the same).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from lamina.descent import DIRECTORY, Entry, walk
from lamina.syscalls import opened
from lamina.xattrs import at

PLINKS: Final = ".wh..wh.plnk"


def settle(fs: Path, joined: Path) -> None:
    """Every name of a file that was copied up is in the branch `fs`, which is mounted at `joined`; repeatable.

    Nothing else changes but the files' ctime. Where there are no pseudo-links, this takes one look.
    """
    try:
        numbers = {int(name.partition(".")[0]) for name in os.listdir(fs / PLINKS)}
    except FileNotFoundError:
        return
    if not numbers:
        return
    with opened(joined, DIRECTORY) as root:
        for entry in walk(root):
            if entry.status.st_ino in numbers and not stat.S_ISDIR(entry.status.st_mode):
                _copy_up(entry)


def _copy_up(entry: Entry) -> None:
    """Ask for a change that changes nothing: aufs links the copy to this name, too.

    Not utimensat(2), since aufs keeps whole seconds only; and chown(2) takes setuid away, but not from symbolic links.
    """
    if stat.S_ISLNK(entry.status.st_mode):
        os.chown(entry.name, -1, -1, dir_fd=entry.directory, follow_symlinks=False)
    else:
        os.chmod(at(entry.directory, entry.name), stat.S_IMODE(entry.status.st_mode))

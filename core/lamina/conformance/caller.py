"""Who plays: what the kernel lets this process do, which the model has to know."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Final

_CAP_FSETID: Final = 4
_FIRST_USER_NAMESPACE: Final = 0xEFFFFFFD  # PROC_USER_INIT_INO


@functools.cache
def is_root() -> bool:
    """Whether we are root of the machine; root of a user namespace may neither make devices nor give files away."""
    everybody = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    return os.geteuid() == 0 and everybody


@functools.cache
def keeps_setid() -> bool:
    """Whether setuid and setgid of a file outlive our writing to it.

    They do for CAP_FSETID of the machine itself; that of a user namespace does not count (fs/attr.c).
    """
    (capabilities,) = re.findall(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    able = bool(int(capabilities, 16) >> _CAP_FSETID & 1)
    return able and os.stat("/proc/self/ns/user").st_ino == _FIRST_USER_NAMESPACE

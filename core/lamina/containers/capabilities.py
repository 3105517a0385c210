"""Which privileges of root a container's root keeps."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lamina.errors import BadRequest

_IN_ORDER: Final = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_USUAL: Final = """
AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID
SYS_CHROOT
"""
ALL: Final = tuple(f"CAP_{name}" for name in _IN_ORDER.split())  # capabilities(7), in the order of their numbers
USUAL: Final = frozenset(f"CAP_{name}" for name in _USUAL.split())  # what docker's documentation says it leaves


def check_capability(name: str) -> str:
    """Its whole name, `CAP_…` or `ALL`; BadRequest if there is none."""
    upper = name.upper()
    if upper == "ALL":
        return upper
    whole = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if whole not in ALL:
        raise BadRequest(f"there is no capability {name!r}; capabilities(7) lists them, without CAP_ if you like")
    return whole


def chosen(add: Iterable[str], drop: Iterable[str], *, privileged: bool = False) -> tuple[str, ...]:
    """What is left of root, by name, of that which we have ourselves: nobody can give away more."""
    added, dropped = {check_capability(each) for each in add}, {check_capability(each) for each in drop}
    everything = frozenset(ALL)
    wanted = everything if privileged or "ALL" in added else frozenset() if "ALL" in dropped else USUAL
    wanted = (wanted | added) - dropped if "ALL" not in dropped else wanted & everything | added
    return tuple(name for name in ALL if name in wanted and name in ours())


@functools.cache
def ours() -> frozenset[str]:
    """Those that this process may hand on (its bounding set, proc_pid_status(5))."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapBnd:"):
            mask = int(line.split()[1], 16)
            return frozenset(name for bit, name in enumerate(ALL) if mask >> bit & 1)
    return frozenset(ALL)

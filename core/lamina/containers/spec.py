"""What an OCI runtime is to do: image settings and options as a runtime-spec document (its version 1.0.2)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from lamina.containers import capabilities, seccomp
from lamina.containers.cgroups import Cgroups
from lamina.containers.options import Options
from lamina.containers.userns import may_have_groups
from lamina.containers.users import User
from lamina.containers.volumes import Volume
from lamina.errors import BadRequest

PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# what docker hides of the kernel, and what it shows read-only
MASKED: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_PERIOD: Final = 100_000  # microseconds: the scheduler's usual one
_NO_DEVICES: Final = frozenset(
    ("console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty", "urandom", "zero")
)


@attrs.frozen
class Ground:
    """On what a container stands: prepared before its document is written."""

    rootfs: Path
    files: Mapping[str, Path]  # those of ours that it sees, such as /etc/hosts, by where it sees them
    hostname: str
    cgroup: str
    cgroups: Cgroups
    rootless: bool = False
    volumes: tuple[Volume, ...] = ()


def make_spec(settings: Mapping[str, Any], options: Options, user: User, ground: Ground) -> dict[str, Any]:
    """The document. BadRequest if nothing says what to run."""
    return {
        "ociVersion": "1.0.2",
        "process": make_process(settings, options, user, ground.hostname),
        "root": {"path": str(ground.rootfs), "readonly": options.read_only},
        "hostname": ground.hostname,
        "mounts": [*_file_systems(options, ground), *_binds(ground)],
        "linux": _linux(options, ground),
    }


def make_process(settings: Mapping[str, Any], options: Options, user: User, hostname: str) -> dict[str, Any]:
    """Its `process`, which is also what `exec` gives to the runtime."""
    command = command_of(settings)
    if not command:
        raise BadRequest("no command is given, and the image names none")
    kept = capabilities.chosen(options.cap_add, options.cap_drop, privileged=options.privileged)
    own = kept if user.uid == 0 else ()
    return {
        "terminal": options.terminal,
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            # its own group, too: else whoever may not drop it could by a setgid program (CVE-2022-36109)
            "additionalGids": list(dict.fromkeys((user.gid, *user.groups))) if may_have_groups() else [],
        },
        "args": command,
        "env": environment(settings, options, user, hostname),
        "cwd": settings.get("WorkingDir") or "/",
        "capabilities": {"bounding": list(kept), "effective": list(own), "permitted": list(own)},
        "noNewPrivileges": options.no_new_privileges,
    }


def command_of(settings: Mapping[str, Any]) -> list[str]:
    """What is started: entrypoint and command."""
    return [*(settings.get("Entrypoint") or ()), *(settings.get("Cmd") or ())]


def environment(settings: Mapping[str, Any], options: Options, user: User, hostname: str) -> list[str]:
    """What is usual, then the image's, then what was asked for; the last one wins, and keeps its first place."""
    usual = [PATH, f"HOSTNAME={hostname}", *(["TERM=xterm"] if options.terminal else []), f"HOME={user.home}"]
    table = {entry.partition("=")[0]: entry for entry in usual}
    for entry in (*(settings.get("Env") or ()), *options.environment):
        name, equals, _ = entry.partition("=")
        if equals:
            table[name] = entry
        elif name in os.environ:  # `exec -e NAME` hands on ours
            table[name] = f"{name}={os.environ[name]}"
        else:
            table.pop(name, None)
    return list(table.values())


def _mount(kind: str, target: str, *options: str, source: str | None = None) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source or kind, "options": list(options)}


def _file_systems(options: Options, ground: Ground) -> Iterator[dict[str, Any]]:
    """As docker has them."""
    safe = ("nosuid", "noexec", "nodev")
    writable = "rw" if options.privileged else "ro"
    yield _mount("proc", "/proc", *safe)
    yield _mount("tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k")
    group = () if ground.rootless else ("gid=5",)  # the group tty may have no number in a user namespace
    yield _mount("devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *group)
    if ground.rootless and options.network == "host":  # sysfs belongs to whoever owns the network
        yield _mount("bind", "/sys", "rbind", *safe, "ro", source="/sys")
    else:
        yield _mount("sysfs", "/sys", *safe, writable)
        if ground.cgroups.version:
            yield _mount("cgroup", "/sys/fs/cgroup", *safe, "relatime", writable)
    yield _mount("mqueue", "/dev/mqueue", *safe)
    yield _mount("tmpfs", "/dev/shm", *safe, "mode=1777", "size=65536k", source="shm")  # noqa: S108  # the container's


def _binds(ground: Ground) -> Iterator[dict[str, Any]]:
    taken = {volume.target for volume in ground.volumes}
    for target, source in ground.files.items():
        if target not in taken:
            yield _mount("bind", target, "rbind", "rprivate", source=str(source))
    for volume in sorted(ground.volumes, key=lambda each: each.target.count("/")):  # outer ones first
        mode = "rw" if volume.writable else "ro"
        yield _mount("bind", volume.target, "rbind", volume.propagation, mode, source=volume.source)


def _linux(options: Options, ground: Ground) -> dict[str, Any]:
    spaces = ["mount", "uts", "ipc", "pid", *(["network"] if options.network == "none" else [])]
    spaces += ["cgroup"] if ground.cgroups.version == 2 else []
    document: dict[str, Any] = {
        "namespaces": [{"type": space} for space in spaces],
        "maskedPaths": [] if options.privileged else list(MASKED),
        "readonlyPaths": [] if options.privileged else list(READ_ONLY),
        "resources": _resources(options, ground),
    }
    if ground.cgroups.version:
        document["cgroupsPath"] = ground.cgroup
    if options.privileged and not ground.rootless:
        document["devices"] = list(_all_devices())
    if (profile := _profile(options)) is not None:
        kept = capabilities.chosen(options.cap_add, options.cap_drop)
        document["seccomp"] = seccomp.filter_of(profile, kept)
    return document


def _profile(options: Options) -> Path | None:
    if options.privileged or options.seccomp == "unconfined":
        return None
    return Path(options.seccomp) if options.seccomp else seccomp.usual_profile()


def _resources(options: Options, ground: Ground) -> dict[str, Any]:
    """Only what can be limited here: a runtime refuses the rest."""
    can = ground.cgroups.controllers
    limits: dict[str, Any] = {}
    if options.memory and "memory" in can:
        limits["memory"] = {"limit": options.memory}
    if options.cpus and "cpu" in can:
        limits["cpu"] = {"quota": int(options.cpus * _PERIOD), "period": _PERIOD}
    if options.pids > 0 and "pids" in can:
        limits["pids"] = {"limit": options.pids}
    if ground.cgroups.version and not ground.rootless:
        limits["devices"] = _device_rules(options)
    return limits


def _device_rules(options: Options) -> Sequence[Mapping[str, Any]]:
    """Nothing but what is harmless; every runtime adds the usual few. Making nodes is no harm, opening them is."""
    if options.privileged:
        return [{"allow": True, "access": "rwm"}]
    return [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "access": "m"},
    ]


def _all_devices() -> Iterator[dict[str, Any]]:
    """Every device of the host that is not one of the usual few."""
    for directory, below, names in os.walk("/dev"):
        below[:] = [name for name in below if name not in _NO_DEVICES]
        for name in names:
            path = f"{directory}/{name}"
            status = os.lstat(path)
            letter = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
            if letter and not (directory == "/dev" and name in _NO_DEVICES):
                yield {
                    "path": path,
                    "type": letter,
                    "major": os.major(status.st_rdev),
                    "minor": os.minor(status.st_rdev),
                    "fileMode": stat.S_IMODE(status.st_mode),
                    "uid": status.st_uid,
                    "gid": status.st_gid,
                }

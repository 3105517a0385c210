"""The filter of system calls: a profile in docker's form, as the distribution has it, in the runtime's form."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from lamina.errors import BadRequest

# where Debian and Fedora keep it (containers-common); an administrator's comes first
PROFILES: Final = (Path("/etc/containers/seccomp.json"), Path("/usr/share/containers/seccomp.json"))

_ARCHITECTURES: Final = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}


def usual_profile() -> Path | None:
    """The one that is installed, if one is."""
    return next((path for path in PROFILES if path.exists()), None)


def filter_of(profile: Path, capabilities: Collection[str]) -> dict[str, Any]:
    """What an OCI runtime is to be told. BadRequest if the file is no such profile."""
    try:
        document = json.loads(profile.read_bytes())
        return _translated(document, frozenset(capabilities))
    except OSError as error:
        raise BadRequest(f"the seccomp profile {profile} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"{profile} is no seccomp profile: {error}") from error


def _translated(document: Mapping[str, Any], capabilities: frozenset[str]) -> dict[str, Any]:
    short, native = _ARCHITECTURES.get(platform.machine(), ("", ""))
    others = [each for each in document.get("archMap") or () if each["architecture"] == native]
    result: dict[str, Any] = {
        "defaultAction": document["defaultAction"],
        "architectures": [native, *(name for each in others for name in each.get("subArchitectures") or ())],
        "syscalls": [_rule(rule) for rule in document.get("syscalls") or () if _applies(rule, short, capabilities)],
    }
    if document.get("defaultErrnoRet") is not None:
        result["defaultErrnoRet"] = document["defaultErrnoRet"]
    if not native:
        del result["architectures"]
    return result


def _applies(rule: Mapping[str, Any], architecture: str, capabilities: frozenset[str]) -> bool:
    wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
    if wanted.get("arches") and architecture not in wanted["arches"]:
        return False
    if wanted.get("caps") and not capabilities.issuperset(wanted["caps"]):
        return False
    if wanted.get("minKernel") and _kernel() < _numbers(wanted["minKernel"]):
        return False
    return architecture not in (unwanted.get("arches") or ()) and capabilities.isdisjoint(unwanted.get("caps") or ())


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: rule[key] for key in ("names", "action", "errnoRet", "args") if rule.get(key)}
    if "name" in rule:  # the old form
        known["names"] = [rule["name"]]
    return known


def _kernel() -> tuple[int, ...]:
    return _numbers(os.uname().release)


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(word) for word in release.replace("-", ".").split(".")[:2] if word.isdecimal())

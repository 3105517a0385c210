"""This boot of the machine. Light: nothing is imported."""

from __future__ import annotations


def boot_id() -> str:
    """The kernel's name for this boot: a mount that was made under another one is gone."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()

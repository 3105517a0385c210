"""lamina keeps the file systems of containers: layers, snapshots and mounts on pluggable storage drivers.

The public names are here, each loaded when it is first asked for: `import lamina` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes longer to import than a listing to print
if TYPE_CHECKING:
    from typing import Any

    from lamina.changes import Change, ChangeKind, ChangesTree, Whiteouts
    from lamina.config import Config, choose_driver, load_config
    from lamina.content import Applied
    from lamina.driver import Ability, Driver, Health, NativeDiff, NativeUsage, NoOptions, StoresChanges, hookimpl
    from lamina.durability import Durability
    from lamina.errors import LaminaError
    from lamina.events import Event
    from lamina.layer import Kind, Layer, Usage
    from lamina.mount import Mount, bind
    from lamina.plugins import installed, load_driver
    from lamina.snapshot import Snapshot
    from lamina.snapshotter import KEEP, Snapshotter, open_snapshotter

__all__ = [
    "KEEP",
    "Ability",
    "Applied",
    "Change",
    "ChangeKind",
    "ChangesTree",
    "Config",
    "Driver",
    "Durability",
    "Event",
    "Health",
    "Kind",
    "LaminaError",
    "Layer",
    "Mount",
    "NativeDiff",
    "NativeUsage",
    "NoOptions",
    "Snapshot",
    "Snapshotter",
    "StoresChanges",
    "Usage",
    "Whiteouts",
    "bind",
    "choose_driver",
    "hookimpl",
    "installed",
    "load_config",
    "load_driver",
    "open_snapshotter",
]

_HOMES = {
    "changes": ("Change", "ChangeKind", "ChangesTree", "Whiteouts"),
    "config": ("Config", "choose_driver", "load_config"),
    "content": ("Applied",),
    "driver": ("Ability", "Driver", "Health", "NativeDiff", "NativeUsage", "NoOptions", "StoresChanges", "hookimpl"),
    "durability": ("Durability",),
    "errors": ("LaminaError",),
    "events": ("Event",),
    "layer": ("Kind", "Layer", "Usage"),
    "mount": ("Mount", "bind"),
    "plugins": ("installed", "load_driver"),
    "snapshot": ("Snapshot",),
    "snapshotter": ("KEEP", "Snapshotter", "open_snapshotter"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415

    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
